"""What becomes of each field of Hugging Face TrainingArguments in a run: honoured, decided by the run, or refused.

The one table behind `--training-arguments`: its checks, its messages and docs/training_arguments.md. A
field that is not in it, as of a newer library, is refused until someone has tried what it does here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import TrainingArguments


Verdict = Literal["honoured", "decided", "refused"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What becomes of a field.

    Attributes:
        verdict: `honoured` has its effect; `decided` is set by the run itself; `refused` would have none here,
            fail, or make the record untrue.
        why: The effect; the flag that decides; the reason.
        low: Smallest value.
        high: Values lie below it.
        choices: The only values.
        needs: Another field and the values of it without which this one would do nothing.
        ignored_by_trainer: Whether `FairTrainer` itself, called from Python, would not do what the field says.
    """

    verdict: Verdict
    why: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    needs: tuple[str, tuple[object, ...]] | None = None
    ignored_by_trainer: bool = False


ADAM = ("adamw_torch_fused", "adamw_torch")
# Those that TrainingArguments read of `optim_args`, without `weight_decay`, which has a flag of its own.
OPTIM_ARGS = {
    "sgd": ("momentum", "dampening", "nesterov"),
    "adagrad": ("lr_decay", "eps"),
    "rmsprop": ("momentum", "alpha", "eps", "centered"),
}
_LEVELS = ("debug", "info", "warning", "error", "critical", "passive")


def _honoured(why: str, **limits: Any) -> Rule:
    return Rule(verdict="honoured", why=why, **limits)


def _rules(
    verdict: Verdict, reasons: Mapping[str, str], *, ignored_by_trainer: bool = False
) -> dict[str, Rule]:
    """Return the rule of each field; those of one reason stand together, apart by blanks."""
    return {
        name: Rule(verdict=verdict, why=why, ignored_by_trainer=ignored_by_trainer)
        for names, why in reasons.items()
        for name in names.split()
    }


_SEVERAL = "of several processes that train together (`accelerate launch`)"

_HONOURED = {
    "optim": _honoured("The optimizer.", choices=(*ADAM, *OPTIM_ARGS, "adafactor")),
    "optim_args": _honoured(
        "`name=value, ...` of the optimizers sgd, adagrad and rmsprop.",
        needs=("optim", tuple(OPTIM_ARGS)),
    ),
    "adam_beta1": _honoured("Of AdamW.", low=0, high=1, needs=("optim", ADAM)),
    "adam_beta2": _honoured("Of AdamW.", low=0, high=1, needs=("optim", ADAM)),
    "adam_epsilon": _honoured("Of AdamW.", low=0, needs=("optim", ADAM)),
    "max_grad_norm": _honoured("Largest norm of a step's gradient; 0 cuts none.", low=0),
    "gradient_accumulation_steps": _honoured(
        "Batches of --batch-size whose gradients make one step.", low=1
    ),
    "activation_checkpointing": _honoured("Less memory for more time; the numbers stay."),
    "activation_checkpointing_kwargs": _honoured(
        "Of the checkpointing.", needs=("activation_checkpointing", (True,))
    ),
    "gradient_checkpointing": _honoured("The older name of activation_checkpointing."),
    "gradient_checkpointing_kwargs": _honoured(
        "Of the checkpointing.", needs=("gradient_checkpointing", (True,))
    ),
    "per_device_eval_batch_size": _honoured("Rows a device scores at once.", low=1),
    "eval_accumulation_steps": _honoured(
        "Batches whose scores stay on the device before they go to the host.", low=1
    ),
    "tf32": _honoured("Whether fp32 products of a GPU may be rounded to TF32."),
    "full_determinism": _honoured("Only deterministic algorithms; slower on a GPU."),
    "torch_empty_cache_steps": _honoured(
        "Steps after which a GPU's unused memory is given back.", low=1
    ),
    "use_cpu": _honoured("Keeps the training off the GPU."),
    "report_to": _honoured("Trackers, such as tensorboard and wandb."),
    "logging_strategy": _honoured(
        "When trackers get the training's loss; each epoch's end is always one of the times.",
        choices=("epoch", "steps"),
    ),
    "logging_steps": _honoured(
        "Steps between two records of the loss; below 1, a share of all steps.",
        low=0,
        needs=("logging_strategy", ("steps",)),
    ),
    "logging_first_step": _honoured("Whether the first step's loss is recorded."),
    "log_level": _honoured("How much the library says on the first process.", choices=_LEVELS),
    "log_level_replica": _honoured("The same on the other processes.", choices=_LEVELS),
    "log_on_each_node": _honoured("Whether log_level holds once for each machine."),
    "disable_tqdm": _honoured("False draws a progress bar for each training."),
    "ddp_backend": _honoured(f"The backend {_SEVERAL}.", choices=("nccl", "gloo", "mpi", "ccl")),
    "ddp_timeout": _honoured(f"Seconds a wait may take, {_SEVERAL}.", low=1),
    "ddp_find_unused_parameters": _honoured(f"As of torch, {_SEVERAL}."),
    "ddp_bucket_cap_mb": _honoured(f"As of torch, {_SEVERAL}.", low=1),
    "ddp_broadcast_buffers": _honoured(f"As of torch, {_SEVERAL}."),
    "ddp_static_graph": _honoured(f"As of torch, {_SEVERAL}."),
}

