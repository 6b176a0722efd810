"""`data_report.html`: one self-contained page about a prepared data set.

Shows counts, what was left out, warnings, the rules and a few training pictures per group. No
patient id; cells of fewer than ten patients are hidden as `hidden_cells` says.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment
from PIL import Image

from fairtune_hf.data.checks import FEW
from fairtune_hf.data.declaration import Pictures
from fairtune_hf.data.small_cells import hidden_cells
from fairtune_hf.data.table import SPLITS

SAMPLES = 6
THUMBNAIL = 96

TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ spec.name }}: data report</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1b1b; --line: #ccc }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e8ebee; --line: #39414a } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
  color: var(--ink); background: var(--paper); overflow-wrap: anywhere }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid var(--line); padding: .2rem .7rem; text-align: right;
  overflow-wrap: normal }
th:first-child, td:first-child { text-align: left }
img { margin: 2px; vertical-align: middle; width: {{ thumbnail }}px }
.warning { border-left: 4px solid #c77700; margin: .3rem 0; padding-left: .7rem }
dt { font-weight: 600 } dd { margin: 0 0 .5rem 1rem }
</style></head><body>
<h1>{{ spec.name }}</h1>
<p>{{ spec.title }}. {{ rows }} rows, {{ positives }} {{ label_names[1] }}.</p>
{% if warnings %}<h2>Warnings</h2>
{% for w in warnings %}<p class="warning">{{ w }}</p>{% endfor %}{% endif %}
<h2>Rows by group, split and label</h2>
<p>Cells of fewer than {{ few }} people are shown as &lt;{{ few }}, and where that is one cell alone of a
column the next smallest is not shown.</p>
{% for t in tables %}<h3>{{ t.name }}</h3>
<table><tr><th>group</th>{% for s in splits %}{% for l in label_names %}
<th>{{ s }}<br>{{ l }}</th>{% endfor %}{% endfor %}</tr>
{% for line in t.lines %}<tr><td>{{ line.group }}</td>
{% for c in line.cells %}<td>{{ c }}</td>{% endfor %}</tr>{% endfor %}</table>
{% endfor %}
{% if dropped %}<h2>Left out</h2><table><tr><th>reason</th><th>rows</th></tr>
{% for reason, n in dropped.items() %}<tr><td>{{ reason }}</td><td>{{ n }}</td></tr>{% endfor %}
</table>{% endif %}
<h2>Sample pictures of the training split</h2>
{% for s in samples %}<p>{{ s.attribute }} {{ s.group }}, {{ s.label }}<br>
{% for p in s.pictures %}<img alt="sample" src="data:image/jpeg;base64,{{ p }}">{% endfor %}</p>
{% endfor %}
<h2>Rules</h2><dl>
{% for name, text in rules.items() %}<dt>{{ name }}</dt><dd>{{ text }}</dd>{% endfor %}
</dl></body></html>
"""


def render_data_report(checked: Any, pictures: Pictures) -> str:
    """Render the page of checked rows whose pictures are prepared."""
    raw, spec = checked.raw, checked.spec
    frame = checked.frame.reset_index(drop=True)
    template = Environment(autoescape=True).from_string(TEMPLATE)
    chosen = {**checked.request.options, **raw.recorded}
    rules = {
        **spec.rules,
        "filters": spec.filters,
        "split unit": spec.split_unit,
        "options": ", ".join(f"{k}={v}" for k, v in chosen.items() if v not in ("", None)),
    }
    return template.render(
        spec=spec,
        rows=len(frame),
        positives=int(frame["label"].sum()),
        label_names=raw.label_names,
        warnings=list(dict.fromkeys(raw.warnings)),
        few=FEW,
        thumbnail=THUMBNAIL,
        splits=SPLITS,
        tables=[
            {"name": name, "lines": _lines(frame, name, groups)}
            for name, groups in raw.groups.items()
        ],
        dropped=raw.dropped,
        samples=_samples(checked, frame, pictures),
        rules=rules,
    )


def _lines(frame: pd.DataFrame, attribute: str, groups: tuple[str, ...]) -> list[dict[str, Any]]:
    named = [*groups, ""] if (frame[attribute] == "").any() else list(groups)
    lines: dict[str, list[str]] = {group: [] for group in named}
    for split in SPLITS:
        for label in (0, 1):
            column = frame[(frame["split"] == split) & (frame["label"] == label)]
            cells = {group: column[column[attribute] == group] for group in named}
            hidden = hidden_cells({g: rows["patient_id"].nunique() for g, rows in cells.items()})
            for group, rows in cells.items():
                lines[group].append(hidden.get(group) or str(len(rows)))
    return [{"group": group or "unknown", "cells": cells} for group, cells in lines.items()]


def _samples(checked: Any, frame: pd.DataFrame, pictures: Pictures) -> list[dict[str, Any]]:
    samples = []
    rng = np.random.default_rng(0)
    for attribute, groups in checked.raw.groups.items():
        for group in groups:
            for label in (0, 1):
                rows = frame[
                    (frame[attribute] == group)
                    & (frame["label"] == label)
                    & (frame["split"] == "train")
                ]
                if rows["patient_id"].nunique() < FEW:
                    continue
                chosen = np.sort(rng.permutation(rows["position"].to_numpy())[:SAMPLES])
                shown = [_thumbnail(image) for image in pictures.rows(chosen)]
                told = {"attribute": attribute, "group": group, "pictures": shown}
                samples.append({**told, "label": checked.raw.label_names[label]})
    return samples


def _thumbnail(image: np.ndarray) -> str:
    picture = Image.fromarray(image)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
