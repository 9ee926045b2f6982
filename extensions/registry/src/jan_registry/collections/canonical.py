"""The one sequence of bytes that a record, and a whole collection, has.

Whole numbers, strings, booleans, arrays and objects only, so that this is RFC 8785 (JSON Canonicalization Scheme) as
the standard library writes it: the tests hold it against another implementation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

__all__ = ["canonical", "digest", "snapshot"]


def canonical(value: Any) -> bytes:
    """Plain data as canonical JSON. Keys must be in the Basic Multilingual Plane; floats are the caller's mistake."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def snapshot(records: Iterable[bytes]) -> bytes:
    """A whole collection: its records' canonical bytes, given in the order of their ids (as bytes of UTF-8)."""
    return b'{"records":[' + b",".join(records) + b"]}"


def digest(content: bytes) -> str:
    """SHA-256 in lower-case hex."""
    return hashlib.sha256(content).hexdigest()