_DECIDED = {
    "output_dir": "`--out` says where.",
    "num_train_epochs max_steps": "`--epochs` says how long.",
    "per_device_train_batch_size": "`--batch-size` says how many.",
    "learning_rate": "The search chooses within `--learning-rate-min` and `--learning-rate-max`.",
    "lr_scheduler_type lr_scheduler_kwargs": "`--schedule` says which course.",
    "warmup_steps": "`--warmup-fraction` says how long.",
    "weight_decay": "`--weight-decay` says how much.",
    "bf16 fp16": "`--precision` says which.",
    "torch_compile torch_compile_backend torch_compile_mode": "`--compile` says whether.",
    "seed data_seed": "`--seed` and the seeds of the refits say which.",
    "run_name": "Each training has the name of its trial or of its seed.",
    "eval_strategy eval_steps eval_delay": "Every epoch of a trial is scored once.",
    "save_strategy save_steps save_total_limit save_only_model save_on_each_node "
    "enable_jit_checkpoint": "The run saves its adapters and tables itself, and no checkpoints.",
    "label_names remove_unused_columns": "The pictures' labels and groups are known.",
    "dataloader_drop_last": "Every training row is used.",
    "dataloader_num_workers dataloader_prefetch_factor dataloader_persistent_workers "
    "dataloader_multiprocessing_context dataloader_in_order dataloader_pin_memory": "The pictures lie decoded in memory (`--images-on`) and are augmented there; "
    "there is nothing that other processes could do.",
    "train_sampling_strategy length_column_name": "The method draws the rows (see `compare`).",
    "logging_nan_inf_filter": "A loss that is no number has to show.",
    "local_rank": "`accelerate launch` numbers the processes.",
    "resume_from_checkpoint ignore_data_skip restore_callback_states_from_checkpoint": "The same command on its own folder goes on where it stopped.",
    "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision": "`fairtune push` publishes a run, after its checks; the token comes from `hf auth login`.",
    "do_train do_eval do_predict": "The command says what is done.",
    "skip_memory_metrics": "run.json holds the memory of each training (`cost`) anyway.",
}

_REFUSED = {
    "load_best_model_at_end metric_for_best_model greater_is_better": "Trainings end with their last epoch, which the search judges; it would have no effect.",
    "include_for_metrics": "The metrics read scores, labels and groups alone.",
    "eval_use_gather_object": "Scores are gathered as tensors.",
    "auto_find_batch_size": "The batch size on record would not be that of the training. A smaller `--batch-size` fits.",
    "use_cache neftune_noise_alpha include_num_input_tokens_seen average_tokens_across_devices": "It is for text.",
    "optim_target_modules": "It is for optimizers that are not offered here (see `optim`).",
    "accelerator_config parallelism_config": "Batches and their order would differ from those on record.",
    "fsdp fsdp_config deepspeed": "Processes that train together share the rows, never the model.",
    "debug": "Its hooks would not see the blocks, which run as one where the GPU allows it.",
    "project trackio_space_id trackio_bucket_id trackio_static_space_id": "It is read by the tracker trackio alone, and publishes. Weights & Biases reads the environment variable "
    "WANDB_PROJECT.",
}
# These `FairTrainer` itself, called from Python, would not do either.
_IGNORED = {
    "label_smoothing_factor": "Each method has a loss of its own, in which it would have no effect.",
    "prediction_loss_only": "The metrics need the scores.",
    "batch_eval_metrics eval_do_concat_batches": "A metric is computed over the whole split in one pass.",
    "eval_on_start": "The epochs of a trial would be miscounted.",
    "bf16_full_eval fp16_full_eval": "The model would be rounded before its scores and its adapter are saved.",
    "use_liger_kernel liger_kernel_config": "The kernels are for language models.",
}

RULES: Mapping[str, Rule] = {
    **_HONOURED,
    **_rules("decided", _DECIDED),
    **_rules("refused", _REFUSED),
    **_rules("refused", _IGNORED, ignored_by_trainer=True),
}


def honoured() -> list[str]:
    """Return the names of the fields that can be given."""
    return [name for name, rule in RULES.items() if rule.verdict == "honoured"]


