"""Which store a thread is in: the one on disk, or the one in memory for incognito threads."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

from .database import disk_database, memory_database
from .ids import INCOGNITO, Ids
from .owner import Owner
from .store import Store

__all__ = ["INCOGNITO_BYTES", "Library"]

INCOGNITO_BYTES = 256 * 1024 * 1024
"""Memory that incognito threads may take altogether."""


class Library:
    """The stores of one data folder. Nothing is opened before it is used."""

    def __init__(self, folder: Path, *, incognito_bytes: int = INCOGNITO_BYTES) -> None:
        self._folder = folder
        self._incognito_bytes = incognito_bytes
        self._ids = Ids()
        self._mutex = threading.Lock()
        self._made_owner: Owner | None = None
        self._stores: dict[bool, Store] = {}

    def store(self, *, incognito: bool) -> Store:
        """The store for new threads of that kind."""
        if incognito not in self._stores:
            self._stores[incognito] = self._incognito() if incognito else self._disk()
        return self._stores[incognito]

    def store_of(self, thread_id: str) -> Store:
        """The store that a thread is in, if it exists."""
        return self.store(incognito=thread_id.startswith(INCOGNITO))

    @property
    def has_incognito(self) -> bool:
        """Whether there are incognito threads that a successor must take over before this is closed."""
        return True in self._stores

    def close(self) -> None:
        """Finish what is queued and close everything. Blocks."""
        for store in self._stores.values():
            store.close()
        with self._mutex:
            if self._made_owner is not None:
                self._made_owner.close()

    def _disk(self) -> Store:
        make = partial(disk_database, self._folder / "conversations.db")
        return Store(make, self._ids, self._owner, incognito=False)

    def _incognito(self) -> Store:
        import hashlib

        # The name is the folder's, so that the next generation of this extension finds it and another host's
        # does not.
        name = "jan-incognito-" + hashlib.sha256(str(self._folder.resolve()).encode()).hexdigest()[:32]
        make = partial(memory_database, name, limit=self._incognito_bytes)
        return Store(make, self._ids, self._owner, incognito=True)

    def _owner(self) -> Owner:
        with self._mutex:  # both stores' threads ask
            if self._made_owner is None:
                self._made_owner = Owner(self._folder / "owners")
            return self._made_owner
