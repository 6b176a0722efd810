from __future__ import annotations

from fairtune_hf.data.split_names import say_names, split_of, split_of_path


def test_names_of_splits():
    assert [split_of(n) for n in ("train", "TRAIN", "train_1", "training set")] == ["train"] * 4
    assert [split_of(n) for n in ("val", "valid", "Dev", "validation-2")] == ["validation"] * 4
    assert [split_of(n) for n in ("test", "images_test", "testing", "holdout")] == ["test"] * 4
    unclear = ("", "latest", "traintest", "not test", "train/test", "trains", None, "2")
    assert [split_of(n) for n in unclear] == [None] * 8


def test_folders_of_a_path():
    assert split_of_path(("scans", "train_1", "benign")) == "train"
    assert split_of_path(("train", "test")) is None
    assert split_of_path(("scans", "benign")) is None


def test_names_that_need_words():
    assert say_names(["train", "Test", "val"]) == []
    assert say_names(["train", "eval", "dev"]) == [
        "names of splits were read so: 'dev' as validation, 'eval' as test"
    ]
