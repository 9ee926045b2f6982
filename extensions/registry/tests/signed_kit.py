"""A client of a signed hub for tests, and a way between it and the hub on which anything may happen."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jan_registry.collections import COLLECTIONS
from jan_registry.signed.fetching import Fetch, NotThere, TooLarge
from jan_registry.signed.folder import FolderFetch
from jan_registry.signed.store import CollectionState, HubStore
from jan_registry.signed.sync import Base, SyncReport, sync

__all__ = ["Client", "Overlay", "Served"]

Served = dict[str, list[bytes]]


class Overlay:
    """A hub's folder in which some files are others: `files[path]`, or what `change(path, content)` makes of them.

    A value of None: there is no such file. An exception is raised. `paths`: what was asked for.
    """

    def __init__(self, tree: Path) -> None:
        self._folder = FolderFetch(tree)
        self.files: dict[str, bytes | Exception | None] = {}
        self.change: Callable[[str, bytes], bytes] = lambda path, content: content
        self.paths: list[str] = []
        self.requests = self.received = 0
        self.backoff = 0.0

    def __call__(self, path: str, limit: int, *, rare: bool = False) -> bytes:
        self.paths.append(path)
        self.requests += 1
        if path in self.files:
            given = self.files[path]
            if given is None:
                raise NotThere(f"no {path}")
            if isinstance(given, Exception):
                raise given
            content = given
        else:
            content = self.change(path, self._folder(path, 1 << 30))
        self.received += min(len(content), limit)
        if len(content) > limit:
            raise TooLarge(path)
        return content


class Client:
    """What one machine keeps of a hub, in `folder`."""

    def __init__(self, folder: Path, root: bytes) -> None:
        self.store, self.root = HubStore(folder), root
        self.indexed: list[set[str] | None] = []

    def sync(self, hub: Path | Fetch, at: float | None = None, base: Base | None = None) -> SyncReport:
        def on_models(db: Any, ids: Iterable[str] | None) -> None:
            self.indexed.append(None if ids is None else set(ids))

        fetch = FolderFetch(hub) if isinstance(hub, Path) else hub
        now = time.time if at is None else lambda: at
        return sync(self.store, fetch, self.root, now=now, on_models=on_models, base=base)

    def served(self) -> Served:
        """All records of all collections, as every reader gets them."""
        return {name: self.store.records(name) for name in COLLECTIONS}

    def ids(self, name: str = "models") -> list[str]:
        with self.store.db.read() as db:
            return [id for (id,) in db.execute("SELECT id FROM record WHERE coll = ? ORDER BY id", [name])]

    def state(self, name: str = "models") -> CollectionState:
        state = self.store.state(name)
        assert state is not None
        return state

    def copy(self, folder: Path) -> Client:
        """The same machine once more; close this one first."""
        shutil.copytree(self.store.folder, folder, symlinks=True)
        return Client(folder, self.root)

    def close(self) -> None:
        self.store.close()
