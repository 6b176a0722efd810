"""Which values of a column say that the value is not known.

Tables say it in many ways: a blank, "unknown", "not reported", "n.a.", "?", -1. Every part of the
package that makes groups asks here, so that none takes the people nobody asked for a group of
their own. Imports nothing of the package.
"""

from __future__ import annotations

import re
import unicodedata

import pandas as pd

UNKNOWN_PHRASES = (
    "unknown", "unk", "unkn", "ukn", "not known", "dont know", "do not know", "not sure",
    "unsure", "na", "n a", "nan", "null", "none", "nil", "none given", "none reported", "none recorded",
    "none available", "missing", "blank", "empty", "undefined", "undetermined", "unidentified",
    "unspecified", "unrecorded", "unreported", "unstated", "unavailable", "undisclosed", "withheld",
    "not reported", "not recorded", "not specified", "not stated", "not available", "not applicable",
    "not given", "not provided", "not disclosed", "not determined", "not documented", "not entered",
    "not collected", "not answered", "not asked", "not identified", "not listed", "no data", "no answer",
    "no response", "no information", "no info", "no entry", "no value", "refused", "declined",
    "refused to answer", "declined to answer", "declines to state", "declined to state",
    "choose not to answer", "chose not to answer", "choose not to disclose", "chose not to disclose",
    "prefer not to answer", "prefer not to say", "prefer not to disclose", "prefers not to say",
    "preferred not to say", "tbd", "to be determined",
    "unbekannt", "keine angabe", "k a", "nicht bekannt", "inconnu", "inconnue", "non renseigné",
    "desconocido", "desconocida", "no informado", "desconhecido", "não informado", "nao informado",
    "ignorado", "sconosciuto", "onbekend", "okänd", "ukendt", "不明", "未知", "未詳",
)  # fmt: skip
"""Phrases in lower case, apostrophes taken out and other signs turned into one blank."""

BESIDE = (
    "and", "or", "the", "patient", "subject", "sex", "gender", "race", "ethnicity", "age", "skin",
    "type", "tone", "color", "colour", "value", "values", "data", "status", "group", "category",
    "at birth",
)  # fmt: skip
"""Words that change nothing beside such a phrase: "race unknown", "unknown or not reported"."""

_SAID = "|".join(sorted(UNKNOWN_PHRASES, key=len, reverse=True))
_FILL = "|".join(BESIDE)
_PATTERN = re.compile(rf"(?:(?:{_FILL}) )*(?:{_SAID})(?: (?:{_FILL}|{_SAID}))*")
_SIGNS = re.compile(r"[?.\-\u2010-\u2015_*#/\\~ ]+")
_MINUS = re.compile(r"-(?:1|9+)(?:\.0*)?")
_NINES = re.compile(r"99+(?:\.0*)?")
_DIGIT = re.compile(r"\d(?:\.0*)?")


def is_unknown(value: object) -> bool:
    """Say whether one value, by itself, says that it is not known.

    A code such as -1 depends on the values beside it; see `unknown_mask`.

    >>> [is_unknown(v) for v in ("Unknown", "N/A", "not-reported", "?", None, "other")]
    [True, True, True, True, True, False]
    """
    if value is None or value is pd.NA or value != value:
        return True
    text = unicodedata.normalize("NFC", str(value)).strip()
    if not text or _SIGNS.fullmatch(text):
        return True
    return bool(_PATTERN.fullmatch(plain_words(text)))


def plain_words(text: str) -> str:
    """Return the words of a text in lower case, one blank between them, without other signs.

    >>> plain_words("Don't know / N.A.")
    'dont know n a'
    """
    return " ".join(re.sub(r"[\W_]+", " ", re.sub("['\u2019`]", "", text.casefold())).split())


def unknown_mask(values: pd.Series, name: str = "") -> pd.Series:
    """Mark the values that say that they are not known, blanks and missing ones included.

    Beside the words, -1 and -9, -99, ... are such values, unless 1 is the only other one; so are
    99, 999, ... beside codes of one digit, and U in a column whose `name` says sex or gender. A
    minus sign is a value where a plus sign is one.

    Args:
        values: A column as text, numbers or both.
        name: The column's name.
    """
    text = values.astype("string").str.strip()
    found = {v for v in text.dropna().unique() if v}
    unknown = {v for v in found if is_unknown(v)}
    if "+" in found:
        unknown.discard("-")
    if {"sex", "gender"} & set(plain_words(name).split()):
        unknown |= {v for v in found if v.casefold() == "u"}
    unknown |= _unknown_codes(found - unknown)
    return (text.isna() | (text == "") | text.isin(unknown)).astype(bool)


def _unknown_codes(known: set[str]) -> set[str]:
    minus = {v for v in known if _MINUS.fullmatch(v)}
    if {v.split(".")[0] for v in known} == {"-1", "1"}:
        return set()
    rest = known - minus
    nines = {v for v in rest if _NINES.fullmatch(v)}
    codes = rest - nines
    if not codes or not all(_DIGIT.fullmatch(v) for v in codes):
        return minus
    return minus | nines


def say_unknown(values: pd.Series, name: str) -> list[str]:
    """Say which values of a column count as unknown, each with its number of rows.

    Blanks are left out: nobody takes them for a group. The list is empty, or has one sentence.
    """
    text = values.astype("string").str.strip()
    counts = text[unknown_mask(values, name) & text.notna() & (text != "")].value_counts()
    if counts.empty:
        return []
    said = ", ".join(f"{value!r} ({n})" for value, n in counts.items())
    return [
        f"values of {name!r} that count as unknown, and their rows: {said}. A value that is a "
        "group needs another name"
    ]
