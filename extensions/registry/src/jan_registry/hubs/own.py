"""Another hub of our own kind beside the one the list comes from: verified, with a store and a root of its own.

What it answers is `verified`, by the keys that its root names; it has no part in the list, its phases or its flags.
Asked again after a quarter of an hour; where that fails, what was verified before is answered, as `stale`, however
old it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import anyio.to_thread

from jan_core import InvalidParams
from jan_core.types import ModelRecord, SourcePage, SourceQuery

from ..collections.check import check
from ..convert import to_model
from ..errors import RegistryRefused
from ..hub import Hub, hub_of
from ..indexing import index
from ..revocations import Revocations, without_revoked
from ..search import find
from ..settings import RegistrySettings, SourceSetting
from ..signed.errors import Refused
from ..signed.fetching import TooLarge, Unreachable, fetcher
from ..signed.sync import sync
from .base import Capability, HubClient
from .errors import HubInvalid, HubRefused, HubUnreachable
from .http import Http
from .paging import few, place

__all__ = ["OwnHub"]

_FRESH = 900
"""Seconds for which what the hub said is not asked anew."""
_FOLDER = "sources"


class OwnHub(HubClient):
    """`options`: `root`, the path of the hub's first root metadata. Without it there is nobody to believe."""

    kind: ClassVar[str] = "hub"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"list", "search", "get", "pinned"})

    def __init__(self, setting: SourceSetting, http: Http) -> None:
        super().__init__(setting, http)
        if not setting.options.get("root"):
            raise InvalidParams(
                f"the source {setting.id!r} needs the option root: who signs this hub", path="$.sources"
            )

    async def answer(self, query: SourceQuery) -> SourcePage:
        offset = place(query.cursor)
        with self._opened() as hub:
            note = await self._brought_up(hub)
            return await anyio.to_thread.run_sync(self._page, hub, query, offset, note)

    @contextmanager
    def _opened(self) -> Iterator[Hub]:
        # Not below the list's own hubs: those that were not used for long are forgotten, and with them what was seen.
        folder = self.http.context.data_dir / _FOLDER
        try:
            hub = hub_of(RegistrySettings(url=self.url, root=self.setting.options["root"]), folder, None)
        except RegistryRefused as error:
            raise InvalidParams(f"the source {self.id!r}: {error.message}", path="$.sources") from None
        assert hub is not None
        try:
            yield hub
        finally:
            hub.store.close()

    async def _brought_up(self, hub: Hub) -> str:
        """Ask the hub when that is due. "" when the store holds what it says, else why it could not be asked.

        Raises HubUnreachable, HubRefused or HubInvalid where nothing was ever verified.
        """
        state = await anyio.to_thread.run_sync(hub.store.state, "models")
        if state is not None and 0 <= self.http.now() - state.checked_at < _FRESH:
            return ""
        key = str(hub.store.folder)
        if state is not None and self.http.failed_lately(key):
            return f"{self.title} could not be asked a moment ago"
        error: HubUnreachable | HubRefused | HubInvalid
        try:
            if not hub.url.startswith("file:"):
                await self.http.admit(hub.url)
            fetch = fetcher(hub.url, lambda: self.http.context.http, timeout=self.http.timeout)
            await anyio.to_thread.run_sync(
                lambda: sync(hub.store, fetch, hub.root, now=self.http.now, on_models=index), abandon_on_cancel=False
            )
            return ""
        except HubRefused as refused:
            error = refused
        except Unreachable as unreachable:
            error = HubUnreachable(
                f"{self.title}: {unreachable}", status=unreachable.status, retry_after=unreachable.retry_after
            )
        except (Refused, TooLarge) as refused:
            error = HubInvalid(f"{self.title}: what it sends is not believed: {refused}", source=self.id)
        self.http.failed(key)
        # Looked at again: one collection that is refused does not keep the others back.
        if await anyio.to_thread.run_sync(hub.store.state, "models") is None:
            raise error
        return error.message

    def _page(self, hub: Hub, query: SourceQuery, offset: int, note: str) -> SourcePage:
        limit = self.limit(query)
        ids = [query.id.casefold()]
        if not query.id:
            with hub.store.db.read() as db:
                ids, _ = find(db, query.text, limit + 1, offset)
        revocations = Revocations(hub.store.records("revocations"))
        models = [self._model(hub, id, revocations) for id in ids[:limit]]
        state = hub.store.state("models")
        age = max(0.0, self.http.now() - state.checked_at) if state else 0.0
        cursor = str(offset + limit) if len(ids) > limit else ""
        return SourcePage([m for m in models if m], cursor, few([note] if note else []), age, bool(note))

    def _model(self, hub: Hub, id: str, revocations: Revocations) -> ModelRecord | None:
        """One record; None for one that is revoked, or that may not be used: it is wrong, or newer than this
        program."""
        data = hub.store.get("models", id)
        if data is None:
            return None
        try:
            record = check("models", data)
        except ValueError:
            return None
        model = to_model(record, hub_url=hub.url, source=self.id, verification="verified")
        return without_revoked(model, revocations)
