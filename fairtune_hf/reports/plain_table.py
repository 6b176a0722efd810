"""A table of finished strings, written in Markdown and LaTeX so that no cell is more than text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class PlainTable:
    """A table of finished strings.

    Attributes:
        title: What it shows.
        note: How to read it.
        heads: Column headings.
        rows: One tuple of cells a row, as long as `heads`.
        best: Row and column of the cells that are shown in bold.
    """

    title: str
    note: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()


def markdown(table: PlainTable) -> str:
    """Write a table in Markdown under its title; the best values are bold."""
    heads, *rows = _escaped(table, markdown_text, "**{}**")
    lines = [f"## {markdown_text(table.title)}", "", markdown_text(table.note), ""]
    lines += [_line(heads), "| --- |" + " ---: |" * (len(heads) - 1), *map(_line, rows)]
    return "\n".join([*lines, ""])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def latex(table: PlainTable) -> str:
    """Write a table in LaTeX (package booktabs) under its title; the best values are bold."""
    body = [" & ".join(row) + " \\\\" for row in _escaped(table, latex_text, "\\textbf{{{}}}")]
    return "\n".join(
        [
            f"% {latex_text(table.title)}: {latex_text(table.note)}",
            "% needs \\usepackage{booktabs}",
            "\\begin{tabular}{l" + "r" * (len(table.heads) - 1) + "}",
            "\\toprule",
            body[0],
            "\\midrule",
            *body[1:],
            "\\bottomrule",
            "\\end{tabular}",
            "",
        ]
    )


def _escaped(table: PlainTable, escape: Callable[[str], str], bold: str) -> list[list[str]]:
    """Return the headings and the rows with every cell escaped."""
    rows = [
        [
            bold.format(escape(cell)) if (row, column) in table.best else escape(cell)
            for column, cell in enumerate(cells)
        ]
        for row, cells in enumerate(table.rows)
    ]
    return [[escape(head) for head in table.heads], *rows]


def markdown_text(words: str) -> str:
    """Write any text so that Markdown, and the HTML that it lets through, shows it and does nothing else."""
    safe = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # A bracket that closes is part of a link only before one of these.
    safe = re.sub(r"[\\`*|]|\](?=[(\[:])", r"\\\g<0>", safe)
    return " ".join(safe.split())


_LATEX = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "\u2212": "$-$",
    "\u2013": "--",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def latex_text(words: str) -> str:
    """Write any text so that LaTeX prints it and runs none of it."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(words.split()))
