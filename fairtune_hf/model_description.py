"""`fairtune.json` beside an adapter: what belongs to a model and is in no weight of it.

Labels in the user's words, what a picture goes through before the model sees it, what the pictures it was
trained on were like, the operating point, and what was measured in each group. Written with the adapter,
completed by the evaluation, read by whoever predicts. Imports neither torch nor another package of ours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairtune_hf.plain_data import REQUIRED, REST, Part, parse_json, read_as, to_plain
from fairtune_hf.version import __version__
from fairtune_hf.whole_files import write_text

FILE, PROCESSOR = "fairtune.json", "preprocessor_config.json"
SCHEMA_VERSION = 1
INTERPOLATION = "bilinear"
_LARGEST = 4096  # what pictures are stored at
_BILINEAR = 2  # Pillow's number of it, by which transformers goes
_NOT_SAID_HERE = (
    "What no field here can say: the reader of fairtune_hf scales more than 8 bits a channel to 8 from the picture's own "
    "range (depth16 minmax) or from 0..65535 (full), shows DICOM by its tables and window, takes the middle slice of a "
    "volume, turns by EXIF, leaves alpha off, and cuts the centre square before it resizes, in fractions of a pixel; "
    "transformers resizes first. Scores of this processor therefore differ a little from the measured ones; "
    "fairtune_hf.load_predictor gives those."
)


@dataclass(kw_only=True)
class BaseRecord(Part):
    """The base model that the adapter goes into."""

    id: str | None = None
    revision: str | None = None
    sha256: str = ""
    block_pattern: Any = None


@dataclass(kw_only=True)
class InputRecord(Part):
    """What a picture goes through.

    Attributes:
        image_size: Side of what the model sees, in pixels.
        image_mean: Of each channel, on the [0, 1] scale.
        image_std: Of each channel, on the [0, 1] scale.
        stored_sides: Sides in pixels of the squares on the way: the centre square of the picture is resized to the
            first, that to the next; of the last the centre of `image_size` is cut out.
        interpolation: How it is resized.
        depth16: How more than 8 bits become 8: see the data's option of that name.
        made_from: How the pictures were made where they were no files of pictures, which predicting does not repeat.
    """

    image_size: int = field(default=0, metadata=REQUIRED)
    image_mean: list[float] = field(default_factory=list, metadata=REQUIRED)
    image_std: list[float] = field(default_factory=list, metadata=REQUIRED)
    stored_sides: list[int] = field(default_factory=list, metadata=REQUIRED)
    interpolation: str = INTERPOLATION
    depth16: str = "minmax"
    made_from: str | None = None
    more: dict[str, Any] = field(default_factory=dict, metadata=REST)


@dataclass(kw_only=True)
class OperatingPoint(Part):
    """From which score on a prediction is label 1, and where that was chosen.

    Attributes:
        threshold: A score of at least this is label 1.
        rule: How it was chosen: fixed, youden, sensitivity or specificity.
        chosen_on: The rows it was chosen on, in words.
        target: What the rule asked for.
        sensitivity: True-positive rate on the validation rows.
        specificity: True-negative rate on the validation rows.
    """

    threshold: float = field(default=0.5, metadata=REQUIRED)
    rule: str = "fixed"
    chosen_on: str = "no rows: fixed beforehand"
    target: float | None = None
    sensitivity: float | None = None
    specificity: float | None = None

    @property
    def origin(self) -> str:
        """How it was chosen, in words."""
        if self.rule == "fixed":
            return "fixed beforehand, not chosen for any use"
        return f"{self.rule}, chosen on {self.chosen_on}"


@dataclass(kw_only=True)
class ModelDescription(Part):
    """What `fairtune.json` holds.

    Attributes:
        fairtune_hf: Version that wrote it.
        id2label: Names of label 0 and label 1, by "0" and "1".
        base: The base model.
        input: What a picture goes through.
        dataset: Name of the data set that it was trained on.
        sensitive: The attribute whose groups were measured.
        seed: The refit whose weights these are.
        pictures: What the training pictures were like.
        operating_point: From which score on a prediction is label 1.
        measured_on: The rows that the groups were measured on, in words.
        groups: What was measured in each group, by name.
    """

    schema_version: int = SCHEMA_VERSION
    fairtune_hf: str = __version__
    id2label: dict[str, str] = field(default_factory=dict)
    label2id: dict[str, int] = field(default_factory=dict)
    base: BaseRecord = field(default_factory=BaseRecord)
    input: InputRecord = field(default_factory=InputRecord)
    dataset: str | None = None
    sensitive: str | None = None
    seed: int | None = None
    pictures: dict[str, Any] | None = None
    operating_point: OperatingPoint | None = None
    measured_on: str | None = None
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict, metadata=REST)

    def to_text(self) -> str:
        """Return what the file holds."""
        return json.dumps(to_plain(self), indent=1, allow_nan=False, ensure_ascii=False) + "\n"

    def write(self, folder: Path) -> Path:
        """Write the file into an adapter's folder."""
        return write_text(folder / FILE, self.to_text())


