"""The two lists there are: the dynamic one (memory, verified SQLite, the snapshot shipped with the program), and the
built-in one. Neither ever waits for the network; which of them is served is decided elsewhere (`serving.py`)."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from msgspec.structs import replace

from jan_core import Context, JanError, StorageError
from jan_core.types import ModelRecord

from .guard import Guard
from .hub import Hub, hub_of
from .listing import BuiltinListing, Listing, SignedListing, states_of
from .revocations import Revocations
from .settings import RegistrySettings
from .shapes import Origin
from .signed.store import HubStore

if TYPE_CHECKING:
    from .flags.rules import FlagList
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
        self._stored: SignedListing | None = None
        self._guard: tuple[tuple[object, ...], Guard] | None = None
        self._kin = False
        self._swept = ""
        self._bundled: SignedListing | None = None
        self._bundle: Bundle | None = None
        self._confirmed = self._bundle_failed = False
        self._looked_at = 0.0
        self._loading, self._naming = anyio.Lock(), threading.Lock()
        self._left: list[HubStore] = []
        self._ending = threading.Event()

    @property
    def settings(self) -> RegistrySettings:
        settings: RegistrySettings = self._ctx.settings
        return settings

    @property
    def hub(self) -> Hub | None:
        """The hub the settings name now. Raises RegistryRefused when there is no root to trust."""
        settings = self.settings
        named = (settings.url, settings.root)
        with self._naming:  # the check in the background asks in a thread
            if named != self._named:
                if self._hub is not None:
                    self._left.append(self._hub.store)
                self._named = self._hub = self._listing = self._stored = None
                self._hub = hub_of(settings, self._ctx.data_dir, self._shipped_root())
                self._named, self._confirmed, self._looked_at = named, False, 0.0
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
    def stored(self) -> SignedListing | None:
        """All that is stored of the hub, also where its models are missing, or older than those that were shipped: what
        it revokes and its flags hold whichever list is shown, or a mirror could switch them off by withholding models.
        """
        return self._stored

    @property
    def flags(self) -> FlagList | None:
        """The hub's flags; None where there are none, or this release came with later ones of the same hub."""
        stored, shipped = self._stored, self._bundled
        if stored is None or (self._kin and shipped is not None and _seq(shipped, "flags") > _seq(stored, "flags")):
            return None
        return stored.flags

    async def guard(self, builtin: Callable[[], Awaitable[BuiltinListing | None]]) -> Guard:
        """What is revoked, whichever list is shown: what the hub revokes, and what the shipped list does.

        Of one hub the later state of the two holds alone, or what was revoked by mistake could never be allowed again.
        `builtin`: the list in the program's code, where that may be shown too; asked for when a model is revoked.
        """
        await self.dynamic()
        stored, shipped = self._stored, await self.bundled()
        lists: list[SignedListing] = [one for one in (stored, shipped) if one is not None]
        if stored is not None and shipped is not None and self._kin:
            lists = [max(lists, key=lambda one: _seq(one, "revocations"))]
        revocations = Revocations()
        for one in lists:
            revocations = revocations.joined(one.revocations) if len(lists) > 1 else one.revocations
        more = await builtin() if revocations.by_model else None
        key = (stored, shipped, tuple(model.id for model in more.models) if more else ())
        if self._guard is None or self._guard[0] != key:
            known: list[Listing] = [one for one in (stored, shipped, more) if one is not None]
            self._guard = key, Guard(revocations, known)
        return self._guard[1]

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
        from .indexing import index
        from .signed.bundle import verify_bundle
        from .signed.check import verify_store
        from .signed.errors import Refused
        from .signed.fetching import Unreachable

        dropped = []
        hub = self.hub
        if hub is not None and hub.store.db.writable():
            if not hub.store.db.check():
                self._listing = self._stored = None
                self._looked_at = 0.0
            dropped = [f"the stored collection {name}" for name in verify_store(hub.store, on_models=index)]
            if dropped:
                self.note = f"{', '.join(dropped)} was damaged, and is fetched anew"
                self._listing = self._stored = None
                self._looked_at = 0.0
        if (root := self._shipped_root()) is not None:
            try:
                verify_bundle(self._packaged, root)
            except (Refused, Unreachable) as error:
                self.note = f"the list shipped with the program is not the one that was signed: {error}"
                dropped.append("the list shipped with the program")
                self._bundled = self._bundle = None
                self._bundle_failed = True
        return dropped

    def sweep(self) -> None:
        """Look for models of the hub's that may not be used, once for each state, and take them out of the index.
        Blocks for long. Raises StorageError."""
        from .indexing import forget

        listing = self._listing
        if listing is None:
            return
        states = (listing.states[name] for name in ("models", "stats") if name in listing.states)
        if (state := " ".join(one.sha256 for one in states)) == self._swept:
            return
        unfit = listing.sweep(self._ending)
        if self._ending.is_set():
            return
        if unfit and self._hub is not None and listing is self._listing:
            with self._hub.store.db.write() as db:
                forget(db, unfit)
        self._swept = state

    def close(self) -> None:
        """Blocks until what is being written is written. What looks through a list in the background stops."""
        self._ending.set()
        self._close_left()
        if self._hub is not None:
            self._hub.store.close()

    def _close_left(self) -> None:
        """Close the stores of hubs that are named no more: in a thread, since one may be in the middle of a sync."""
        while self._left:
            self._left.pop().close()

    def _hub_or_note(self) -> Hub | None:
        try:
            return self.hub
        except JanError as error:
            self._noted(error.message)
            return None

    def _look(self, hub: Hub) -> None:
        """Make a new listing where the store's state is another one than the listing's."""
        self._close_left()
        try:
            states = states_of(hub.store)
            held = self._stored
            origin: Origin = "network" if self._confirmed else "cache"
            if not states:
                stored = None
            elif held is not None and held.states == states and held.origin == origin:
                stored = held
            elif held is not None and held.holds(states):
                stored = held.confirmed(states, origin)
            else:
                stored = SignedListing(hub.store, states, origin, hub.url)
        except StorageError as error:
            self._noted(f"the stored list cannot be used: {error.message}")
            states, stored = {}, None
        kin = self.base(hub) is not None
        shown = "models" in states and not self._shipped_is_newer(hub, states["models"].seq)
        if hub is self._hub:
            self._stored, self._kin, self._looked_at = stored, kin, time.monotonic()
            self._listing = stored if shown else None

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


def _seq(listing: SignedListing, name: str) -> int:
    """The publisher's count of a collection; -1 for one that is not there."""
    state = listing.states.get(name)
    return state.seq if state is not None else -1
