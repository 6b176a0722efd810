"""What is to be exported, and what goes together."""

from __future__ import annotations

from dataclasses import dataclass, field

from fairtune_hf.export.bounds import Bounds
from fairtune_hf.export.graphs import require_extra
from fairtune_hf.naming import closest

TOLERANCES = {"transformers": 1e-5, "onnx": 1e-4, "torch": 1e-5}
"""The formats, and by how much a score may differ from the run's."""
HALVES = ("float16", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be exported.

    Attributes:
        format: One of `TOLERANCES`.
        int8: Weights of 8 bits; for onnx alone.
        half: Weights stored in half precision, one of `HALVES`; for transformers alone.
        batch_size: Pictures that will be scored at once, at which a model of 8 bits is judged.
        bounds: How much a group may lose to either.
    """

    format: str = "transformers"
    int8: bool = False
    half: str | None = None
    batch_size: int = 1
    bounds: Bounds = field(default_factory=Bounds)

    @property
    def is_lossy(self) -> bool:
        """Whether the weights are not kept as they are."""
        return self.int8 or self.half is not None

    @property
    def tolerance(self) -> float:
        """By how much a score may differ from the run's, where the weights are kept."""
        return TOLERANCES[self.format]

    def check(self) -> None:
        """Refuse what is not known, does not go together, or needs a package that is not there.

        Raises:
            ValueError: Naming the flag.
        """
        if self.format not in TOLERANCES:
            raise ValueError(
                f"--format: expected one of {', '.join(TOLERANCES)}, got {self.format!r}.{closest(self.format, TOLERANCES)}"
            )
        if self.half is not None and self.half not in HALVES:
            raise ValueError(f"--half: expected one of {', '.join(HALVES)}, got {self.half!r}.")
        if self.int8 and self.format != "onnx":
            raise ValueError(
                f"--int8: expected --format onnx beside it, got {self.format}. Leave it out, or export to onnx."
            )
        if self.half is not None and self.format != "transformers":
            raise ValueError(
                f"--half: expected --format transformers beside it, got {self.format}. Half precision is a way to store "
                "weights alone: on a CPU it is many times slower to compute with."
            )
        if self.batch_size < 1:
            raise ValueError(f"--batch-size: expected 1 or more, got {self.batch_size}.")
        if self.format == "onnx":
            require_extra()
