"""Whether what is stored is still what was signed: a disk can lie, and a file can be edited."""

from __future__ import annotations

from . import rows
from .store import HubStore
from .sync import OnModels

__all__ = ["verify_store"]


def verify_store(store: HubStore, *, on_models: OnModels | None = None) -> list[str]:
    """Hash every stored collection anew, and drop those that are not what was signed: the next sync has them whole.

    Returns the names of what was dropped. Blocks, for the background: it reads everything. Raises StorageError.
    """
    if not store.db.exists:
        return []
    with store.db.read() as db:
        damaged = [
            name
            for name, sha256, count in db.execute("SELECT name, sha256, count FROM collection").fetchall()
            if rows.digest(db, name) != (sha256, count)
        ]
        orphans = db.execute("SELECT DISTINCT coll FROM record WHERE coll NOT IN (SELECT name FROM collection)")
        damaged += [name for (name,) in orphans]
    dropped = []
    for name in damaged:
        with store.db.write() as db:
            stands = db.execute("SELECT sha256, count FROM collection WHERE name = ?", [name]).fetchone()
            if stands is not None and rows.digest(db, name) == stands:
                continue  # it was replaced meanwhile
            rows.drop(db, name)
            if name == "models" and on_models is not None:
                on_models(db, None)
            dropped.append(name)
    return dropped
