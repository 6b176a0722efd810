"""Break runs on purpose, a seeded thousand times, and compare each with an uninterrupted twin.

    python recipes/checks/faults.py [--faults 1000] [--seed 0] [--jobs 2] [--only KIND ...] [--json FILE]

Kinds: kills of each command, at random moments and right before each change of a folder; disks that fill up
(as root only: it mounts small file systems); data, weights and settings that change between two steps; damage
of each file of a run; two processes on one folder; workers killed on PostgreSQL (with FAIRTUNE_POSTGRESQL) and
two processes that train together. After each fault the same commands are run again. A fault is

- equal: the commands ended with what the twin found;
- refused: exit code 2 and words that name what is wrong, nothing of the run changed;
- told: the results are the twin's, and a command says that best_trial/, which nothing is made of, is damaged;
- SILENT: exit code 0 and other results; LOST: what was finished before is gone, or the command that goes on
  after a kill or on a larger disk does not reach the twin's results; STUCK: neither the same command nor the
  advice given brings the run on; TRACEBACK: a raw error in place of words.

Prints a table of kinds and outcomes and each fault that is neither equal nor refused; exits 1 if there is one.
Some 4 seconds a fault on one core.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fault_changes as changes
from fault_world import Ended, World, differences, found_in, kill_at_write, small_disk, used_bytes

from fairtune_hf.training.identity import PLACES

# Which stage of a run each command starts from, and which it leaves.
STAGES = {
    "search": (None, "searched"),
    "longer": ("searched", "longer"),
    "finetune": ("searched", "refitted"),
    "evaluate": ("refitted", "evaluated"),
    "report": ("evaluated", "reported"),
    "push": ("reported", "reported"),
    "prepare": (None, "prepared"),
    "compare": (None, "compared"),
}
CHAIN = ("search", "finetune", "evaluate", "report", "push")
GOOD = ("equal", "refused", "told", "no fault")


@dataclass(frozen=True)
class Outcome:
    """One fault: what was done, in which command, and how it ended."""

    number: int
    kind: str
    what: str
    outcome: str
    said: str = ""


class Campaign:
    """A world with its twin: each stage of an uninterrupted run, kept to start from and to compare with."""

    def __init__(self, root: Path) -> None:
        self.world = World(root)
        self.world.build()
        self.stages = root / "stages"
        self.found: dict[str, dict[str, Any]] = {}
        self.said = ""
        for command, (before, after) in STAGES.items():
            self.world.put(None if before is None else self.stages / before)
            ended = self.world.counted(command)
            if ended.code != 0:
                raise SystemExit(f"the twin's {command} ended with {ended.code}:\n{ended.said}")
            if not (self.stages / after).exists():
                shutil.copytree(self.world.run, self.stages / after)
                self.found[after] = found_in(self.world.run)

    def begin(self, command: str) -> None:
        before = STAGES[command][0]
        self.world.put(None if before is None else self.stages / before)

    def compared(self, command: str) -> str:
        """Whether the run's folder holds what the twin's does after a command."""
        return differences(self.found[STAGES[command][1]], found_in(self.world.run))

    # The kinds of faults. Each returns what was done and how it ended.

    def kill(self, draw: random.Random) -> tuple[str, str, str]:
        command = draw.choice(list(STAGES))
        self.begin(command)
        writes = self.world.writes[command]
        if draw.random() < 0.5 and writes:
            number = draw.randint(1, writes)
            what = f"{command} before change {number} of {writes}"
            ended = self.world.wait(
                self.world.start(command, first=kill_at_write(self.world.root, number))
            )
        else:
            moment = draw.uniform(0, self.world.seconds[command])
            what = f"{command} after {moment:.2f} s"
            pid = self.world.start(command)
            time.sleep(moment)
            os.kill(pid, signal.SIGKILL)
            ended = self.world.wait(pid)
        if ended.code >= 0:
            return what, "no fault", ""
        return what, *self._goes_on(command)

    def _goes_on(self, command: str) -> tuple[str, str]:
        """Run the same command again: it must reach the twin's results."""
        ended = self.world.do(command)
        if ended.code != 0:
            return ("TRACEBACK" if "Traceback" in ended.said else "STUCK"), ended.last_line
        different = self.compared(command)
        return ("LOST", different) if different else ("equal", "")

    def full_disk(self, draw: random.Random) -> tuple[str, str, str]:
        command = draw.choice(list(STAGES))
        self.begin(command)
        over_cache = draw.random() < 0.2
        folder = self.world.cache if over_cache else self.world.disk
        if over_cache:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            size = draw.randint(4096, 800_000)
        else:
            after = self.stages / STAGES[command][1]
            held, due = used_bytes(self.world.disk), used_bytes(after)
            size = held + draw.randint(4096, max(due - held, 0) + 200_000)
        what = f"{command} on {size // 1024} KiB{' for the cache' if over_cache else ''}"
        with small_disk(folder, size) as enlarge:
            ended = self.world.do(command)
            if ended.code == 0:
                different = self.compared(command)
                result = ("SILENT", different) if different else ("equal", "")
            elif ended.code != 2 or "Traceback" in ended.said:
                result = ("TRACEBACK", f"code {ended.code}: {ended.last_line}")
            elif not any(word in ended.said for word in ("MB", "disk", "space")):
                result = ("STUCK", f"no word of the disk: {ended.last_line}")
            else:
                enlarge()
                result = self._goes_on(command)
        return what, *result

    def change(self, draw: random.Random) -> tuple[str, str, str]:
        """Something that a run is of changes before a step: the step must refuse, and go on once it is put back."""
        name, alter = draw.choice(changes.of_inputs())
        command = draw.choice(["longer", "finetune", "again", "compare"])
        stage, step = {"again": ("searched", "search"), "compare": ("compared", "compare")}.get(
            command, (STAGES.get(command, (None,))[0], command)
        )
        self.world.put(self.stages / str(stage))
        before = found_in(self.world.run)
        alter(self.world, draw)
        ended = self.world.do(step)
        self.world.build()
        return f"{name}, then {command}", *self._refused(ended, before, step)

    def _refused(self, ended: Ended, before: dict[str, Any], step: str) -> tuple[str, str]:
        if "Traceback" in ended.said or ended.code not in (0, 2):
            return "TRACEBACK", f"code {ended.code}: {ended.last_line}"
        if ended.code == 0:
            return "SILENT", ended.last_line
        if found_in(self.world.run) != before:
            return "LOST", "refused, and the run's files changed"
        again = self._goes_on(step)
        return again if again[0] != "equal" else ("refused", ended.last_line)

    def setting(self, draw: random.Random) -> tuple[str, str, str]:
        """A line of config.yaml is edited between two steps."""
        command = draw.choice(["longer", "finetune", "evaluate"])
        self.begin(command)
        config = self.world.run / "config.yaml"
        kept, before = config.read_bytes(), found_in(self.world.run)
        what = changes.edit_setting(config, draw)
        ended = self.world.do(command)
        config.write_bytes(kept)
        if ended.code == 0 and what.split()[0] in PLACES:
            # Where a model lies may change, if it is the same model.
            return f"{what}, then {command}", *self._after(command)
        return f"{what}, then {command}", *self._refused(ended, before, command)

    def damage(self, draw: random.Random) -> tuple[str, str, str]:
        """A file of a run is damaged; then every command is run again, in order."""
        stage = draw.choice(["searched", "refitted", "evaluated", "reported", "compared"])
        self.world.put(self.stages / stage)
        files = sorted(file for file in self.world.run.rglob("*") if file.is_file())
        file = draw.choice(files)
        how = changes.damage(file, draw)
        what = f"{file.relative_to(self.world.run)} {how}, {stage}"
        chain = ("compare",) if stage == "compared" else CHAIN
        first = self._chain(chain)
        if first is None:
            return what, *self._after_damage(file.parent.name, chain[-1])
        command, ended = first
        if "Traceback" in ended.said or ended.code != 2:
            return what, "TRACEBACK", f"{command}, code {ended.code}: {ended.last_line}"
        if (
            file.name.split(".")[0].strip("_") not in ended.said
            and file.parent.name not in ended.said
        ):
            return what, "STUCK", f"{command} does not name the file: {ended.last_line}"
        return what, *self._mended(file, chain, ended)

    def _chain(self, chain: tuple[str, ...]) -> tuple[str, Ended] | None:
        """Run the commands; return the first that did not end well, or None."""
        self.said = ""
        for command in chain:
            ended = self.world.do(command)
            self.said += ended.said
            if ended.code != 0:
                return command, ended
        return None

    def _after_damage(self, folder: str, command: str) -> tuple[str, str]:
        """As `_after`, but for a damaged best_trial/, which a command must name and which stays as it is."""
        due, now = self.found[STAGES[command][1]], found_in(self.world.run)
        results = {name: found for name, found in due.items() if not name.startswith("best_trial/")}
        if folder == "best_trial" and not differences(results, now) and differences(due, now):
            return ("told" if "best_trial cannot be read" in self.said else "SILENT"), ""
        return self._after(command)

    def _after(self, command: str) -> tuple[str, str]:
        different = self.compared(command)
        return ("SILENT", different) if different else ("equal", "")

    def _mended(self, file: Path, chain: tuple[str, ...], ended: Ended) -> tuple[str, str]:
        """After a refusal that names a file: without the file the run goes on, or says that it cannot be."""
        if file.is_dir():
            shutil.rmtree(file)
        else:
            file.unlink(missing_ok=True)
        second = self._chain(chain)
        if second is None:
            return (
                self._after(chain[-1])
                if self._after(chain[-1])[0] != "equal"
                else ("refused", ended.last_line)
            )
        command, again = second
        if again.code == 2 and "Traceback" not in again.said:
            return "refused", f"{ended.last_line} // without it, {command}: {again.last_line}"
        return "TRACEBACK", f"without it, {command}: {again.last_line}"

    def together(self, draw: random.Random) -> tuple[str, str, str]:
        """Two processes start the same command on one folder."""
        command = draw.choice(["search", "finetune", "evaluate", "compare", "prepare"])
        self.begin(command)
        first = self.world.start(command)
        time.sleep(draw.uniform(0, 0.4))
        ends = (
            [self.world.wait(first), self.world.wait(self.world.start(command))]
            if draw.random() < 0.1
            else None
        )
        if ends is None:
            second = self.world.start(command)
            ends = [self.world.wait(first), self.world.wait(second)]
        what = f"{command} twice, codes {[ended.code for ended in ends]}"
        for ended in ends:
            if "Traceback" in ended.said or ended.code not in (0, 2):
                return what, "TRACEBACK", ended.last_line
        return what, *self._goes_on(command)

    def postgresql(self, draw: random.Random) -> tuple[str, str, str]:
        """A search whose study is on a PostgreSQL server is killed, and goes on."""
        self.world.put(None)
        storage = {"FAIRTUNE_STORAGE": os.environ["FAIRTUNE_POSTGRESQL"]}
        self.world.study = f"faults-{os.getpid()}-{draw.getrandbits(48)}"
        what = "search"
        try:
            for _ in range(draw.randint(1, 3)):
                pid = self.world.start("search", **storage)
                time.sleep(draw.uniform(0.1, 1.2 * self.world.seconds["search"]))
                os.kill(pid, signal.SIGKILL)
                what += f" {'killed' if self.world.wait(pid).code < 0 else 'done'}"
            ended = self.world.do("search", **storage)
            if ended.code != 0:
                return what, "TRACEBACK" if "Traceback" in ended.said else "STUCK", ended.last_line
            different = self.compared("search")
            return what, *(("LOST", different) if different else ("equal", ""))
        finally:
            self.world.study = None

    def gloo(self, draw: random.Random) -> tuple[str, str, str]:
        """Two processes train one trial together; one or both are killed, and both start again."""
        self.world.put(None)
        twin = self.stages / "two-processes"
        if not twin.exists():
            ends = self._pair()
            if any(ended.code for ended in ends):
                return "twin", "TRACEBACK", ends[0].last_line
            shutil.copytree(self.world.run, twin)
            self.world.put(None)
        pids = self._start_pair()
        time.sleep(draw.uniform(0.1, 1.5 * self.world.seconds["search"]))
        for pid in pids if draw.random() < 0.5 else [draw.choice(pids)]:
            os.kill(pid, signal.SIGKILL)
        killed = [self.world.wait(pid).code for pid in pids]
        ends = self._pair()
        what = f"search over two processes, codes {killed}"
        if any(ended.code for ended in ends):
            worst = max(ends, key=lambda ended: abs(ended.code))
            return what, "TRACEBACK" if "Traceback" in worst.said else "STUCK", worst.last_line
        different = differences(found_in(twin), found_in(self.world.run))
        return what, *(("LOST", different) if different else ("equal", ""))

    def _start_pair(self) -> list[int]:
        port = str(random.SystemRandom().randint(20000, 60000))
        common = {
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "LOCAL_WORLD_SIZE": "2",
        }
        common |= {"ACCELERATE_USE_CPU": "true"}
        return [
            self.world.start("search", RANK=str(rank), LOCAL_RANK=str(rank), **common)
            for rank in (0, 1)
        ]

    def _pair(self) -> list[Ended]:
        return [self.world.wait(pid) for pid in self._start_pair()]


