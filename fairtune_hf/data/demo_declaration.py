"""Declaration of the demo set, which `demo.py` draws."""

from __future__ import annotations

from pathlib import Path

from fairtune_hf.data.declaration import DatasetSpec, MemoryPictures, RawTable, ReadRequest

GROUPS = {"skin_type": ("I-III", "IV-VI"), "age": ("<=60", ">60")}
STEPS = "Nothing to download: the pictures are drawn by the package."


def read(root: Path, request: ReadRequest) -> RawTable:
    """Draw the set for the seed asked for; `root` is not read."""
    from fairtune_hf.data.demo import LABEL_NAMES, draw_demo_set

    del root
    frame, images = draw_demo_set(request.seed, image_size=request.image_size)
    frame = frame.assign(
        row_id=frame["row_id"].astype(str),
        patient_id=frame["patient_id"].astype(str),
        source_row=range(1, len(frame) + 1),
    )
    return RawTable(
        frame=frame,
        groups=dict(GROUPS),
        label_names=LABEL_NAMES,
        pictures=MemoryPictures(images),
        origin="demo",
    )


SPEC = DatasetSpec(
    name="demo",
    title="2,400 skin-lesion-like pictures drawn by the package; not medical data",
    source="fairtune_hf.data.demo",
    licence="Apache-2.0",
    steps=STEPS,
    label_rule="1 iff the lesion was drawn as malignant",
    attributes={"skin_type": "I-III, IV-VI", "age": "cut at 60"},
    default_sensitive="skin_type",
    read=read,
    split_rules=("official",),
    expected_counts={"rows": 2400},
    needs_root=False,
)
