"""The collection `featured`: ordered lists of model ids, each for somebody."""

from __future__ import annotations

from msgspec import Struct, field

from .constraint import Constraint

__all__ = ["Slot"]


class Slot(Struct, omit_defaults=True, kw_only=True):
    """A list of recommended models, best first. Of the slots whose `target` matches, that with the highest `priority`
    is shown (of equals the one with the smaller id); an experiment may show another one in its place."""

    id: str
    title: str = ""
    models: list[str]
    priority: int = 0
    target: list[Constraint] = field(default_factory=list)