# How many of a thousand faults are of a kind.
SHARES = {"kill": 370, "full_disk": 150, "change": 150, "setting": 60, "damage": 220, "together": 20,
          "postgresql": 15, "gloo": 15}  # fmt: skip


def plan(count: int, only: list[str] | None) -> list[str]:
    """The kinds of the faults, in a fixed order; what cannot be had here is left out and said."""
    shares = {kind: share for kind, share in SHARES.items() if not only or kind in only}
    missing = {}
    if os.geteuid() != 0:
        missing["full_disk"] = "mounting a file system needs root"
    if "FAIRTUNE_POSTGRESQL" not in os.environ:
        missing["postgresql"] = "FAIRTUNE_POSTGRESQL is not set"
    for kind in missing.keys() & shares.keys():
        print(f"left out: {kind}: {missing[kind]}")
        del shares[kind]
    kinds = [kind for kind, share in shares.items() for _ in range(share)]
    random.Random(0).shuffle(kinds)
    return [kinds[i % len(kinds)] for i in range(count)]


def work(
    root: Path, numbers: list[tuple[int, str]], seed: int, report: Callable[[Outcome], None]
) -> None:
    """Do some of the faults in a world of their own."""
    campaign = Campaign(root)
    for number, kind in numbers:
        draw = random.Random(f"{seed}-{number}")
        try:
            what, outcome, said = getattr(campaign, kind)(draw)
        except Exception as error:
            what, outcome, said = "the check itself", "BROKEN", f"{type(error).__name__}: {error}"
        report(Outcome(number, kind, what, outcome, said))


