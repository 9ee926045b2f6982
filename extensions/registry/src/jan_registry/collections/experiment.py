"""The collection `flags`, second kind: experiments on what is featured."""

from __future__ import annotations

from msgspec import Struct, field

from .constraint import Constraint

__all__ = ["Branch", "Experiment"]


class Branch(Struct, omit_defaults=True, kw_only=True):
    """One arm. `slot` is the id of the featured slot that is shown; "" is whatever would be shown anyway (control)."""

    id: str
    slot: str = ""
    ratio: int = 1


class Experiment(Struct, omit_defaults=True, kw_only=True, tag_field="kind", tag="experiment"):
    """A comparison of featured lists. Immutable once it runs: another `salt` or other branches are another experiment.

    Who matches `target` and whose bucket lies below `percent` is enrolled, and stays so when the percentage falls.
    `state`: `running` enrols; `paused` enrols nobody new; `ended` shows what is shown to everybody. `metric`: which
    local outcome is compared (`download`, `load` or `chat` of a model that was shown).
    """

    id: str
    title: str = ""
    branches: list[Branch]
    percent: int = 100
    target: list[Constraint] = field(default_factory=list)
    salt: str = ""
    state: str = "running"
    metric: str = "download"
