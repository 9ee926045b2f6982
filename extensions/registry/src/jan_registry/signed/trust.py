"""The highest versions of a hub's metadata that were ever verified, kept beside the collections.

TUF keeps the metadata themselves in a folder of its own. Were that lost or replaced, an old state of the hub would be
as good as a new one: so what it accepts is also held against what stands here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Seen", "load_seen", "save_seen"]


@dataclass(frozen=True)
class Seen:
    """Of one role: its `version`, and the ids of the keys that signed it."""

    version: int
    signers: tuple[str, ...]


def load_seen(db: sqlite3.Connection) -> dict[str, Seen]:
    """By role."""
    rows = db.execute("SELECT role, version, signers FROM trusted_version")
    return {role: Seen(version, tuple(json.loads(signers))) for role, version, signers in rows}


def save_seen(db: sqlite3.Connection, seen: Mapping[str, Seen]) -> None:
    """Replace what stands there of these roles. What may replace what is metadata.py's to say."""
    db.executemany(
        "INSERT OR REPLACE INTO trusted_version (role, version, signers) VALUES (?, ?, ?)",
        [(role, one.version, json.dumps(one.signers)) for role, one in seen.items()],
    )
