"""What the page says, as HTML: what the model was measured to do, and the answer to a picture.

Every value from outside is escaped: names of groups and labels are the user's, a file's name a visitor's.
"""

from __future__ import annotations

import statistics
from html import escape
from typing import Any

from fairtune_hf.inference import OperatingPoint, Prediction, Predictor
from fairtune_hf.reports import numbers
from fairtune_hf.serve.uploads import Upload

_LIMITS = (
    "For research on fine-tuning and group differences. Not a medical device: not for diagnosis, triage or any "
    "decision about a person.",
    "The numbers hold for the patients they were measured on. Other hospitals, scanners, years and definitions of the "
    "label were not tested.",
    "A small gap between groups on those rows is no statement about fairness in use.",
    "A score for one picture has no interval: what is known is how often such scores were right in each group.",
)
STYLE = """
.fairtune table { border-collapse: collapse; }
.fairtune th, .fairtune td { padding: .2em .9em .2em 0; text-align: left; border-bottom: 1px solid #8886; }
.fairtune .score { font-size: 1.5em; }
"""


def heading(predictor: Predictor) -> str:
    """Name what is served."""
    described = predictor.described
    positive, negative = predictor.id2label[1], predictor.id2label[0]
    of = f", trained on {escape(described.dataset)}" if described.dataset else ""
    return _section(
        f"<h1>{escape(positive)} or {escape(negative)}</h1>"
        f"<p>A fine-tuned vision transformer{of}. It scores one picture at a time on the machine that runs this page; "
        "the picture goes nowhere else and is not kept.</p>"
    )


def measured(predictor: Predictor) -> str:
    """Say what the model was measured to do in each group, and the limits of its use."""
    limits = "".join(f"<li>{escape(words)}</li>" for words in _LIMITS)
    return _section(
        f"<h2>Operating point</h2><p>{_operating_words(predictor)}</p>"
        f"<h2>What was measured in each group</h2>{_group_table(predictor)}"
        f"<h2>Limits</h2><ul>{limits}</ul>"
    )


def answer(upload: Upload, found: Prediction, predictor: Predictor) -> str:
    """Say what the model gives for a picture."""
    side = "at least" if found.score >= predictor.threshold else "below"
    words = (
        f"<h2>{_file_name(upload)}</h2>"
        f'<p class="score" data-score="{found.score!r}">Score {numbers.fraction(found.score, 4)}: '
        f"<strong>{escape(found.label)}</strong></p>"
        f"<p>The score is the probability of {escape(predictor.id2label[1])} that the model gives. It is {side} "
        f"{numbers.fraction(predictor.threshold)}, so the label is {escape(found.label)}.</p>"
    )
    return _section(words + _spread(found) + _doubts(found))


def refusal(why: str) -> str:
    """Say why there is no score."""
    return _section(f"<h2>No score</h2><p>{escape(why)}</p>", role="alert")


def _section(words: str, role: str = "region") -> str:
    return f'<div class="fairtune" role="{role}">{words}</div>'


def _file_name(upload: Upload) -> str:
    return escape(" ".join(upload.name.split())) or "The picture"


def _spread(found: Prediction) -> str:
    if not found.scores_by_seed:
        return ""
    scores = list(found.scores_by_seed.values())
    return (
        f"<p>The same choice trained {len(scores)} times gives {numbers.fraction(statistics.fmean(scores), 4)} in the mean, "
        f"from {numbers.fraction(min(scores), 4)} to {numbers.fraction(max(scores), 4)}.</p>"
    )


def _doubts(found: Prediction) -> str:
    lines = "".join(f"<li>{escape(words)}</li>" for words in found.warnings)
    return f"<p>This picture is unlike those of the training:</p><ul>{lines}</ul>" if lines else ""


def _operating_words(predictor: Predictor) -> str:
    point = predictor.operating_point
    positive = escape(predictor.id2label[1])
    if point is None:
        return f"None was chosen; a score of at least 0.5 is called {positive}."
    return (
        f"A score of at least {numbers.fraction(point.threshold)} is called {positive} "
        f"({escape(point.origin)}).{_rates(point)}"
    )


def _rates(point: OperatingPoint) -> str:
    if point.sensitivity is None or point.specificity is None:
        return ""
    return (
        f" On those rows its sensitivity was {numbers.fraction(point.sensitivity)} and its specificity "
        f"{numbers.fraction(point.specificity)}."
    )


def _group_table(predictor: Predictor) -> str:
    described = predictor.described
    if not predictor.groups:
        return "<p>Nothing was measured yet: run <code>fairtune evaluate</code> on the run.</p>"
    rows = "".join(_group_row(name, row) for name, row in predictor.groups.items())
    where = f" on {escape(described.measured_on)}" if described.measured_on else ""
    return (
        f"<table><thead><tr><th>{escape(described.sensitive or 'Group')}</th><th>Pictures</th><th>Positive</th>"
        "<th>AUC [95 % interval]</th><th>Sensitivity</th><th>Specificity</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        f"<p>Measured{where}. AUC: how often a positive picture has a higher score than a negative one of the same group; "
        "0.5 is chance. Sensitivity and specificity are those of the operating point.</p>"
    )


def _group_row(name: str, row: dict[str, Any]) -> str:
    bounds = numbers.interval(row.get("auc_ci"))
    cells = (
        escape(str(name)),
        escape(_count(row.get("n"))),
        escape(_positives(row)),
        numbers.fraction(row.get("auc")) + (f" [{bounds}]" if bounds else ""),
        numbers.fraction(row.get("sensitivity")),
        numbers.fraction(row.get("specificity")),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _count(value: Any) -> str:
    """Write a count; words, as of a group too small to be told, as they are."""
    return value if isinstance(value, str) else numbers.count(value)


def _positives(row: dict[str, Any]) -> str:
    found = row.get("positives")
    return found if isinstance(found, str) else numbers.positives(row.get("n"), found)
