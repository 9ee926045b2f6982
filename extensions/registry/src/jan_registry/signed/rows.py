"""The rows of a collection inside somebody's transaction: changed, replaced, hashed. Nothing here begins or commits."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .delta import Delta, Row
from .store import CollectionState

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Change", "apply", "digest", "drop", "replace", "save_state"]

_BATCH = 500


@dataclass
class Change:
    """Which ids it touched."""

    created: set[str] = field(default_factory=set)
    updated: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)

    @property
    def ids(self) -> set[str]:
        return self.created | self.updated | self.deleted


def apply(db: sqlite3.Connection, name: str, delta: Delta) -> Change:
    """Do what a delta says, whatever that is."""
    change = Change()
    for id in delta.delete:
        if db.execute("DELETE FROM record WHERE coll = ? AND id = ?", [name, id]).rowcount:
            change.deleted.add(id)
    for id, data in delta.upsert:
        if db.execute("UPDATE record SET data = ? WHERE coll = ? AND id = ?", [data, name, id]).rowcount:
            change.updated.add(id)
        else:
            db.execute("INSERT INTO record (coll, id, data) VALUES (?, ?, ?)", [name, id, data])
            change.created.add(id)
    return change


def replace(db: sqlite3.Connection, name: str, rows: list[Row]) -> Change:
    """Make the collection these rows, given in the order of their ids; only what differs is written."""
    change = Change()
    new = dict(rows)
    for id, data in db.execute("SELECT id, data FROM record WHERE coll = ?", [name]):
        wanted = new.get(id)
        if wanted is None:
            change.deleted.add(id)
        elif wanted != data:
            change.updated.add(id)
        else:
            del new[id]
    change.created = new.keys() - change.updated
    db.executemany("DELETE FROM record WHERE coll = ? AND id = ?", [(name, id) for id in change.deleted])
    db.executemany(
        "INSERT OR REPLACE INTO record (coll, id, data) VALUES (?, ?, ?)",
        ((name, id, data) for id, data in rows if id in new),
    )
    return change


def digest(db: sqlite3.Connection, name: str) -> tuple[str, int]:
    """The SHA-256 of the canonical snapshot that the rows make, and how many they are."""
    hash, count = hashlib.sha256(b'{"records":['), 0
    rows = db.execute("SELECT data FROM record WHERE coll = ? ORDER BY id", [name])
    while batch := rows.fetchmany(_BATCH):
        hash.update((b"," if count else b"") + b",".join(bytes(data) for (data,) in batch))
        count += len(batch)
    hash.update(b"]}")
    return hash.hexdigest(), count


def drop(db: sqlite3.Connection, name: str) -> int:
    """Forget a collection. How many records it had."""
    db.execute("DELETE FROM collection WHERE name = ?", [name])
    return db.execute("DELETE FROM record WHERE coll = ?", [name]).rowcount


def save_state(db: sqlite3.Connection, state: CollectionState) -> None:
    fields = {name: getattr(state, name) for name in CollectionState.__struct_fields__}
    fields |= {"keyids": json.dumps(state.keyids), "versions": json.dumps(state.versions)}
    marks = ", ".join("?" for _ in fields)
    db.execute(f"INSERT OR REPLACE INTO collection ({', '.join(fields)}) VALUES ({marks})", list(fields.values()))