def refuse(name: str) -> str | None:
    """Say why a field of the library cannot be given, or return None where it can."""
    rule = RULES.get(name)
    if rule is None:
        return (
            f"{name} is newer than this version of fairtune_hf, which cannot say what it would do. "
            "Leave it out."
        )
    if rule.verdict == "decided":
        return f"{name} is decided by the run and cannot be given here. {rule.why}"
    return f"{name} is refused. {rule.why} Leave it out." if rule.verdict == "refused" else None


def check_value(name: str, value: Any) -> str | None:
    """Say what is wrong with the value of an honoured field, or return None."""
    rule = RULES[name]
    if rule.choices and value not in rule.choices:
        return (
            f"expected {name} among {', '.join(rule.choices)}, got {value!r}. Choose one of them."
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    low = -math.inf if rule.low is None else rule.low
    high = math.inf if rule.high is None else rule.high
    if low <= value < high:
        return None
    below = "" if rule.high is None else f" and below {rule.high}"
    return f"expected {name} of at least {rule.low}{below}, got {value}. Correct it."


def check_together(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> str | None:
    """Say which honoured field would do nothing beside the others, or return None.

    Args:
        given: Fields that were given.
        defaults: What the run sets where nothing is given.
    """
    for name in given:
        needs = RULES[name].needs
        if needs is None:
            continue
        other, values = needs
        held = given.get(other, defaults.get(other))
        if held not in values:
            words = " or ".join(str(v).lower() if v is True else str(v) for v in values)
            return (
                f"expected {other} {words} beside {name}, which does nothing without it, "
                f"got {'none' if held is None else held}. Give {other}, or leave {name} out."
            )
    return _check_optim_args(given) or _check_checkpointing(given)


def _check_optim_args(given: Mapping[str, Any]) -> str | None:
    """Say which of `optim_args` the optimizer does not know: the library drops it without a word."""
    if given.get("optim_args") is None:
        return None
    known = OPTIM_ARGS[given["optim"]]
    text = given["optim_args"]
    names = (
        [part.split("=")[0].strip() for part in text.split(",")] if isinstance(text, str) else []
    )
    if not names or not all(name in known and "=" in text for name in names):
        return (
            f'expected optim_args like "{known[0]}=0.9" of {", ".join(known)} for {given["optim"]}, got {text!r}. '
            "Correct it; the weight decay has a flag of its own."
        )
    return None


def _check_checkpointing(given: Mapping[str, Any]) -> str | None:
    """Refuse the kind of checkpointing that gives the first trained block no gradient."""
    for name in ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"):
        options = given.get(name)
        if options is None:
            continue
        if not isinstance(options, dict) or options.get("use_reentrant"):
            return (
                f"expected {name} to be an object without use_reentrant, which leaves blocks above frozen ones untrained, "
                f"got {options!r}. Leave it out."
            )
    return None


def refuse_ignored(arguments: TrainingArguments) -> None:
    """Refuse arguments, made in Python, of which `FairTrainer` would do nothing, or worse.

    Raises:
        ValueError: A field of that kind has another value than the library's default.
    """
    from transformers import TrainingArguments

    known = {f.name: f.default for f in dataclasses.fields(TrainingArguments)}
    for name, rule in RULES.items():
        if rule.ignored_by_trainer and name in known and getattr(arguments, name) != known[name]:
            raise ValueError(
                f"TrainingArguments: {name} is not for FairTrainer. {rule.why} Leave it out."
            )


def write_reference() -> str:
    """Return the table as Markdown: what docs/training_arguments.md holds."""
    titles = {
        "honoured": ("Honoured", "what it does"),
        "decided": ("Decided by the run", "by what"),
        "refused": ("Refused", "why"),
    }
    lines = [
        "# The fields of `--training-arguments`",
        "",
        "`--training-arguments '{\"max_grad_norm\": 0.5}'` (in a configuration file a mapping, in Python",
        "`FitArguments(training_arguments=...)`) takes fields of Hugging Face `TrainingArguments`. What would not have its effect",
        "is refused before anything starts. Made from `fairtune_hf/training/argument_rules.py`.",
    ]
    for verdict, (title, column) in titles.items():
        lines += ["", f"## {title}", "", f"| field | {column} |", "|---|---|"]
        lines += [
            _row(name, rule) for name, rule in sorted(RULES.items()) if rule.verdict == verdict
        ]
    return "\n".join(lines) + "\n"


def _row(name: str, rule: Rule) -> str:
    words = [rule.why]
    if rule.choices:
        words.append(f"One of {', '.join(rule.choices)}.")
    if rule.needs is not None:
        other, values = rule.needs
        words.append(f"With `{other}` {' or '.join(str(v).lower() for v in values)}.")
    return f"| `{name}` | {' '.join(words)} |"
