"""Pairs of label values as people write them, the one that a reader takes for label 0 first."""

from __future__ import annotations

import pandas as pd
import pytest

from fairtune_hf.label_values import binary_label, match_value, missing_label, say_positive

TOLD = """
no glaucoma | glaucoma
non-glaucoma | glaucoma
nonglaucoma | glaucoma
Non Glaucoma | Glaucoma
non_referable | referable
not cancer | cancer
no disease | disease
without effusion | effusion
w/o effusion | effusion
healthy control | disease
healthy | Alzheimer
healthy | glaucomatous
Control | Case
controls | patients
control | AD
non-AMD | AMD
no DR | DR
negative for pneumonia | bacterial pneumonia
neg. for covid | covid
negative | positive
Neg | Pos
COVID negative | COVID positive
COVID-19 - | COVID-19 +
HER2- | HER2+
- | +
no finding | finding
No Finding | Atelectasis
no abnormality | abnormality
absent | present
effusion absent | effusion present
tumor free | tumor
disease-free | relapse
free of disease | diseased
absence of edema | edema
benign | malignant
benign nevus | melanoma
non-malignant | malignant
not malignant | malignant
noncancerous | cancerous
benign | not benign
normal | not normal
normal | abnormal
Normal | Benign
normal fundus | retinopathy
healthy | unhealthy
not detected | detected
undetected | detected
unaffected | affected
asymptomatic | symptomatic
alive | dead
survived | died
no | yes
N | Y
n | p
F | T
False | True
FALSE | TRUE
none | polyp
wild type negative | mutant
class 0 | class 1
never smoker | ever smoker
0 | 1
0 | 2
0.0 | 1.0
-1 | 1
kein Karzinom | Karzinom
sin lesión | lesión
"""
UNTOLD = """
nevus | melanoma
adenoma | carcinoma
1 | 2
3 | 10
type A | type B
low grade | high grade
"""


def pairs(text: str) -> list[tuple[str, str]]:
    lines = [line.split(" | ") for line in text.strip().splitlines()]
    return [(a.strip(), b.strip()) for a, b in lines]


@pytest.mark.parametrize(("zero", "one"), pairs(TOLD))
def test_a_negation_is_label_0_in_either_order(zero, one):
    for column in ([zero, one, one], [one, zero, one]):
        labels, names = binary_label(pd.Series(column), "dx")
        assert list(labels) == [int(v == one) for v in column]
    assert say_positive(names, "dx") == []


@pytest.mark.parametrize(("zero", "one"), pairs(UNTOLD))
def test_what_the_words_do_not_tell_is_said(zero, one):
    labels, names = binary_label(pd.Series([one, zero]), "dx")
    assert names == (zero, one)
    assert list(labels) == [1, 0]
    (said,) = say_positive(names, "dx")
    assert f"label 1 of 'dx' was taken to be {one!r}" in said
    assert "--positive-label" in said


def test_the_positive_label_decides():
    labels, names = binary_label(pd.Series(["healthy", "ill"]), "dx", "healthy")
    assert list(labels) == [1, 0]
    assert names == ("ill", "healthy")
    assert binary_label(pd.Series([1.0, 0.0]), "dx", "0")[1] == ("1", "0")
    assert binary_label(pd.Series(["Nevus", "Melanoma"]), "dx", "nevus")[1] == ("Melanoma", "Nevus")
    with pytest.raises(ValueError, match=r"must be one of .*'healthy' or 'ill'; 'il' came"):
        binary_label(pd.Series(["healthy", "ill"]), "dx", "il")


def test_a_value_means_a_name_in_another_spelling():
    assert match_value("True", ("no", "yes")) == "yes"  # what YAML makes of an unquoted yes
    assert match_value("1.0", ("0", "1")) == "1"
    assert match_value("a", ("A", "b")) == "A"
    assert match_value("x", ("A", "b")) is None
    assert match_value("a", ("A", "a")) == "a"


def test_booleans_and_numbers():
    assert binary_label(pd.Series([True, False]), "dx")[1] == ("False", "True")
    labels, names = binary_label(pd.Series(["01", "1.0", "0"]), "dx")
    assert (list(labels), names) == ([1, 1, 0], ("0", "1"))


def test_labels_that_are_not_known():
    column = pd.Series(["none", "polyp", "unknown", "n.a.", "", None, "?"])
    assert list(missing_label(column)) == [False, False, True, True, True, True, True]
    assert not missing_label(pd.Series(["+", "-", "-1"])).any()
