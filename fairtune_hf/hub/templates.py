"""Where the card templates lie, and how text from outside is made harmless in Markdown."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import jinja2

_PACKAGE = Path(__file__).resolve().parent.parent
_SPECIAL = re.compile(r"([\\`*\[\]|~$]|(?<!\w)_|_(?!\w))")
_LINE_START = re.compile(r"^(\s*)([#>+-]|\d+[.)])(?=\s|$)")


class Verbatim(str):
    """Text that a template prints as it is: front matter, code, a table made here."""

    __slots__ = ()


def template_folder() -> Path:
    """Return the folder of the card templates: inside the wheel, else beside the package.

    Raises:
        FileNotFoundError: Neither exists, the installation is incomplete.
    """
    candidates = (_PACKAGE / "_shipped" / "hub_cards", _PACKAGE.parent / "hub_cards")
    for folder in candidates:
        if (folder / "model_card.md.jinja").is_file():
            return folder
    raise FileNotFoundError(
        f"The card templates should lie in {candidates[0]} (installed) or {candidates[1]} "
        "(checkout); neither has model_card.md.jinja. Install fairtune_hf again."
    )


def escape_markdown(value: object) -> str:
    """Make any value inert in Markdown and in the HTML that Markdown lets through.

    Angle brackets become entities, characters that would start markup get a backslash, line
    breaks become spaces. A `Verbatim` value is kept.
    """
    if isinstance(value, Verbatim):
        return value
    words = " ".join(str(value).split())
    words = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    words = _SPECIAL.sub(r"\\\1", words)
    words = re.sub(r"(?i)\b(https?|ftp|www)([:.])", r"\1&#8203;\2", words)
    return _LINE_START.sub(r"\1\\\2", words)


def python_string(value: object) -> Verbatim:
    """Write a value as a Python string literal that cannot end a code block."""
    words = repr(str(value)).replace("`", "\\x60").replace("<", "\\x3c")
    return Verbatim(words)


@lru_cache(maxsize=1)
def card_environment() -> jinja2.Environment:
    """Return the Jinja2 environment of the cards: each printed value goes through the escape."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_folder()),
        autoescape=False,  # the documents are Markdown: `finalize` escapes every printed value
        finalize=escape_markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["python"] = python_string
    return environment
