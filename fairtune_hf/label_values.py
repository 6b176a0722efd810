"""Which of a label column's two values is label 1.

A score is upside down where the healthy are taken for the ill, so the words are read: a negation
("no glaucoma", "non-AMD", "healthy control", "negative for pneumonia") is label 0. Shared by data
sets and audits; imports nothing of the package but its words.
"""

from __future__ import annotations

import re

import pandas as pd

from fairtune_hf.naming import value_counts
from fairtune_hf.unknown_values import is_unknown, plain_words

NEGATORS = {
    "no", "non", "not", "without", "never", "lacks", "lacking", "absence", "kein", "keine", "nicht",
    "ohne", "sans", "pas", "sin", "sem", "senza", "geen",
}  # fmt: skip
"""Words that turn round what follows them."""

NEGATIVE_WORDS = {
    "no", "false", "negative", "negatives", "neg", "normal", "normals", "healthy", "absent", "none",
    "nil", "control", "controls", "unaffected", "uninfected", "undetected", "undetectable",
    "unremarkable", "uninvolved", "asymptomatic", "inactive", "excluded", "clear", "alive", "survived",
    "survivor", "wildtype", "wt", "hc", "cn", "nc", "off", "nein", "nee", "negativ", "negativo",
    "negativa", "negatif", "négatif", "gesund", "sano", "sana", "sain", "saine", "unauffällig",
}  # fmt: skip
"""Words of a phrase without the disease; `benign` comes between these and the disease."""

BENIGN_WORDS = {"benign", "benigne", "benigno", "benigna", "gutartig"}

POSITIVE_WORDS = {
    "yes", "true", "positive", "positives", "pos", "present", "abnormal", "abnormality", "malignant",
    "malignancy", "cancer", "cancerous", "carcinoma", "melanoma", "sarcoma", "metastasis",
    "metastatic", "disease", "diseased", "ill", "sick", "unhealthy", "affected", "infected",
    "detected", "case", "cases", "patient", "patients", "dead", "died", "deceased", "symptomatic",
    "mutant", "mutated", "on", "pathological", "pathologic", "lesion", "tumor", "high", "severe", "advanced", "invasive", "tumour", "glaucoma",
    "pneumonia", "maligne", "maligno", "maligna", "bösartig", "krank", "ja", "oui", "si", "sí", "sim",
}  # fmt: skip
"""Words of a phrase with the disease; they yield to a negative word beside them."""

_LETTERS = {("n", "y"), ("n", "p"), ("f", "t"), ("n", "j"), ("n", "s")}
_NOT_MISSING = {"none", "nil"}


def binary_label(
    values: pd.Series, column: str, positive: str = ""
) -> tuple[pd.Series, tuple[str, str]]:
    """Turn a column of two values into 0 and 1, and name them in this order.

    Of numbers the larger is 1. Of words a negation, or a word for the healthy, is 0; where neither
    is one, a word for a disease is 1, else the last of the alphabet (`say_positive` says so).
    `positive` decides otherwise; it may differ from the column's value in case.

    Raises:
        ValueError: if there are not two values, or `positive` is neither.
    """
    text = label_text(values)
    found = sorted(text.unique())
    if len(found) != 2:
        raise ValueError(
            f"the label column {column!r} must have two values; it has {len(found)} "
            f"({value_counts(text)}). Choose another column, or make a column that has two."
        )
    names = order_values(found[0], found[1])
    if positive != "":
        chosen = match_value(str(positive), names)
        if chosen is None:
            raise ValueError(
                f"positive_label must be one of the values of {column!r}, {names[0]!r} or "
                f"{names[1]!r}; {positive!r} came."
            )
        names = names if chosen == names[1] else (names[1], names[0])
    return (text == names[1]).astype("int64"), names


def label_text(values: pd.Series) -> pd.Series:
    """Return a column as text, numbers in one spelling: `1`, `1.0` and `01` are one value."""
    text = values.astype(str).str.strip()
    numbers = pd.to_numeric(text, errors="coerce")
    return numbers.map(lambda n: f"{n:g}") if numbers.notna().all() else text


