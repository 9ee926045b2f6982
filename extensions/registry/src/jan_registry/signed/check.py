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
        names = [name for (name,) in db.execute("SELECT name FROM collection UNION SELECT DISTINCT coll FROM record")]
    dropped = []
    for name in names:
        with store.db.write() as db:  # which keeps no reader waiting, and nobody can change it meanwhile
            stated = db.execute("SELECT sha256, count FROM collection WHERE name = ?", [name]).fetchone()
            if stated == rows.digest(db, name):
                continue
            rows.drop(db, name)
            if name == "models" and on_models is not None:
                on_models(db, None)
            dropped.append(name)
    return dropped
