"""Pages of a list that a hub gives whole."""

from __future__ import annotations

from collections.abc import Sequence

from jan_core import InvalidParams
from jan_core.types import ModelRecord, SourcePage, SourceQuery

from ..search import scan
from .text import line

__all__ = ["few", "page_of", "place"]

_MAX_NOTES = 50


def page_of(models: Sequence[ModelRecord], query: SourceQuery, limit: int) -> SourcePage:
    """What `query` asks of `models`: one by its id, or a page of those with all its words, in the list's own order.

    The cursor is a place in that order. Raises InvalidParams for another one.
    """
    if query.id:
        wanted = query.id.casefold()
        return SourcePage([model for model in models if model.id.casefold() == wanted][:1])
    found = scan(models, query.text) if query.text.strip() else models
    start = place(query.cursor)
    end = start + limit
    return SourcePage(list(found[start:end]), cursor=str(end) if end < len(found) else "")


def place(cursor: str) -> int:
    """The place in a list that a cursor is. Raises InvalidParams for what is none."""
    if not cursor:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
        raise InvalidParams("the cursor is not one of this source", path="$.cursor")
    return int(cursor)


def few(notes: list[str]) -> list[str]:
    """Notes as a page has them: fit to be shown, the first ones, and how many more there are."""
    more = len(notes) - _MAX_NOTES
    shown = [line(note, 400) for note in notes[:_MAX_NOTES]]
    return shown if more <= 0 else [*shown, f"and {more} more"]
