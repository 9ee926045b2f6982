"""Dotted versions and ranges of them, compared as numbers: `0.10` is newer than `0.9`.

Enough for `requires-core` ranges (the subset of PEP 440 specifiers that uses ==, !=, >=, <=, >, < and commas). It is
not a resolver and knows no pre-releases.
"""

from __future__ import annotations

import operator
import re

__all__ = ["parse_version", "satisfies"]

_OPERATORS = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_CLAUSE = re.compile(r"\s*(==|!=|>=|<=|>|<)\s*(\d+(?:\.\d+)*)\s*")
_VERSION = re.compile(r"\d+(?:\.\d+)*")


def parse_version(text: str) -> tuple[int, ...]:
    """The numbers of a dotted version, without trailing zeros, so that 1.0 equals 1. Raises ValueError."""
    if not _VERSION.fullmatch(text.strip()):
        raise ValueError(f"not a dotted version: {text!r}")
    numbers = [int(part) for part in text.strip().split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def satisfies(version: str, ranges: str) -> bool:
    """Whether `version` lies in all of the comma-separated `ranges`; an empty text allows everything.

    Raises ValueError when `ranges` is not understood: a range nobody understands must not pass as satisfied.
    """
    have = parse_version(version)
    for clause in filter(None, (part.strip() for part in ranges.split(","))):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            raise ValueError(f"not a version range: {clause!r}")
        if not _OPERATORS[match[1]](have, parse_version(match[2])):
            return False
    return True
