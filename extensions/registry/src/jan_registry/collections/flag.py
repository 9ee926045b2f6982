"""The collection `flags`, first kind: feature flags. The second kind is an experiment."""

from __future__ import annotations

from msgspec import Struct, field

from .constraint import Constraint
from .experiment import Experiment

__all__ = ["Flag", "FlagRecord", "Rule"]

Value = bool | int | str


class Rule(Struct, omit_defaults=True, kw_only=True):
    """`value` for those who match `target` and whose bucket lies below `percent` (0 to 100; `flags/bucket.py`)."""

    value: Value
    percent: int = 100
    target: list[Constraint] = field(default_factory=list)


class Flag(Struct, omit_defaults=True, kw_only=True, tag_field="kind", tag="flag"):
    """`id` is the flag's name, e.g. `registry.phase`. The first rule that matches decides, else `value`.

    `salt`: another one draws the buckets anew; "" is the flag's name.
    """

    id: str
    value: Value
    rules: list[Rule] = field(default_factory=list)
    salt: str = ""


FlagRecord = Flag | Experiment
"""A record of the collection; its `kind` tells which."""