def processor_config(given: InputRecord) -> dict[str, Any]:
    """Return `preprocessor_config.json`: the image processor of transformers that comes nearest to an input.

    The shorter side is resized and the centre cut, pictures are not stretched.
    """
    size = given.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": given.stored_sides[-1]},
        "resample": _BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": given.image_mean,
        "image_std": given.image_std,
        "fairtune_hf": {
            "stored_sides": given.stored_sides,
            "depth16": given.depth16,
            "note": _NOT_SAID_HERE,
        },
    }


def read_description(folder: Path) -> ModelDescription | None:
    """Read the file of an adapter's folder; None where there is none, as beside adapters of earlier releases.

    Raises:
        ValueError: It is damaged, or of a newer release.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        plain = parse_json(file.read_text(encoding="utf-8"))
        found: ModelDescription = read_as(ModelDescription, plain)
        if found.schema_version <= SCHEMA_VERSION:
            _check(found)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(
            f"model: expected {file} to say what belongs to the adapter, and {error}. Restore it, or run `fairtune finetune` and "
            "`fairtune evaluate` on the run again, which write it anew and train nothing that is there."
        ) from error
    if found.schema_version > SCHEMA_VERSION:
        raise ValueError(
            f"model: {file} has schema version {found.schema_version}; this release reads up to {SCHEMA_VERSION}. "
            "Install a newer fairtune_hf."
        )
    return found


def _check(found: ModelDescription) -> None:
    """Refuse what a picture cannot go through; the message is the reason, without the file's name."""
    given = found.input
    if set(found.id2label) != {"0", "1"}:
        raise ValueError(f"its id2label names {sorted(found.id2label)}, not 0 and 1")
    sides = [*given.stored_sides, given.image_size]
    if len(sides) < 2 or not all(1 <= side <= _LARGEST for side in sides):
        raise ValueError(f"its sides {sides} are not those of pictures of up to {_LARGEST} pixels")
    if not len(given.image_mean) == len(given.image_std) == 3 or 0 in given.image_std:
        raise ValueError("its image_mean and image_std are not three numbers each, none of them 0")
    if given.interpolation != INTERPOLATION:
        raise ValueError(f"its interpolation {given.interpolation!r} is not {INTERPOLATION}")


def needs_description(folder: Path) -> bool:
    """Whether an adapter's folder lacks the file, or holds one that cannot be used."""
    try:
        return read_description(folder) is None
    except ValueError:
        return True


def forget_measured(folder: Path) -> None:
    """Take what was measured, and the operating point with it, out of the file of an adapter's folder."""
    held = read_description(folder)
    if held is not None:
        held.operating_point, held.measured_on, held.groups = None, None, {}
        held.write(folder)
