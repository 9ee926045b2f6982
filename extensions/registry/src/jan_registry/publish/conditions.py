"""Constraints as a person writes them on one line: `locale=pt,pt-BR`, `region!=CN`, `memory_total>=8000000000`."""

from __future__ import annotations

import re

from jan_core import InvalidParams

from ..collections import Constraint
from ..targeting import FIELDS

__all__ = ["condition", "written"]

_FORM = re.compile(r"\s*([a-z_]+)\s*(!=|>=|<=|<|=)\s*(.*?)\s*")


def condition(text: str) -> Constraint:
    """Raises InvalidParams with what is wrong.

    `=` and `!=` take several values with commas between them; `>=` is for numbers and versions, `<=` for numbers, `<`
    for versions.
    """
    found = _FORM.fullmatch(text)
    if not found or not found[3]:
        raise _wrong(text, "must be a field, one of = != >= <= <, and values")
    field, sign, values = found[1], found[2], [value.strip() for value in found[3].split(",")]
    kind = FIELDS.get(field)
    if kind is None:
        raise _wrong(text, f"the field must be one of {', '.join(FIELDS)}")
    if kind is int:
        op = {"=": "in", "!=": "not_in", ">=": "gte", "<=": "lte"}.get(sign)
    elif field == "app_version":
        op = {"=": "in", "!=": "not_in", ">=": "semver_gte", "<": "semver_lt"}.get(sign)
    else:
        op = {"=": "in", "!=": "not_in"}.get(sign)
    if op is None:
        raise _wrong(text, f"{sign} does not suit {field}")
    if kind is int and not all(re.fullmatch("[0-9]{1,15}", value) for value in values):
        raise _wrong(text, f"{field} is a whole number")
    return Constraint(field, op, [int(value) if kind is int else value for value in values])


def written(constraint: Constraint) -> str:
    """The line that means this constraint, for people."""
    sign = {"in": "=", "not_in": "!=", "gte": ">=", "lte": "<=", "semver_gte": ">=", "semver_lt": "<"}
    values = ",".join(str(value) for value in constraint.values)
    return f"{constraint.field}{sign.get(constraint.op, f' {constraint.op} ')}{values}"


def _wrong(text: str, reason: str) -> InvalidParams:
    return InvalidParams(f"the condition {text[:100]!r} cannot be read: {reason}", path="$.where")
