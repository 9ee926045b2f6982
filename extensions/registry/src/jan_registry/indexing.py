"""The index of the words of a list, without the records that may not be used.

What is not served must not be found. To hold thousands of records against `collections.check` takes longer than to
write them, so a sync only keeps out what cannot be read at all; `forget` takes out what was found wanting later, off
everybody's way (`Catalogue.sweep`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .collections.check import check
from .search import index as index_all

if TYPE_CHECKING:
    import sqlite3

__all__ = ["forget", "index"]

_ASIDE = "-aside"


def index(db: sqlite3.Connection, ids: Iterable[str] | None) -> None:
    """`search.index`, also where a record is none that this program reads: a hub may be newer, or wrong."""
    ids = None if ids is None else set(ids)
    db.execute("SAVEPOINT indexing")
    try:
        index_all(db, ids)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        db.execute("ROLLBACK TO indexing")
        with _aside(db, [(name, id) for name in ("models", "stats") for id in _unfit(db, name)]):
            index_all(db, ids)
    db.execute("RELEASE indexing")


def forget(db: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Take models out of the index that are still in the list, in a transaction of the caller's."""
    ids = list(ids)
    with _aside(db, [("models", id) for id in ids]):
        index_all(db, ids)


@contextmanager
def _aside(db: sqlite3.Connection, records: list[tuple[str, str]]) -> Iterator[None]:
    """For a moment, and inside one transaction, these records are in no collection: the index has nothing of them. They
    stay stored, since a collection is only what was signed with all of its records."""
    move = "UPDATE record SET coll = ? WHERE coll = ? AND id = ?"
    db.executemany(move, [(name + _ASIDE, name, id) for name, id in records])
    yield
    db.executemany(move, [(name, name + _ASIDE, id) for name, id in records])


def _unfit(db: sqlite3.Connection, name: str) -> list[str]:
    found = []
    for id, data in db.execute("SELECT id, data FROM record WHERE coll = ?", [name]):
        try:
            check(name, bytes(data))
        except ValueError:
            found.append(id)
    return found
