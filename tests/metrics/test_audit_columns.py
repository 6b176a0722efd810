"""A stranger's columns: words as labels, unknown words, ages, attributes and crossings."""

import numpy as np
import pandas as pd
import pytest

from fairtune_hf.metrics import audit_predictions
from fairtune_hf.metrics.audit_columns import split_attributes

COLUMNS = {"label_column": "dx", "score_column": "p", "sensitive_column": "sex"}


def table(n=240, seed=0):
    rng = np.random.default_rng(seed)
    ill = (rng.random(n) < 0.4).astype(int)
    return pd.DataFrame({
        "dx": ill, "p": 0.6 * rng.random(n) + 0.4 * ill, "sex": rng.choice(["f", "m"], n),
        "age": rng.integers(20, 90, n), "patient": np.arange(n),
    })  # fmt: skip


def audit(frame, **changes):
    return audit_predictions(
        frame, **(COLUMNS | {"n_resamples": 40, "patient_column": "patient"} | changes)
    )


@pytest.mark.parametrize(("zero", "one", "positive"), [
    ("benign", "malignant", None), ("no glaucoma", "glaucoma", None), ("non-AMD", "AMD", None),
    ("normal", "ill", None), ("melanoma", "nevus", "nevus"), ("N", "Y", "Y"), ("2", "1", "1"),
])  # fmt: skip
def test_words_are_labels_as_in_data_sets(zero, one, positive):
    numbers = table()
    words = numbers.assign(dx=np.where(numbers.dx == 1, one, zero))
    got = audit(words, positive_label=positive)
    assert got["label_names"] == [zero, one]
    assert got["evaluation"] == audit(numbers)["evaluation"]
    assert audit(numbers)["label_names"] is None


def test_numbers_of_two_values_need_a_positive_label():
    frame = table()
    with pytest.raises(ValueError, match="expected labels 0 and 1, got 2"):
        audit(frame.assign(dx=frame.dx + 1))
    got = audit(frame.assign(dx=frame.dx + 1), positive_label="2")
    assert got["evaluation"] == audit(frame)["evaluation"]
    with pytest.raises(ValueError, match="positive_label must be one of"):
        audit(frame, positive_label="ill")


def test_which_word_was_taken_is_said_where_neither_tells():
    frame = table()
    frame["dx"] = np.where(frame.dx == 1, "type B", "type A")
    assert any("label 1 of 'dx' was taken to be 'type B'" in t for t in audit(frame)["warnings"])
    chosen = audit(frame, positive_label="type A")
    assert chosen["label_names"] == ["type B", "type A"]
    assert not any("was taken" in text for text in chosen["warnings"])


def test_a_word_without_a_label_is_counted():
    frame = table()
    frame["dx"] = np.where(frame.dx == 1, "malignant", "benign")
    frame.loc[:4, "dx"] = "unknown"
    with pytest.raises(ValueError, match="got 5 of 240 without one"):
        audit(frame)


@pytest.mark.parametrize(
    "word", ["unknown", "Not reported", "n.a.", "?", "-1", "prefer not to say"]
)
def test_unknown_words_are_no_group(word):
    frame = table()
    frame.loc[:11, "sex"] = word
    got = audit(frame)
    assert set(got["evaluation"]["groups"]) == {"f", "m"}
    assert "12 of 240 rows have no sex and are left out." in got["warnings"]
    assert any(f"{word!r} (12)" in text for text in got["warnings"])
    kept = audit(frame, unknown="group")["evaluation"]["groups"]
    assert kept["unknown"]["n"] == 12
    with pytest.raises(ValueError, match="12 of 240 unknown"):
        audit(frame, unknown="error")


def test_ages_are_cut_as_in_data_sets():
    frame = table()
    got = audit(frame, sensitive_column="age")
    groups = got["evaluation"]["groups"]
    assert {name: row["n"] for name, row in groups.items()} == {
        "<=60": int((frame.age <= 60).sum()), ">60": int((frame.age > 60).sum()),
    }  # fmt: skip
    assert any("'age' holds many numbers and is cut into <=60, >60" in t for t in got["warnings"])
    other = audit(frame, sensitive_column="age", age_threshold="40,60", age_boundary="ge")
    assert set(other["evaluation"]["groups"]) == {"<40", "40 to <60", ">=60"}
    crossed = audit(frame, sensitive_column="sex+age")
    assert set(crossed["evaluation"]["groups"]) == {"f+<=60", "f+>60", "m+<=60", "m+>60"}


@pytest.mark.parametrize("ages", [range(58, 64), ["058Y", "059Y", "060Y", "061Y"]])
def test_ages_in_single_years_are_never_groups(ages):
    ages = list(ages)
    frame = table()
    frame["age"] = [ages[i % len(ages)] for i in range(len(frame))]
    groups = audit(frame, sensitive_column="age")["evaluation"]["groups"]
    assert set(groups) == {"<=60", ">60"}
    with pytest.raises(ValueError, match=r"only '<=90'.*other cuts of ages"):
        audit(frame, sensitive_column="age", age_threshold="90")


def test_a_number_that_is_no_age_is_unknown():
    frame = table()
    frame["PatientAge"] = ["30", "70", "70", "999"] * 60
    got = audit(frame, sensitive_column="PatientAge")
    assert {name: row["n"] for name, row in got["evaluation"]["groups"].items()} == {
        "30": 60, "70": 120,
    }  # fmt: skip
    assert any(
        "60 values of 'PatientAge' are numbers that are no age" in t for t in got["warnings"]
    )


def test_many_values_that_are_no_ages_are_refused():
    frame = table().assign(site=[f"s{i % 50}" for i in range(240)])
    with pytest.raises(ValueError, match="site: expected a few groups, got 50 values"):
        audit(frame, sensitive_column="site")


def test_a_comma_is_two_attributes_and_a_plus_a_crossing():
    frame = table().assign(skin=np.arange(240) % 2)
    got = audit(frame, sensitive_column="sex, skin")
    assert list(got["attributes"]) == ["sex", "skin"]
    assert got["attributes"]["skin"] == audit(frame, sensitive_column="skin")
    assert got["evaluation"] == audit(frame)["evaluation"]
    crossed = audit(frame, sensitive_column="sex+skin")
    assert set(crossed["evaluation"]["groups"]) == {"f+0", "f+1", "m+0", "m+1"}
    assert crossed == audit(frame, sensitive_column=["sex", "skin"])
    assert split_attributes("sex+age", ["sex+age"]) == [["sex+age"]]
    with pytest.raises(ValueError, match="Name each once"):
        audit(frame, sensitive_column="sex+sex")
    with pytest.raises(ValueError, match="names of columns"):
        audit(frame, sensitive_column=" , ")


def test_one_group_is_nothing_to_compare():
    with pytest.raises(ValueError, match="sex: expected two groups or more, got only 'f'"):
        audit(table().assign(sex="f"))
