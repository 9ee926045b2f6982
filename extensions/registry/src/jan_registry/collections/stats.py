"""The collection `stats`: numbers that change daily, apart from the records so that those stay as they are."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Stats"]


class Stats(Struct, omit_defaults=True, kw_only=True):
    """Of the model `id`. For display and order only."""

    id: str
    downloads: int = 0
    likes: int = 0
