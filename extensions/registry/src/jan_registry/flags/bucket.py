"""Which share of all machines this one belongs to: the bucketing of docs/bucketing.md, version 1.

Fixed for ever and small enough to be written again in another language, because the hashes of libraries change and
would draw everybody anew. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

__all__ = ["BUCKETS", "EXPERIMENTS", "FLAGS", "branch", "bucket", "within"]

BUCKETS = 10_000
FLAGS = "flags"
"""The namespace of flags; the salt is the flag's, or its name."""
EXPERIMENTS = "experiments"
"""The namespace of experiments; the salt is the experiment's, or its id."""


def bucket(namespace: str, salt: str, unit: str) -> int:
    """0 to 9999, the same for the same three texts wherever it is computed."""
    hashed = hashlib.sha256(f"{namespace}\0{salt}\0{unit}".encode()).digest()
    return int.from_bytes(hashed[:8], "big") % BUCKETS


def within(bucket: int, percent: int) -> bool:
    """Whether a bucket belongs to the first `percent` of a hundred. Who is within stays so while it grows."""
    return bucket < percent * 100


def branch(namespace: str, salt: str, unit: str, ratios: Sequence[int]) -> int:
    """The place of the arm that `unit` gets, of arms in the ratio `ratios` (whole numbers from 0, not all of them 0).

    Raises ValueError for other ratios.
    """
    total = sum(ratios)
    if total <= 0 or min(ratios) < 0:
        raise ValueError(f"ratios are whole numbers from 0 of which one is more: {list(ratios)}")
    drawn, upto = bucket(namespace, f"{salt}:branch", unit) * total, 0
    for place, ratio in enumerate(ratios):
        upto += ratio * BUCKETS
        if drawn < upto:
            return place
    raise AssertionError("a bucket lies below the sum of all shares")
