"""The few elements the page is made of, and the one way text from elsewhere gets into it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["empty", "section", "table", "text"]

_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""Some scripts are not written without them."""
_UNSHOWN = "\N{REPLACEMENT CHARACTER}"


def section(title: str, inside: str) -> str:
    """A card with a heading; `inside` is HTML."""
    return f"<section><h2>{title}</h2>{inside}</section>"


def empty(told: str) -> str:
    """What is said where there is nothing to show."""
    return f'<p class="soft">{told}</p>'


def table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> str:
    """Headings with the style of their column; cells are HTML."""
    named = any(name for name, _ in columns)
    head = "".join(f'<th class="{style}">{name}</th>' for name, style in columns) if named else ""
    lines = (
        "".join(f'<td class="{style}">{cell}</td>' for cell, (_, style) in zip(row, columns, strict=True))
        for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"


def text(told: str) -> str:
    """Text of elsewhere, as HTML, without what steers: control characters, and what turns the direction around."""
    return escape("".join(it if it.isprintable() or it in _JOINERS else _UNSHOWN for it in told))
