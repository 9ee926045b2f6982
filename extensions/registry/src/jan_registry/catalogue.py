"""The two lists there are: the dynamic one (memory, verified SQLite, the snapshot shipped with the program), and the
built-in one. Neither ever waits for the network; which of them is served is decided elsewhere (`serving.py`)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from msgspec.structs import replace

from jan_core import Context, JanError, StorageError
from jan_core.types import ModelRecord

from .hub import Hub, hub_of
from .listing import BuiltinListing, SignedListing, states_of
from .settings import RegistrySettings

if TYPE_CHECKING:
    from .signed.bundle import Bundle

__all__ = ["PACKAGED", "Catalogue"]

PACKAGED = Path(__file__).parent / "packaged"
"""The signed snapshot that a release ships: data, not code."""

_LOOK_AGAIN = 2.0
"""Seconds between looks at the store: another process may have brought it up to date."""


class Catalogue:
    """Finds the lists. Each is read once and then served from memory until the state behind it changes."""

    def __init__(self, ctx: Context) -> None:
        self.note = ""
        self._ctx, self._packaged = ctx, PACKAGED
        self._hub: Hub | None = None
        self._named: tuple[str, str] | None = None
        self._listing: SignedListing | None = None
        self._bundled: SignedListing | None = None
        self._bundle: Bundle | None = None
        self._confirmed = self._bundle_failed = False
        self._looked_at = 0.0
        self._loading = anyio.Lock()

    @property
    def settings(self) -> RegistrySettings:
        settings: RegistrySettings = self._ctx.settings
        return settings

    @property
    def hub(self) -> Hub | None:
        """The hub the settings name now. Raises RegistryRefused when there is no root to trust."""
        settings = self.settings
        named = (settings.url, settings.root)
        if named != self._named:
            if self._hub is not None:
                self._hub.store.close()
            self._named = None
            self._hub = hub_of(settings, self._ctx.data_dir, self._shipped_root())
            self._named, self._listing, self._confirmed, self._looked_at = named, None, False, 0.0
        return self._hub

    async def dynamic(self) -> SignedListing | None:
        """The last verified list of the hub, else the one shipped with the program; None when there is neither."""
        hub = self._hub_or_note()
        if hub is not None:
            if time.monotonic() - self._looked_at > _LOOK_AGAIN:
                async with self._loading:
                    if time.monotonic() - self._looked_at > _LOOK_AGAIN:
                        await anyio.to_thread.run_sync(self._look, hub)
            if self._listing is not None:
                return self._listing
        return await self.bundled()

    async def bundled(self) -> SignedListing | None:
        """The snapshot that was shipped with the program."""
        if self._bundled is None:
            async with self._loading:
                if self._bundled is None:
                    self._bundled = await anyio.to_thread.run_sync(self._unpack)
        return self._bundled

    async def builtin(self) -> BuiltinListing:
        """What the program's code and its extensions bring along; the first of two with one id counts."""
        models: dict[str, ModelRecord] = {}
        for outcome in (await self._ctx.hooks.builtin_models()).outcomes:
            for model in outcome.value or []:
                source = model.source or outcome.extension
                models.setdefault(model.id, replace(model, source=source, verification="builtin"))
        return BuiltinListing(list(models.values()))

    @property
    def named_hub(self) -> Hub | None:
        """The hub as it was last looked for."""
        return self._hub

    @property
    def held(self) -> SignedListing | None:
        """The hub's list as it was last read; None when there is none, or nobody has read it yet."""
        return self._listing

    @property
    def shipped(self) -> SignedListing | None:
        """The shipped snapshot, where somebody has read it."""
        return self._bundled

    def confirmed(self, hub: Hub) -> None:
        """The hub was asked just now, and its store holds what it said."""
        if hub is self._hub:
            self._confirmed, self._looked_at = True, 0.0

    def verify(self) -> list[str]:
        """Hold what is stored and what was shipped against their signatures; name what was dropped. Blocks, and reads
        everything. Raises StorageError, RegistryRefused."""
        from .search import index
        from .signed.bundle import verify_bundle
        from .signed.check import verify_store
        from .signed.errors import Refused
        from .signed.fetching import Unreachable

        dropped = []
        hub = self.hub
        if hub is not None:
            if not hub.store.db.check():
                self._listing, self._looked_at = None, 0.0
            dropped = [f"the stored collection {name}" for name in verify_store(hub.store, on_models=index)]
            if dropped:
                self.note = f"{', '.join(dropped)} was damaged, and is fetched anew"
                self._listing, self._looked_at = None, 0.0
        if (root := self._shipped_root()) is not None:
            try:
                verify_bundle(self._packaged, root)
            except (Refused, Unreachable) as error:
                self.note = f"the list shipped with the program is not the one that was signed: {error}"
                dropped.append("the list shipped with the program")
                self._bundled = self._bundle = None
                self._bundle_failed = True
        return dropped

    def close(self) -> None:
        if self._hub is not None:
            self._hub.store.close()

    def _hub_or_note(self) -> Hub | None:
        try:
            return self.hub
        except JanError as error:
            self._noted(error.message)
            return None

    def _look(self, hub: Hub) -> None:
        """Make a new listing where the store's state is another one than the listing's."""
        try:
            states = states_of(hub.store)
            held = self._listing
            origin = "network" if self._confirmed else "cache"
            if "models" not in states or self._shipped_is_newer(hub, states["models"].seq):
                listing = None
            elif held is not None and held.states == states and held.origin == origin:
                listing = held
            elif held is not None and held.holds(states):
                listing = held.confirmed(states, origin)  # type: ignore[arg-type]
            else:
                listing = SignedListing(hub.store, states, origin, hub.url)  # type: ignore[arg-type]
        except StorageError as error:
            self._noted(f"the stored list cannot be used: {error.message}")
            listing = None
        if hub is self._hub:
            self._listing, self._looked_at = listing, time.monotonic()

    def _shipped_is_newer(self, hub: Hub, seq: int) -> bool:
        """Whether this release came with a later state of this hub than the one that is stored."""
        bundle = self.base(hub)
        state = bundle.state("models") if bundle is not None else None
        return state is not None and state.seq > seq

    def base(self, hub: Hub) -> Bundle | None:
        """What was shipped with the program, if it is of this hub: a sync may begin from there. Blocks."""
        if hub.root != self._shipped_root():
            return None
        if self._bundled is None:
            self._bundled = self._unpack()
        return self._bundle

    def _unpack(self) -> SignedListing | None:
        from .signed.bundle import read_bundle
        from .signed.errors import Refused

        if self._bundle_failed or not self._packaged.is_dir():
            return None
        try:
            self._bundle = bundle = read_bundle(self._packaged, now=time.time())
            return SignedListing(bundle, states_of(bundle), "bundle", "")
        except (Refused, OSError, ValueError) as error:
            self._noted(f"the list shipped with the program cannot be used: {error}")
            return None

    def _shipped_root(self) -> bytes | None:
        from .signed.bundle import shipped_root
        from .signed.errors import Refused

        try:
            return shipped_root(self._packaged)
        except Refused:
            return None

    def _noted(self, note: str) -> None:
        if note != self.note:
            self.note = note
            self._ctx.log.warning("%s", note)
