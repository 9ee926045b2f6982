"""Which list is served now: by the phase of the roll-out, from what this machine already has.

It picks and says why; what the lists are is `listing.py`, where they come from `catalogue.py`, and what is measured
of them `rollout/`.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass

import anyio
import anyio.to_thread

from jan_core import Context, RpcError
from jan_core.types import Evidence, ModelContext

from .catalogue import Catalogue
from .hub import Hub
from .listing import Listing, Nothing, SignedListing
from .machine import completed
from .rollout.phase import Effective, PhaseKeeper
from .sqlite import Database
from .targeting import Facts, facts_of

__all__ = ["PATIENCE", "Served", "Serving"]

PATIENCE = 1.0
"""Seconds that another extension's answer may take which a list is filtered by; then it is shown without."""


@dataclass(frozen=True, slots=True)
class Served:
    """A list, and the phase that chose it."""

    listing: Listing
    effective: Effective


class Serving:
    """One generation's choice. `local`: where this machine's own evidence lies."""

    def __init__(self, ctx: Context, catalogue: Catalogue, local: Database) -> None:
        from .flags.identity import install_id
        from .flags.policy import PolicyFile
        from .flags.precedence import FlagBoard

        self._ctx, self._catalogue = ctx, catalogue
        self._app_version: str | None = None
        self._consulted: object = None
        self._consulting = anyio.Lock()
        self._looked: tuple[Hub | None] | None = None
        self.flags = FlagBoard(
            policy=PolicyFile(),
            environment=os.environ,
            settings=lambda: catalogue.settings,
            signed=lambda: catalogue.flags,
            packaged=lambda: catalogue.shipped.flags if catalogue.shipped else None,
            facts=lambda: self.facts(ModelContext()),
            unit=lambda: install_id(local),
            looked=lambda: self._looked == (catalogue.named_hub,),
        )
        self.keeper = PhaseKeeper(self.flags, local, lambda: install_id(local))
        self.evidence = Evidence()

    def context(self, given: ModelContext) -> ModelContext:
        """For whom a list is shown: what the caller says, the rest from this machine and the person's settings."""
        return completed(given, region=self._catalogue.settings.region, app_version=self._app_version or "")

    def facts(self, given: ModelContext) -> Facts:
        return facts_of(self.context(given), self._catalogue.settings.region)

    async def served(self) -> Served:
        """The list of the phase that is in force. Reads a disk where something has changed, and never the network."""
        listing = await self._catalogue.dynamic()
        await self._catalogue.bundled()
        self._looked = (self._catalogue.named_hub,)
        await self._ask_around()
        effective = await self.effective()
        if effective.arm(listed=listing is not None) == "builtin":
            return Served(await self._catalogue.builtin(), effective)
        return Served(listing or SignedListing(Nothing(), {}, "cache", ""), effective)

    async def effective(self) -> Effective:
        """The phase in force."""
        if (known := self.keeper.peek(time.time())) is not None:
            return known
        return await anyio.to_thread.run_sync(self.keeper.effective, time.time())

    def reconsider(self) -> None:
        """Flags or evidence have changed: ask the extensions again when the list is read next."""
        self._consulted = None

    async def _ask_around(self) -> None:
        """Ask other extensions for their choice of phase, where they were not asked about these flags yet."""
        state = (self._catalogue.stored, self._catalogue.shipped)
        if self._consulted == state:
            return
        async with self._consulting:
            if self._consulted == state:
                return
            if self._app_version is None:
                self._app_version = ""
                with anyio.move_on_after(PATIENCE), contextlib.suppress(RpcError):
                    self._app_version = str((await self._ctx.call("system.info"))["version"])
                self.flags.look_again()
            await self.keeper.consult(self._ctx.hooks, self.evidence, time.time())
            self._consulted = state
