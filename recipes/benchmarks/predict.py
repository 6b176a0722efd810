"""How many pictures a second `fairtune predict` scores, beside decoding alone on the same cores.

    python recipes/benchmarks/predict.py --pictures 10000
    python recipes/benchmarks/predict.py --pictures 10000 --run runs/mine --device cuda

Writes generated 600 x 450 JPEGs (about 50 kB each) to a temporary folder. "Decoding alone" is the package's own reader
and square with nothing after it, in one process a core. `predict` is the whole of the command but its start: read,
decode, look at what is unlike the training pictures, normalise, score, tabulate. The two take turns, so that what else
the machine does falls on both. On a CPU the model's work is done by the cores that decode, so no share can be above
decode / (decode + score) of the processor time of a picture, which is printed as `bound_on_a_cpu`. Without --run the model is the demo backbone with an adapter of its attention that
nobody trained, which costs what a trained one costs. Asked for: at least .9 of decoding alone. Prints one JSON object,
with the processor seconds of a picture by part.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from peft import get_peft_model

from fairtune_hf import FairMaskConfig, load_backbone, load_predictor
from fairtune_hf.data.images import FileSource
from fairtune_hf.inference import Predictor
from fairtune_hf.inference.listing import list_pictures
from fairtune_hf.inference.predictor import usable_cores
from fairtune_hf.inference.results import tabulate
from fairtune_hf.model_description import BaseRecord, InputRecord, ModelDescription
from fairtune_hf.training.adapter_folder import save_adapter

ASKED = 0.9
_spec = importlib.util.spec_from_file_location("prepare", Path(__file__).with_name("prepare.py"))
_prepare = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_prepare)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--run")
    parser.add_argument("--device")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--workers", type=int, default=usable_cores())
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        files = write_pictures(Path(place) / "pictures", asked.pictures)
        where = Path(asked.run) if asked.run else make_adapter(Path(place) / "adapter")
        predictor = load_predictor(where, device=asked.device, batch_size=asked.batch_size)
        print(json.dumps(measure(files, predictor, asked.turns, asked.workers), indent=1))


def write_pictures(root: Path, count: int) -> list[Path]:
    _prepare.write_folder(root, count)
    return sorted((root / "images").iterdir())


def make_adapter(folder: Path) -> Path:
    backbone = load_backbone()
    model = get_peft_model(backbone.copy_with_new_head(), FairMaskConfig(mask="attention"))
    shown = {"image_mean": list(backbone.image_mean), "image_std": list(backbone.image_std)}
    size = backbone.image_size
    described = ModelDescription(
        id2label={"0": "no", "1": "yes"},
        base=BaseRecord(id=backbone.id, sha256=backbone.sha256),
        input=InputRecord(image_size=size, stored_sides=[size], **shown),
        pictures={
            "short_side": [450, 450],
            "aspect": [1, 2],
            "brightness": [0, 255],
            "contrast": [0, 128],
            "grey_share": 0.0,
        },
        seed=0,
    )
    folder.mkdir()
    save_adapter(model, folder, described)
    return folder


def decode_one(file_and_side: tuple[str, int]) -> int:
    path, side = file_and_side
    return FileSource(path, path).read(side)[0].shape[0]


def measure(files: list[Path], predictor: Predictor, turns: int, workers: int) -> dict[str, object]:
    side = predictor.described.input.stored_sides[0]
    todo = [(str(file), side) for file in files]
    rates: dict[str, list[float]] = {"decoding_alone": [], "predict": []}
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(decode_one, todo[: 8 * workers])
        list(predictor.each(files[: 2 * predictor.batch_size], workers=workers))
        for _ in range(turns):
            decode = time_of(lambda: pool.map(decode_one, todo, chunksize=16))
            rates["decoding_alone"].append(len(files) / decode)
            rates["predict"].append(
                len(files) / time_of(lambda: predict(files, predictor, workers))
            )
    shares = [a / b for a, b in zip(rates["predict"], rates["decoding_alone"], strict=True)]
    share = statistics.median(shares)
    parts = by_part(files[:256], predictor)
    decode, score = parts["decode_and_square"], parts["normalise_and_score"]
    return {
        "pictures": len(files),
        "workers": workers,
        "device": str(predictor.device),
        "torch_threads": torch.get_num_threads(),
        "pictures_a_second": {name: [round(r, 1) for r in found] for name, found in rates.items()},
        "share_of_decoding_alone": round(share, 3),
        "asked_for": ASKED,
        "reached": share >= ASKED,
        "bound_on_a_cpu": round(decode / (decode + score), 3),
        "processor_ms_a_picture": parts,
    }


def predict(files: list[Path], predictor: Predictor, workers: int) -> None:
    listing = list_pictures(files)
    tabulate(listing, list(predictor.each(listing.paths, workers=workers)))


def by_part(files: list[Path], predictor: Predictor) -> dict[str, float]:
    """Processor time of the parts, one after the other in this process."""
    decoded: list[object] = []
    found = {"decode_and_square": cpu_of(lambda: decoded.extend(map(predictor.decode, files)))}
    found["decode_and_look"] = cpu_of(lambda: [predictor._look(file) for file in files])
    size = predictor.batch_size
    batches = [np.stack(decoded[start : start + size]) for start in range(0, len(files), size)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in predict, and so that none waits
    found["normalise_and_score"] = cpu_of(lambda: [predictor.score_pixels(b) for b in batches])
    torch.set_num_threads(threads)
    return {name: round(1000 * seconds / len(files), 3) for name, seconds in found.items()}


def time_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cpu_of(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
