"""How one model is trained: the few settings a run records, turned into Hugging Face TrainingArguments.

Everything TrainingArguments knows beyond these can be given through `training_arguments`, so no field
of it is declared twice. PyTorch and the Trainer are imported where they are first needed: the flags of a
command are parsed from here, and a mistyped one is answered without them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from fairtune_hf.described import described
from fairtune_hf.naming import closest, flag_of
from fairtune_hf.training.argument_rules import check_together, check_value, honoured, refuse

if TYPE_CHECKING:
    from accelerate import PartialState
    from transformers import TrainingArguments

_FLAG = "--training-arguments"
# What the run sets where nothing is given, of the fields that others depend on.
_DEFAULTS = {"optim": "adamw_torch_fused", "logging_strategy": "epoch"}

# Compiling the kinds of blocks of a search takes about two minutes and saves about an eighth of the
# training time of a GPU that does 4e14 operations a second: it must train for more than twenty minutes.
_COMPILING_PAYS_FROM = 5.0e17


@dataclass(kw_only=True)
class FitArguments:
    """Settings of one training, the same for every trial, refit and control of a run."""

    # Named by --help, explained by --help-all.
    rare: ClassVar[frozenset[str]] = frozenset(
        {"warmup_fraction", "weight_decay", "class_weight", "threads", "training_arguments"}
    )

    epochs: int = described(10, "Epochs of one training (the paper: 30).")
    batch_size: int = described(32, "Training rows a step and device (the paper: 512).")
    schedule: Literal["cosine", "linear", "constant"] = described(
        "cosine", "Course of the learning rate after the warm-up."
    )
    warmup_fraction: float = described(
        0.1, "Share of the steps in which the learning rate rises, in [0, 1)."
    )
    weight_decay: float = described(1.0e-4, "AdamW's weight decay.")
    transforms: Literal["none", "flip", "paper", "medfair"] = described(
        "flip", "Augmentation of the training pictures."
    )
    class_weight: Literal["none", "inverse_share"] = described(
        "none", "inverse_share weighs a class by 1 - its share of the training rows."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = described(
        "auto", "auto: bf16 autocast where the GPU has it, else fp32."
    )
    images_on: Literal["auto", "device", "host"] = described(
        "auto", "Where pictures lie (auto: where they fit)."
    )
    compile: Literal["auto", "on", "off"] = described(
        "auto", "Compile blocks in bf16 (auto: in long runs)."
    )
    seed: int = described(0, "Seed of the split, the search and the first refit.")
    threads: int | None = described(
        None,
        "CPU threads of a process, on which the last digits depend; by default what the environment says "
        "(all cores; one under accelerate launch).",
    )
    training_arguments: str | None = described(
        None,
        "Further Hugging Face TrainingArguments as JSON, e.g. '{\"max_grad_norm\": 0.5}': "
        f"{', '.join(honoured())}. All others are refused; docs/training_arguments.md says why.",
    )

    def __post_init__(self) -> None:
        if isinstance(self.training_arguments, dict):  # as from Python
            self.training_arguments = json.dumps(self.training_arguments)
        for name, low in (("epochs", 1), ("batch_size", 1), ("seed", 0), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(
                    f"{flag_of(name)}: expected a whole number of at least {low}, got "
                    f"{value}. Give a larger one."
                )
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(
                f"--warmup-fraction: expected a share in [0, 1), got {self.warmup_fraction}. "
                "0.1 spends the first tenth of the steps on the warm-up."
            )
        further = self.further_arguments()
        if "report_to" in further:
            from fairtune_hf.training.tracking import check_trackers

            check_trackers(further["report_to"])

    def further_arguments(self) -> dict[str, Any]:
        """Parse and check `training_arguments`.

        Raises:
            ValueError: Not a JSON object, an unknown field, one that the run itself decides or that would not have
                its effect (`argument_rules.py`), or a value that it does not take.
        """
        if self.training_arguments is None:
            return {}
        from transformers import TrainingArguments

        further = self._read_further()
        known = {f.name for f in dataclasses.fields(TrainingArguments)}
        for name, value in further.items():
            if name not in known:
                raise ValueError(
                    f"{_FLAG}: expected fields of Hugging Face TrainingArguments, got {name!r}."
                    f"{closest(name, honoured())} docs/training_arguments.md lists them."
                )
            fault = refuse(name) or _check_kind(name, value) or check_value(name, value)
            if fault is not None:
                raise ValueError(f"{_FLAG}: {fault}")
        fault = check_together(further, _DEFAULTS)
        if fault is not None:
            raise ValueError(f"{_FLAG}: {fault}")
        return further

    def _read_further(self) -> dict[str, Any]:
        assert self.training_arguments is not None  # for the type checker
        example = """Write it like '{"max_grad_norm": 0.5}'."""
        try:
            further = json.loads(self.training_arguments)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{_FLAG}: expected a JSON object, got {self.training_arguments!r} ({error}). {example}"
            ) from error
        if not isinstance(further, dict):
            raise ValueError(
                f"{_FLAG}: expected a JSON object, got {self.training_arguments!r}. {example}"
            )
        return further

    def join_processes(self) -> PartialState:
        """Build the Hugging Face arguments once, and return where this process stands among those of one training.

        They set up the processes; a `PartialState` made before them may take each process for the only one.

        Raises:
            ValueError: TrainingArguments refuse a value of `training_arguments`, or several processes
                were started that cannot train together.
        """
        from accelerate import PartialState

        try:
            built = self.to_training_arguments(
                Path(tempfile.gettempdir()),
                learning_rate=1.0e-5,
                seed=self.seed,
            )
        except (ValueError, TypeError, ImportError, OSError) as error:
            if self.training_arguments is None:
                raise
            raise ValueError(
                f"--training-arguments: Hugging Face TrainingArguments refuse {self.training_arguments!r} ({error}). "
                "See their documentation for what each field takes."
            ) from error
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if built.world_size != started:
            raise ValueError(
                f"accelerate launch: expected {started} processes that train together, got {started} that each train alone, "
                "as there is no GPU. Start one process, or set ACCELERATE_USE_CPU=1 in the environment."
            )
        return PartialState()

    def resolved_precision(self) -> Literal["fp32", "bf16", "fp16"]:
        """Precision of this process: what `accelerate launch --mixed_precision` said, else the setting."""
        launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if launched in ("bf16", "fp16"):
            return launched  # type: ignore[return-value]
        if self.precision != "auto":
            return self.precision
        import torch
        from accelerate.utils import parse_flag_from_env

        kept_off_gpu = parse_flag_from_env("ACCELERATE_USE_CPU")
        kept_off_gpu |= bool(self.further_arguments().get("use_cpu"))
        # Older GPUs emulate bf16, slower than fp32.
        supported = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)  # fmt: skip
        return "bf16" if supported and not kept_off_gpu else "fp32"

    def compiles(self, operations: float | None) -> bool:
        """Whether blocks are compiled in a process that will spend `operations` on training pictures.

        Args:
            operations: Floating-point operations of all trainings together; None where they cannot be
                counted, as for a model whose blocks are run as they are.
        """
        if self.compile == "auto":
            return operations is not None and operations >= _COMPILING_PAYS_FROM
        return self.compile == "on"

    def to_training_arguments(
        self,
        output_dir: Path,
        *,
        learning_rate: float,
        seed: int,
        evaluation_rows: int | None = None,
        run_name: str | None = None,
    ) -> TrainingArguments:
        """Build the Hugging Face arguments of one training, and take the threads that were asked for.

        Nothing is written by the Trainer itself but to the trackers of `report_to`, under `run_name`:
        adapters and tables are saved by the run.

        Args:
            output_dir: Where the Trainer would write.
            learning_rate: Peak learning rate.
            seed: Of the order of the rows, the augmentation and the head.
            evaluation_rows: Rows of the split that is scored after each epoch; None scores none meanwhile.
            run_name: What trackers call the training.
        """
        import torch
        from transformers import TrainingArguments
        from transformers.utils import is_torch_tf32_available

        precision = self.resolved_precision()
        settings: dict[str, Any] = {
            "output_dir": str(output_dir),
            "num_train_epochs": self.epochs,
            "per_device_train_batch_size": self.batch_size,
            "per_device_eval_batch_size": evaluation_batch_size(self.batch_size, evaluation_rows),
            "learning_rate": learning_rate,
            "lr_scheduler_type": self.schedule,
            "warmup_steps": self.warmup_fraction,
            "weight_decay": self.weight_decay,
            "seed": seed,
            "bf16": precision == "bf16",
            "fp16": precision == "fp16",
            "label_names": ["labels", "group"],
            "remove_unused_columns": False,
            "eval_strategy": "no" if evaluation_rows is None else "epoch",
            "save_strategy": "no",
            # The fused AdamW is three times as fast on a CPU too.
            **_DEFAULTS,
            "report_to": "none",
            "run_name": run_name,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            # True would wait for the device every step; a diverged training shows in its logits.
            "logging_nan_inf_filter": False,
            "log_level": "error",
            "tf32": True if is_torch_tf32_available() else None,
        }
        built = TrainingArguments(**{**settings, **self.further_arguments()})
        if self.threads is not None:  # after Accelerate, which may have chosen a number of its own
            torch.set_num_threads(self.threads)
        return built


def evaluation_batch_size(batch_size: int, rows: int | None = None) -> int:
    """Choose how many rows a device scores at once: nothing is kept for a backward pass, so many fit.

    A split of up to four training batches is scored whole: a rest of another size would run as it is, slower
    than what is compiled.

    Args:
        batch_size: Training rows a step and device.
        rows: Rows of the split, where it is scored again and again; several processes share them.
    """
    if rows is not None:
        share = math.ceil(rows / int(os.environ.get("WORLD_SIZE", "1")))
        if share <= 4 * batch_size:
            return share
    return max(256, 2 * batch_size)


def _check_kind(name: str, value: Any) -> str | None:
    """Say where a value is no number, or not true or false, and TrainingArguments take nothing else.

    They do not check it themselves: the training would fail when it first uses the value.
    """
    from transformers import TrainingArguments

    hint = typing.get_type_hints(TrainingArguments)[name]
    kinds = set(typing.get_args(hint) or (hint,))
    if float in kinds:
        kinds.add(int)
    if not kinds <= {int, float, bool, type(None)} or type(value) in kinds:
        return None
    expected = "a number" if int in kinds else "true or false"
    if float not in kinds and int in kinds:
        expected = "a whole number"
    return (
        f"expected {expected} for {name}, got {json.dumps(value)}. "
        "See the Hugging Face documentation of TrainingArguments."
    )
