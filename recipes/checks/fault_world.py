"""The small world in which `faults.py` breaks things: pictures, a ViT, the commands, and what they find.

Commands run in forks of a process that has imported everything, so that a kill hits the work and not the
imports. All of a world lies at fixed paths, so that a run copied back into its place is the same run.
"""

import gc
import hashlib
import io
import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from fairtune_hf.cli import compare, evaluate, finetune, prepare, push, report, search  # noqa: F401
from fairtune_hf.cli.main import main

COLUMNS = [
    "--label-column=diagnosis",
    "--sensitive-column=sex",
    "--patient-column=person",
    "--split-column=part",
]
FIT = ["--epochs=1", "--batch-size=16", "--learning-rate-max=0.01"]
# What says when, where and how long, and therefore differs between two equal runs; on a server also the study's name.
PASSING = {
    "seconds",
    "wall_seconds",
    "versions",
    "hardware",
    "cost",
    "failed",
    "trained_epochs",
    "study",
}
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link"}


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: the signal), all it said, and seconds."""

    code: int
    said: str
    seconds: float
    writes: int = 0

    @property
    def last_line(self) -> str:
        lines = [line for line in self.said.strip().splitlines() if line.strip()]
        raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
        return " // ".join(line[:200] for line in [*raised[-1:], *lines[-1:]])


@dataclass
class World:
    """Pictures, a ViT and the folders of runs under one root."""

    root: Path
    study: str | None = None  # the name of the study on a shared storage
    seconds: dict[str, float] = field(default_factory=dict)
    writes: dict[str, int] = field(default_factory=dict)

    @property
    def disk(self) -> Path:  # over which a small file system may be mounted
        return self.root / "disk"

    @property
    def run(self) -> Path:
        return self.disk / "run"

    @property
    def pictures(self) -> Path:
        return self.root / "pictures"

    @property
    def vit(self) -> Path:
        return self.root / "vit"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def words(self, command: str) -> list[str]:
        """The words of a command on this world."""
        data = ["--dataset=folder", f"--data-root={self.pictures}", *COLUMNS]
        model = [f"--model={self.vit}"]
        run = [f"--run={self.run}"]
        study = [] if self.study is None else [f"--study-name={self.study}"]
        return {
            "prepare": ["prepare", *data, "--image-size=32", f"--out={self.run}"],
            "search": ["search", *data, *model, *FIT, "--trials=2", "--top-k=1", f"--out={self.run}", *study],
            "longer": ["search", *data, *model, *FIT, "--trials=3", "--top-k=1", f"--out={self.run}"],
            "finetune": ["finetune", *run, "--seeds=1"],
            "evaluate": ["evaluate", *run, "--resamples=50"],
            "report": ["report", *run],
            "push": ["push", *run, "--repo-id=o/n", "--dry-run", "--with-base", f"--base-dir={self.vit}"],
            "compare": [
                "compare", "--methods", "full", "linear_readout", *data, *model, *FIT, "--trials=1", "--seeds=1",
                "--resamples=50", f"--out={self.run}",
            ],
        }[command]  # fmt: skip

    def build(self) -> None:
        """Draw the pictures and make the ViT; what stood there before is replaced."""
        for folder in (self.pictures, self.vit):
            shutil.rmtree(folder, ignore_errors=True)
        _draw(self.pictures)
        torch.manual_seed(0)
        config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                           image_size=32, patch_size=16, num_labels=5)  # fmt: skip
        ViTForImageClassification(config).save_pretrained(self.vit)
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(self.vit)
        self.disk.mkdir(parents=True, exist_ok=True)

    def start(self, command: str, *, first: Callable[[], None] | None = None, **env: str) -> int:
        """Begin a command in a fork that writes what it says to a file; return the process."""
        pid = os.fork()
        if pid:
            return pid
        os.setpgid(0, 0)
        os.environ["FAIRTUNE_CACHE"] = str(self.cache)
        os.environ.update(env)
        said = (self.root / f"said.{os.getpid()}").open("w", buffering=1, encoding="utf-8")
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        code = 70
        try:
            with redirect_stdout(said), redirect_stderr(said):
                if first is not None:
                    first()
                code = main(self.words(command))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc(file=said)
        finally:
            said.flush()
            os._exit(code)

    def wait(self, pid: int, *, timeout: float = 240.0) -> Ended:
        """Wait for a command's end; one that takes too long is killed and counts as hung (code -9)."""
        begun = time.monotonic()
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() - begun > timeout:
                os.killpg(pid, signal.SIGKILL)
            time.sleep(0.002)
        _, status = os.waitpid(pid, 0)
        file = self.root / f"said.{pid}"
        said = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
        file.unlink(missing_ok=True)
        return Ended(os.waitstatus_to_exitcode(status), said, time.monotonic() - begun)

    def warm_up(self) -> None:
        """Run a search to its report in this process: what libraries load late is then in every fork."""
        os.environ["FAIRTUNE_CACHE"] = str(self.cache)
        torch.set_num_threads(1)
        for command in ("search", "finetune", "evaluate", "report", "push"):
            said = io.StringIO()
            with redirect_stdout(said), redirect_stderr(said):
                code = main(self.words(command))
            if code != 0:
                raise SystemExit(f"{command} ended with {code}:\n{said.getvalue()}")
        gc.collect()
        gc.freeze()

    def do(self, command: str, **env: str) -> Ended:
        """Run a command to its end."""
        return self.wait(self.start(command, **env))

    def counted(self, command: str) -> Ended:
        """Run a command and note how long it took and how many times it changed a folder."""
        tally = self.root / "tally"
        ended = self.wait(self.start(command, first=lambda: _count_writes(self.root, tally)))
        self.seconds[command] = ended.seconds
        self.writes[command] = int(tally.read_text() or 0) if tally.exists() else 0
        return ended

    def put(self, stage: Path | None) -> None:
        """Make the run's folder what it was at a stage, or nothing."""
        for file in self.disk.iterdir():
            shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()
        if stage is not None:
            shutil.copytree(stage, self.run)


