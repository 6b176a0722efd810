"""The prepared pictures are complete or not there, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from fairtune_hf.data import load_dataset_table
from fairtune_hf.data import store as store_module
from fairtune_hf.data.image_source import ImageError
from fairtune_hf.data.picture_store import open_store
from fairtune_hf.data.store import build_store, store_key

SIDE = 8
BUILDER = """
import sys, time, types
from pathlib import Path
import numpy as np
# The package's own __init__ imports torch, which takes seconds: the store needs none of it.
for name in ("fairtune_hf", "fairtune_hf.data"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(Path(sys.argv[2], *name.split(".")))]
from fairtune_hf.data.store import build_store

class Slow:
    def __init__(self, i): self.i, self.name = i, f"row {i}"
    def signature(self): return f"row {self.i}"
    def stamp(self): return ""
    def read(self, side):
        time.sleep(0.0002)
        rng = np.random.default_rng(self.i)
        return rng.integers(0, 256, (side, side, 3), dtype=np.uint8), bytes([self.i % 251]) * 32

print("ready", flush=True)
build_store(Path(sys.argv[1]), [Slow(i) for i in range(2000)], 8, progress=False, workers=2)
"""


@dataclass
class Drawn:
    number: int
    calls: list[int]
    bad: bool = False

    @property
    def name(self) -> str:
        return f"row {self.number}"

    def signature(self) -> str:
        return f"row {self.number}"

    def stamp(self) -> str:
        return "here"

    def read(self, side):
        self.calls.append(self.number)
        if self.bad:
            raise ImageError("is not a picture")
        rng = np.random.default_rng(self.number)
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        return pixels, bytes([self.number % 251]) * 32


def drawn(rows, bad=()):
    calls: list[int] = []
    return [Drawn(i, calls, i in bad) for i in range(rows)], calls


def key_of(sources, side):
    return store_key([s.signature() for s in sources], ["here"] * len(sources), side)


def contents(folder):
    """What is in the files; verified.json is of the place where they lie."""
    files = sorted(p for p in folder.iterdir() if p.name != "verified.json")
    return {p.name: p.read_bytes() for p in files}


def test_store_returns_every_row_in_its_place(tmp_path):
    sources, calls = drawn(200)
    store = build_store(tmp_path / "s", sources, SIDE, progress=False)
    assert sorted(calls) == list(range(200))
    rows = np.asarray([150, 3, 199, 0])
    for got, row in zip(store.rows(rows), rows, strict=True):
        np.testing.assert_array_equal(got, sources[row].read(SIDE)[0])
    np.testing.assert_array_equal(
        store.rows(np.arange(70, 140)), store.rows(np.arange(200))[70:140]
    )
    assert sorted(contents(tmp_path / "s")) == [
        "digests.npy",
        "images.npy",
        "pixels.npy",
        "store.json",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_second_build_decodes_nothing(tmp_path):
    sources, _ = drawn(50)
    build_store(tmp_path / "s", sources, SIDE, progress=False)
    again, calls = drawn(50)
    build_store(tmp_path / "s", again, SIDE, progress=False)
    assert calls == []


def test_writing_to_the_pictures_leaves_the_file(tmp_path):
    sources, _ = drawn(5)
    store = build_store(tmp_path / "s", sources, SIDE, progress=False)
    before = contents(tmp_path / "s")
    store.rows(np.arange(5))[:] = 0
    assert contents(tmp_path / "s") == before


def test_interrupted_build_takes_over_what_was_done(tmp_path, monkeypatch):
    sources, _ = drawn(640)
    build_store(tmp_path / "whole", sources, SIDE, progress=False)
    real, kept = store_module._Build._note, []

    def note(self, chunk):
        if len(kept) == 4:
            raise KeyboardInterrupt
        kept.append(chunk.rows)
        return real(self, chunk)

    monkeypatch.setattr(store_module._Build, "_note", note)
    with pytest.raises(KeyboardInterrupt):
        build_store(tmp_path / "s", sources, SIDE, progress=False)
    monkeypatch.undo()
    assert open_store(tmp_path / "s") is None
    again, calls = drawn(640)
    build_store(tmp_path / "s", again, SIDE, progress=False)
    assert len(calls) == 640 - 4 * 64
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_damaged_chunk_of_an_interrupted_build_is_made_again(tmp_path):
    sources, _ = drawn(256)
    build_store(tmp_path / "whole", sources, SIDE, progress=False)
    partial = tmp_path / "s.partial"
    partial.mkdir()
    good = contents(tmp_path / "whole")
    data = bytearray(good["images.npy"])
    (partial / "images.npy").write_bytes(data)
    build = store_module._Build(partial, key_of(sources, SIDE), 256, SIDE)
    from fairtune_hf.data.decode import decode_chunk

    lines = [
        json.dumps(build._note(decode_chunk(sources, range(i, i + 64), SIDE))) for i in (0, 64, 128)
    ]
    data[-1 - 100 * SIDE * SIDE * 3] ^= 1
    (partial / "images.npy").write_bytes(data)
    (partial / "progress.jsonl").write_text("\n".join(lines) + '\n{"start": 19')
    again, calls = drawn(256)
    build_store(tmp_path / "s", again, SIDE, progress=False)
    damaged = (255 - 100) // 64 * 64
    assert sorted(set(calls)) == sorted([*range(damaged, damaged + 64), *range(192, 256)])
    assert contents(tmp_path / "s") == good


def test_another_key_starts_over(tmp_path):
    sources, _ = drawn(100)
    build_store(tmp_path / "s", sources, SIDE, progress=False)
    assert key_of(sources, SIDE) != key_of(sources, SIDE + 1)
    assert key_of(sources, SIDE) != key_of(sources[:-1], SIDE)
    store = build_store(tmp_path / "s", sources, SIDE + 1, progress=False)
    assert store.shape == (100, 9, 9, 3)


def test_failures_leave_nothing_unless_skipped(tmp_path):
    sources, _ = drawn(100, bad=(7, 80))
    with pytest.raises(ValueError, match=r"2 of 100 are not: row 7 is not a picture; row 80"):
        build_store(tmp_path / "s", sources, SIDE, progress=False)
    assert list(tmp_path.iterdir()) == []
    store = build_store(tmp_path / "s", sources, SIDE, progress=False, skip_corrupt=True)
    assert store.failures == {7: "is not a picture", 80: "is not a picture"}


def test_too_little_room_is_said_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    sources, calls = drawn(100)
    with pytest.raises(OSError, match=r"MB were expected to be free .* FAIRTUNE_CACHE"):
        build_store(tmp_path / "s", sources, SIDE, progress=False)
    assert calls == []


@pytest.mark.slow
def test_killed_at_twenty_random_moments_the_bytes_are_the_same(tmp_path):
    repo = str(store_module.Path(store_module.__file__).parents[2])
    command = [sys.executable, "-c", BUILDER]
    subprocess.run([*command, str(tmp_path / "whole"), repo], check=True, capture_output=True)
    started = time.monotonic()
    rng = np.random.default_rng(0)
    killed = 0
    for attempt in range(60):
        process = subprocess.Popen(
            [*command, str(tmp_path / "s"), repo], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(float(rng.uniform(0.0, 0.35)) if killed < 20 else 0)
        if killed < 20:
            os.kill(process.pid, signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
            # Finished in time: kill the next build of a fresh store.
            if open_store(tmp_path / "s") is not None:
                assert contents(tmp_path / "s") == contents(tmp_path / "whole")
                (tmp_path / "s").rename(tmp_path / f"done{attempt}")
        else:
            assert process.wait() == 0
            break
    assert killed == 20, f"only {killed} builds were killed in {time.monotonic() - started:.0f} s"
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_load_uses_the_store_and_sees_changed_files(make_folder, columns, tmp_path, picture):
    root = make_folder()
    first = load_dataset_table("folder", root, cache_dir=tmp_path / "c", **columns)
    assert len(list((tmp_path / "c").iterdir())) == 1
    load_dataset_table("folder", root, cache_dir=tmp_path / "c", seed=0, **columns)
    assert len(list((tmp_path / "c").iterdir())) == 1
    picture(999).save(root / "images/p003_0.png")
    second = load_dataset_table("folder", root, cache_dir=tmp_path / "c", **columns)
    changed = (first.images != second.images).any(axis=(1, 2, 3))
    assert list(first.frame.loc[changed, "row_id"]) == ["images/p003_0.png"]


def test_load_without_a_writable_cache_says_so(make_folder, columns, tmp_path):
    (tmp_path / "file").write_text("")
    root = make_folder()
    table = load_dataset_table("folder", root, cache_dir=tmp_path / "file" / "c", **columns)
    assert any("prepared pictures are not kept" in w for w in table.warnings)
    memory = load_dataset_table("folder", root, cache=False, **columns)
    np.testing.assert_array_equal(table.images, memory.images)
