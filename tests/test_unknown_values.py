from __future__ import annotations

import pandas as pd
import pytest

from fairtune_hf.unknown_values import is_unknown, say_unknown, unknown_mask

UNKNOWN = [
    "unknown", "Unknown", " UNKNOWN ", "unk", "<unk>", "not reported", "Not-Reported", "not_known",
    "n.a.", "N/A", "n/a", "#N/A", "<NA>", "NaN", "null", "None", "none given", "?", "??", "-", "--",
    ".", "missing", "(blank)", "Unknown/Not Reported", "unknown or not reported", "race unknown",
    "Race: Unknown", "Gender not specified", "Patient Refused", "Declines to State", "declined",
    "prefer not to say", "Prefer Not to Answer", "don't know", "don\u2019t know", "unspecified",
    "undisclosed", "not applicable", "keine Angabe", "k. A.", "unbekannt", "inconnu", "desconocido",
    "", None, float("nan"), pd.NA,
]  # fmt: skip
GROUPS = [
    "M", "F", "female", "other", "Other/Mixed", "white", "Black or African American", "Asian",
    "non-Hispanic", "not Hispanic", "I-III", "<=60", "0", "1", "no", "never smoker", "nonbinary",
    "intersex", "Namibian", "unknown soldier", "device A", "type 2", "+", "NR", "O", "age",
]  # fmt: skip


@pytest.mark.parametrize("value", UNKNOWN)
def test_words_for_what_is_not_known(value):
    assert is_unknown(value)


@pytest.mark.parametrize("value", GROUPS)
def test_words_that_are_groups(value):
    assert not is_unknown(value)


@pytest.mark.parametrize(
    ("values", "name", "unknown"),
    [
        (["M", "F", "-1"], "sex", ["-1"]),
        (["0", "1", "-1"], "sex", ["-1"]),
        (["0", "1", "-9.0", "-999"], "sex", ["-9.0", "-999"]),
        (["-1", "1"], "sex", []),
        (["-1.0", "1.0"], "sex", []),
        (["1", "2", "99"], "sex", ["99"]),
        (["1", "2", "9"], "sex", []),
        (["98", "99"], "site", []),
        (["M", "F", "U"], "Patient Sex", ["U"]),
        (["A", "U"], "device", []),
        (["+", "-", "?"], "hiv", ["?"]),
        (["yes", "-"], "hiv", ["-"]),
    ],
)
def test_codes_depend_on_the_values_beside_them(values, name, unknown):
    column = pd.Series(values)
    assert list(column[unknown_mask(column, name)]) == unknown


def test_numbers_and_missing_values():
    assert list(unknown_mask(pd.Series([0, 1, -1]))) == [False, False, True]
    assert list(unknown_mask(pd.Series([0.0, None, 1.0]))) == [False, True, False]
    assert list(unknown_mask(pd.Series([True, False, None], dtype=object))) == [False, False, True]


def test_what_counts_as_unknown_is_said_with_its_rows():
    (said,) = say_unknown(pd.Series(["M", "F", "unknown", "unknown", "?", "", None]), "sex")
    assert "'unknown' (2)" in said
    assert "'?' (1)" in said
    assert say_unknown(pd.Series(["M", "F", "", None]), "sex") == []