def order_values(one: str, other: str) -> tuple[str, str]:
    """Return two values, the one for label 0 first.

    >>> order_values("no glaucoma", "glaucoma")
    ('no glaucoma', 'glaucoma')
    >>> order_values("not benign", "benign")
    ('benign', 'not benign')
    >>> order_values("10", "9")
    ('9', '10')
    """
    first, second = sorted((one, other))
    if _number(first) is not None and _number(second) is not None:
        first, second = sorted((one, other), key=lambda v: float(v))
        return first, second
    weights = _weights(first, second)
    return (first, second) if weights[0] <= weights[1] else (second, first)


def match_value(value: str, names: tuple[str, str]) -> str | None:
    """Return the name that `value` means: the same, or the same but for case and spelling of a number.

    A YAML file turns an unquoted yes or no into a truth value, so these mean each other.
    """
    if value in names:
        return value
    meant = {"true": "yes", "false": "no"}.get(value.lower(), value)
    number = _number(value)
    for fits in (
        lambda n: n.casefold() == value.strip().casefold(),
        lambda n: number is not None and _number(n) == number,
        lambda n: n.casefold() == meant,
    ):
        same = [n for n in names if fits(n)]
        if len(same) == 1:
            return same[0]
    return None


def say_positive(names: tuple[str, str], column: str) -> list[str]:
    """Say which value was taken as label 1 where no word or number told it; else nothing."""
    numbers = [_number(n) for n in names]
    if None not in numbers:
        told = numbers[0] == 0 or numbers == [-1, 1]
    else:
        weights = _weights(*names)
        told = weights[0] < 0 and weights[0] < weights[1]
    if told:
        return []
    return [
        f"label 1 of {column!r} was taken to be {names[1]!r} and label 0 {names[0]!r}, which their "
        "names do not tell; --positive-label decides otherwise"
    ]


def missing_label(values: pd.Series) -> pd.Series:
    """Mark the labels that are missing or say that they are not known.

    `none`, `nil` and a minus sign beside a plus sign are labels.
    """
    text = values.astype("string").str.strip()
    found = {v for v in text.dropna().unique() if v and is_unknown(v)}
    found = {v for v in found if plain_words(v) not in _NOT_MISSING}
    if text.isin(["+"]).any():
        found.discard("-")
    return (text.isna() | (text == "") | text.isin(found)).astype(bool)


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _weights(one: str, other: str) -> tuple[int, int]:
    """Weigh two values against each other: the lighter one is label 0."""
    letters = (one.casefold(), other.casefold())
    if letters in _LETTERS:
        return -3, 1
    if letters[::-1] in _LETTERS:
        return 1, -3
    return _weight(one), _weight(other)


def _weight(value: str) -> int:
    """Weigh one value: -3 a negation, -2 a word for the healthy, -1 benign, 1 a disease, 0 neither."""
    words = _words(value)
    turned = sum(word in NEGATORS for word in words[:-1])
    rest = [w for i, w in enumerate(words) if w not in NEGATORS or i == len(words) - 1]
    weight = _plain_weight(rest)
    if turned % 2 == 0:
        return weight
    return 1 if weight < 0 else -3


def _plain_weight(words: list[str]) -> int:
    last = words[-1] if words else ""
    if set(words) & NEGATIVE_WORDS or last == "0" or (last == "free" and len(words) > 1):
        return -2
    if set(words) & BENIGN_WORDS:
        return -1
    return int(bool(set(words) & POSITIVE_WORDS))


def _words(value: str) -> list[str]:
    """Return the words of a value; signs at its end and a prefix "non" are words of their own."""
    text = re.sub(r"\+\s*\)?$", " positive", value.strip())
    text = re.sub(r"(?<=[^-\u2212])[-\u2212]\s*\)?$|^[-\u2212]$", " negative", text)
    text = re.sub(r"\bw/o\b", "without", text, flags=re.IGNORECASE)
    words = " ".join(re.sub(r"^non(?=\w{4})", "non ", w) for w in plain_words(text).split())
    # "negative for", "free of" and "absence of" turn round what follows, "negative" alone says it.
    words = re.sub(r"\b(?:negative|neg|free|clear) (?:for|of|from)\b", "no", words)
    return re.sub(r"\babsence of\b", "no", words).split()
