"""`hub.db`: the last verified state of one hub. Whatever stands here was verified in the transaction that wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from ..sqlite import Database

if TYPE_CHECKING:
    import sqlite3

__all__ = ["CollectionState", "HubStore", "load_states"]

VERSION = 1
SCHEMA = """
CREATE TABLE collection (
    name TEXT PRIMARY KEY, seq INTEGER NOT NULL, sha256 TEXT NOT NULL, count INTEGER NOT NULL,
    verified_at INTEGER NOT NULL, checked_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, origin TEXT NOT NULL,
    role TEXT NOT NULL, keyids TEXT NOT NULL, versions TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE record (
    coll TEXT, id TEXT, data BLOB NOT NULL CHECK (typeof(data) = 'blob'), PRIMARY KEY (coll, id)
) WITHOUT ROWID;
CREATE TABLE trusted_version (role TEXT PRIMARY KEY, version INTEGER NOT NULL, signers TEXT NOT NULL) WITHOUT ROWID;
-- search.py: one row a model, in the order in which what is found is shown
CREATE TABLE entry (rowid INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL);
CREATE VIRTUAL TABLE words USING fts5(text, content='entry', tokenize='trigram', detail='none');
CREATE VIRTUAL TABLE starts USING fts5(text, content='entry', tokenize='unicode61', prefix='1 2', detail='none');
CREATE TABLE file (sha256 TEXT, id TEXT, PRIMARY KEY (sha256, id)) WITHOUT ROWID
"""


class CollectionState(Struct, frozen=True, kw_only=True):
    """How one collection stands. Times in seconds since the epoch.

    `seq`: the publisher's counter; `sha256`: of the canonical snapshot; `verified_at`: when this content was accepted;
    `checked_at`: when the hub last confirmed it; `expires_at`: the earliest expiry of the metadata behind it;
    `keyids`: who signed it; `versions`: of the metadata, by role.
    """

    name: str
    seq: int
    sha256: str
    count: int
    verified_at: int
    checked_at: int
    expires_at: int
    origin: str
    role: str
    keyids: list[str]
    versions: dict[str, int]


class HubStore:
    """The file. `folder` is the hub's own (`hubs/<key>/` of the data folder); the TUF metadata lie in `folder/tuf`.

    Blocks. Raises StorageError.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.db = Database(folder / "hub.db", SCHEMA, VERSION)

    def state(self, name: str) -> CollectionState | None:
        """How a collection stands; None when it was never had."""
        if not self.db.exists:
            return None
        with self.db.read() as db:
            return load_states(db, name).get(name)

    def get(self, name: str, id: str) -> bytes | None:
        """The canonical bytes of one record."""
        if not self.db.exists:
            return None
        with self.db.read() as db:
            row = db.execute("SELECT data FROM record WHERE coll = ? AND id = ?", [name, id]).fetchone()
        return bytes(row[0]) if row else None

    def records(self, name: str) -> list[bytes]:
        """The canonical bytes of all records of a collection, in the order of their ids."""
        return list(self.iterate(name)) if self.db.exists else []

    def iterate(self, name: str) -> Iterator[bytes]:
        with self.db.read() as db:
            for (data,) in db.execute("SELECT data FROM record WHERE coll = ? ORDER BY id", [name]):
                yield bytes(data)

    def forget(self) -> None:
        """Drop every record, for the space; not the versions that were seen, without which an older list would be
        believed."""
        if not self.db.exists:
            return
        with self.db.write() as db:
            for table in ("words", "starts"):
                db.execute(f"INSERT INTO {table}({table}) VALUES ('delete-all')")
            for table in ("entry", "file", "record", "collection"):
                db.execute(f"DELETE FROM {table}")
        self.db.compact()

    def close(self) -> None:
        self.db.close()


def load_states(db: sqlite3.Connection, name: str | None = None) -> dict[str, CollectionState]:
    """How the collections stand, by name; None: all of them."""
    import json

    fields = CollectionState.__struct_fields__
    found = {}
    for row in db.execute(f"SELECT {', '.join(fields)} FROM collection WHERE name = ?1 OR ?1 IS NULL", [name]):
        one = dict(zip(fields, row, strict=True))
        one |= {"keyids": json.loads(one["keyids"]), "versions": json.loads(one["versions"])}
        found[one["name"]] = CollectionState(**one)
    return found
