"""For whom something is meant: conditions on what this machine and person are. Never sent anywhere."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Constraint"]


class Constraint(Struct, omit_defaults=True):
    """One condition; a list of them holds when all do.

    `op`: `in`, `not_in`, `gte`, `lte` (numbers), `semver_gte`, `semver_lt`. A field or an operator that this program
    does not know, or a value it cannot compare, does not match: what is not understood stays hidden.
    """

    field: str
    op: str
    values: list[str | int]
