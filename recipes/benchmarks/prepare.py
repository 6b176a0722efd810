"""How fast a data set is prepared, against Pillow's bare decode and resize on the same cores.

    python recipes/benchmarks/prepare.py --rows 20000

Writes generated 600 x 450 JPEGs (about 50 kB each) to a temporary folder, decodes and resizes them
with nothing but Pillow in one process per core, prepares them with `load_dataset_table` in a fresh
process (rows, groups, checks, digests, cache), opens the cache again, and passes once over the
cached rows. Asked for: >= 85 % of the bare rate, peak memory < 1.5 GB, reopening < 1 s, the pass
>= 20 times as fast as decoding. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

WIDTH, HEIGHT, DISTINCT = 600, 450, 200
SIDE = 256
LIMITS = {"share_of_bare": 0.85, "peak_gb": 1.5, "reopen_seconds": 1.0, "pass_over_decode": 20.0}


def draw(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (10, 13, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    noise = rng.normal(0, 7, (HEIGHT, WIDTH, 1))
    picture = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def write_folder(root: Path, rows: int) -> None:
    (root / "images").mkdir(parents=True)
    drawn = [draw(seed) for seed in range(DISTINCT)]
    lines = []
    for i in range(rows):
        name = f"images/{i:06d}.jpg"
        # Bytes behind the picture's end make every file different at no cost.
        (root / name).write_bytes(drawn[i % DISTINCT] + f"{i:08d}".encode())
        lines.append((name, f"p{i // 2}", "MF"[i // 2 % 2], i // 4 % 2))
    table = pd.DataFrame(lines, columns=["file_name", "person", "sex", "label"])
    table.to_csv(root / "metadata.csv", index=False)


def bare(path: str) -> int:
    with Image.open(path) as image:
        rgb = image.convert("RGB")
        width, height = rgb.size
        scale = SIDE / min(width, height)
        size = (round(width * scale), round(height * scale))
        small = rgb.resize(size, Image.Resampling.BILINEAR)
        left, top = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
        return int(np.asarray(small.crop((left, top, left + SIDE, top + SIDE))).shape[0])


def time_bare(root: Path, rows: int) -> tuple[float, float]:
    """Return pictures a second, and milliseconds of processor time a picture."""
    paths = [str(p) for p in sorted((root / "images").iterdir())[:rows]]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        pool.map(bare, paths[:64])
        start = time.perf_counter()
        for _ in pool.imap_unordered(bare, paths, chunksize=64):
            pass
        rate = len(paths) / (time.perf_counter() - start)
        pool.close()
        pool.join()
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return rate, 1000 * (now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime) / len(paths)


def load(root: str, cache: str) -> dict[str, float]:
    from fairtune_hf.data import load_dataset_table

    start, busy = time.perf_counter(), time.process_time()
    table = load_dataset_table(
        "folder",
        root,
        image_size=SIDE,
        cache_dir=cache,
        progress=False,
        label_column="label",
        sensitive_column="sex",
        patient_column="person",
    )
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    start = time.perf_counter()
    total = 0
    for first in range(0, len(table), 256):
        total += int(np.array(table.images[first : first + 256])[:, 0, 0, 0].sum())
    passed = len(table) / (time.perf_counter() - start)
    return {
        "rows": len(table),
        "seconds": seconds,
        "cpu_seconds": busy,
        "peak_gb": peak,
        "pass_rate": passed,
    }


def load_elsewhere(root: Path, cache: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--load", str(root), str(cache)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(rows: int, folder: Path) -> dict[str, object]:
    root, cache = folder / "data", folder / "cache"
    write_folder(root, rows)
    sample = min(rows, 4000)
    before, cpu_before = time_bare(root, sample)
    first = load_elsewhere(root, cache)
    after, cpu_after = time_bare(root, sample)
    again = load_elsewhere(root, cache)
    rate, bare_rate = first["rows"] / first["seconds"], (before + after) / 2
    found = {
        "share_of_bare": rate / bare_rate,
        "peak_gb": first["peak_gb"],
        "reopen_seconds": again["seconds"],
        "pass_over_decode": again["pass_rate"] / bare_rate,
    }
    met = {
        k: found[k] >= v if k in ("share_of_bare", "pass_over_decode") else found[k] < v
        for k, v in LIMITS.items()
    }
    return {
        "rows": rows,
        "cores": os.cpu_count(),
        "bare_images_per_second": [round(before, 1), round(after, 1)],
        "prepare_images_per_second": round(rate, 1),
        "bare_cpu_ms": [round(cpu_before, 2), round(cpu_after, 2)],
        "prepare_cpu_ms": round(1000 * first["cpu_seconds"] / first["rows"], 2),
        "reopen_cpu_seconds": round(again["cpu_seconds"], 3),
        **{k: round(v, 3) for k, v in found.items()},
        "met": met,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if absent")
    parser.add_argument("--load", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        print(json.dumps(load(*arguments.load)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print(json.dumps(measure(arguments.rows, Path(folder)), indent=1))


if __name__ == "__main__":
    main()