def main() -> int:
    """Run the campaign; return 0 if every fault was met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=sorted(SHARES))
    parser.add_argument("--numbers", nargs="*", type=int, help="only these faults of the campaign")
    parser.add_argument("--json", type=Path, help="a line for each fault")
    options = parser.parse_args()
    kinds = list(enumerate(plan(options.faults, options.only)))
    if options.numbers:
        kinds = [kinds[number] for number in options.numbers]
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    log = options.json or root / "faults.jsonl"
    log.write_text("")

    def report(outcome: Outcome) -> None:
        with log.open("a") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")
        if outcome.outcome not in GOOD:
            print(
                f"{outcome.number:4} {outcome.kind}: {outcome.what}: {outcome.outcome} {outcome.said}",
                flush=True,
            )

    warm = World(root / "warm")
    warm.build()
    warm.warm_up()
    children = []
    for job in range(options.jobs):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work(root / f"world{job}", kinds[job :: options.jobs], options.seed, report)
                code = 0
            except SystemExit as end:
                print(end)
            finally:
                sys.stdout.flush()
                os._exit(code)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    outcomes = [json.loads(line) for line in log.read_text().splitlines()]
    for world in (file for file in root.iterdir() if file.is_dir()):
        shutil.rmtree(world)
    print(table(outcomes))
    return int(any(codes) or any(outcome["outcome"] not in GOOD for outcome in outcomes))


def table(outcomes: list[dict[str, Any]]) -> str:
    """Kinds by outcomes, as Markdown."""
    names = sorted({outcome["outcome"] for outcome in outcomes})
    counts = Counter((outcome["kind"], outcome["outcome"]) for outcome in outcomes)
    kinds = [kind for kind in SHARES if any(outcome["kind"] == kind for outcome in outcomes)]
    lines = [f"| kind | faults | {' | '.join(names)} |", f"|---|{'---|' * (len(names) + 1)}"]
    for kind in [*kinds, "all"]:
        row = [
            sum(n for (k, o), n in counts.items() if kind in (k, "all") and o == name)
            for name in names
        ]
        lines.append(f"| {kind} | {sum(row)} | {' | '.join(map(str, row))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
