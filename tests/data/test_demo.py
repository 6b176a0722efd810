"""The demo set: same bytes for the same seed, exact counts, and a disparity of known cause."""

import hashlib

import numpy as np
import pytest

from fairtune_hf.data import demo, demo_picture

SMALL = {"train": 60, "validation": 40, "test": 40}


@pytest.fixture(scope="module")
def drawn():
    return demo.draw_demo_set(0)


def _digest(drawn):
    frame, images = drawn
    return hashlib.sha256(images.tobytes() + frame.to_csv().encode()).hexdigest()


def test_columns_types_and_shapes(drawn):
    frame, images = drawn
    assert list(frame.columns) == ["row_id", "patient_id", "label", "skin_type", "age", "split"]
    assert frame["row_id"].is_unique
    assert frame["label"].dtype == np.int64
    assert images.shape == (len(frame), 64, 64, 3)
    assert images.dtype == np.uint8
    assert not frame.isna().any().any()


def test_counts(drawn):
    frame, _ = drawn
    assert frame["split"].value_counts().to_dict() == demo.ROWS
    dark = frame.groupby("split")["skin_type"].apply(lambda s: (s == "IV-VI").mean())
    for split, share in demo.DARK_SHARE.items():
        assert dark[split] == pytest.approx(share, abs=0.005)


def test_same_seed_same_bytes_other_seed_other_bytes():
    first = demo.draw_demo_set(3, rows=SMALL)
    assert _digest(first) == _digest(demo.draw_demo_set(3, rows=SMALL))
    assert _digest(first) != _digest(demo.draw_demo_set(4, rows=SMALL))


def test_size_of_the_chunks_is_no_part_of_a_lesion(monkeypatch):
    frame, _ = demo.draw_demo_set(3, rows=SMALL)
    monkeypatch.setattr(demo_picture, "CHUNK", 7)
    again, _ = demo.draw_demo_set(3, rows=SMALL)
    assert frame.equals(again)


def test_patients_keep_to_one_split_and_have_several_pictures(drawn):
    frame, _ = drawn
    by_patient = frame.groupby("patient_id")
    assert (by_patient["split"].nunique() == 1).all()
    assert (by_patient["skin_type"].nunique() == 1).all()
    assert (by_patient["age"].nunique() == 1).all()
    sizes = by_patient.size()
    assert set(sizes) == {1, 2, 3, 4}
    assert (by_patient["label"].nunique() == 2).any(), "a patient may have lesions of both classes"


@pytest.mark.parametrize("column", ["skin_type", "age"])
def test_prevalence_is_the_same_in_every_split_and_group(drawn, column):
    frame, _ = drawn
    rates = frame.groupby(["split", column])["label"].mean()
    assert len(rates) == 6
    assert rates.between(0.28, 0.32).all()


def _contrast(frame, images):
    """Relative drop of brightness from the rim of a picture, mostly skin, to its darkest part."""
    grey = images.astype(np.float64).mean(axis=-1)
    rim = np.concatenate(
        [grey[:, :6].reshape(len(grey), -1), grey[:, -6:].reshape(len(grey), -1)], 1
    )
    skin = np.median(rim, axis=1)
    middle = np.quantile(grey[:, 12:-12, 12:-12].reshape(len(grey), -1), 0.1, axis=1)
    return (skin - middle) / skin


def test_contrast_is_lower_on_dark_skin_and_alike_in_both_ages(drawn):
    frame, images = drawn
    contrast = frame.assign(contrast=_contrast(frame, images))
    by_skin = contrast.groupby("skin_type")["contrast"].mean()
    assert by_skin["IV-VI"] / by_skin["I-III"] < 0.8
    by_age = contrast.groupby("age")["contrast"].mean()
    assert by_age[">60"] / by_age["<=60"] == pytest.approx(1.0, abs=0.05)


def test_skin_of_the_groups_differs_in_brightness(drawn):
    frame, images = drawn
    corner = images[:, :6, :6].mean(axis=(1, 2, 3))
    light = corner[(frame["skin_type"] == "I-III").to_numpy()]
    dark = corner[(frame["skin_type"] == "IV-VI").to_numpy()]
    assert dark.mean() < light.mean() - 30


def test_brightness_alone_does_not_give_the_label_away(drawn):
    from sklearn.metrics import roc_auc_score

    frame, images = drawn
    brightness = images.mean(axis=(1, 2, 3))
    assert abs(roc_auc_score(frame["label"], brightness) - 0.5) < 0.06


def test_other_sizes_show_the_same_patients():
    frame, images = demo.draw_demo_set(0, rows=SMALL, image_size=32)
    assert images.shape[1:] == (32, 32, 3)
    assert frame.equals(demo.draw_demo_set(0, rows=SMALL, image_size=48)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 8}, "image_size must be at least 16 pixels .* got 8"),
        ({"rows": {"train": 60, "dev": 60}}, r"unknown splits \['dev'\]; use some of"),
        ({"rows": {"train": 10}}, "at least 40 pictures"),
        ({"rows": {}}, "at least 40 pictures"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        demo.draw_demo_set(0, **arguments)