def _draw(root: Path) -> None:
    generator = np.random.default_rng(0)
    root.mkdir(parents=True)
    rows = []
    for patient in range(60):
        label = patient // 2 % 2
        split = "train" if patient < 36 else "validation" if patient < 48 else "test"
        for picture in range(3):
            name = f"p{patient:03d}_{picture}.png"
            pixels = generator.normal(100 + 25 * label, 40, (32, 32, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name)
            rows.append((name, "sick" if label else "benign", "FM"[patient % 2], patient, split))
    columns = ["file_name", "diagnosis", "sex", "person", "part"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "metadata.csv", index=False)


def _is_write(root: str, event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        name, _, flags = arguments
        written = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return bool(written) and str(name).startswith(root)
    return event in WRITES and str(arguments[0]).startswith(root)


def _count_writes(root: Path, tally: Path) -> None:
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if _is_write(str(root), event, arguments) and not str(arguments[0]).endswith("tally"):
            count += 1
            file = os.open(tally, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(file, str(count).encode())
            os.close(file)

    sys.addaudithook(hook)


def kill_at_write(root: Path, number: int) -> Callable[[], None]:
    """What a command does first to be killed right before its n-th change of a folder."""

    def arm() -> None:
        count = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if _is_write(str(root), event, arguments):
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)

    return arm


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[], None]]:
    """Mount a file system of so many bytes over a folder, what is in it copied; yields a way to enlarge it."""
    kept = folder.with_name(f"{folder.name}.kept")
    shutil.copytree(folder, kept)
    size = max(size, 4096)
    options = f"size={size}"
    if os.spawnlp(os.P_WAIT, "mount", "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)):
        raise OSError(f"could not mount a small file system at {folder}")
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        yield lambda: _run("mount", "-o", "remount,size=1g", str(folder))
    finally:
        while os.spawnlp(os.P_WAIT, "umount", "umount", "-l", str(folder)):
            time.sleep(0.1)
        shutil.rmtree(kept)


def _run(*words: str) -> None:
    if os.spawnlp(os.P_WAIT, words[0], *words):
        raise OSError(f"{' '.join(words)} failed")


def used_bytes(folder: Path) -> int:
    """What a folder takes on a file system of 4 KiB pages."""
    return sum(-(-file.stat().st_size // 4096) * 4096 + 4096 for file in folder.rglob("*"))


def found_in(folder: Path) -> dict[str, Any]:
    """What a run found, without what differs between two equal runs; a part that is not there is absent."""
    found: dict[str, Any] = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if not file.is_file() or "partial" in name or "/cache" in name:
            continue
        if file.name == "run.json":
            found[name] = _lasting(json.loads(file.read_text()))
        elif file.name == "predictions.parquet":
            found[name] = _digest(pd.read_parquet(file).to_csv(index=False).encode())
        elif file.suffix == ".safetensors" or file.name in ("images.npy", "table.csv"):
            found[name] = _digest(file.read_bytes())
        elif file.name in ("trials.csv", "curves.csv"):
            found[name] = _trials(file)
    return found


def _trials(file: Path) -> list[list[str]] | dict[str, str]:
    """The points that were trained to their end and their values; a trial that a kill lost is none."""
    table = pd.read_csv(io.StringIO(file.read_text()), dtype=str, keep_default_na=False)
    if "state" in table:
        table = table[table["state"].isin(["COMPLETE", "PRUNED"])]
        columns = [name for name in ("mask", "learning_rate", "value", "state") if name in table]
        return sorted(table[columns].to_numpy().tolist())
    # One line a trial and epoch; numbers of trials move when one was lost, and its epochs stay listed.
    dropped = [name for name in table if "second" in name or name in ("number", "trial")]
    return {",".join(row): "there" for row in table.drop(columns=dropped).to_numpy().tolist()}


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(part) for key, part in value.items() if not _passes(key)}
    if isinstance(value, list):
        return [_lasting(part) for part in value]
    return value


def _passes(key: str) -> bool:
    return key in PASSING or key.endswith("seconds") or key in ("trial", "trials", "number")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def differences(due: Any, now: Any, name: str = "") -> str:
    """Where two findings differ first, and how; empty where they are equal."""
    if due == now:
        return ""
    if isinstance(due, dict) and isinstance(now, dict):
        for key in due:
            inner = differences(due[key], now.get(key), f"{name}/{key}")
            if inner:
                return inner
        return ""  # what is there beside the twin's own is no difference
    if isinstance(due, list) and isinstance(now, list) and len(due) == len(now):
        for i, (one, other) in enumerate(zip(due, now, strict=True)):
            inner = differences(one, other, f"{name}/{i}")
            if inner:
                return inner
    return f"{name}: {str(due)[:80]} became {str(now)[:80]}"
