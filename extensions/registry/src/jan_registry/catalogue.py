"""The read path: memory, then SQLite, then the built-in list. It never waits for the network."""

from __future__ import annotations

import time

import anyio
import anyio.to_thread
from msgspec import Struct
from msgspec.structs import replace

from jan_core import Context, StorageError
from jan_core.types import ModelRecord

from .cache import Cache, CachedList
from .document import Document, DocumentError, read
from .settings import RegistrySettings
from .shapes import UNVERIFIED, Origin, Provenance, Skipped, rfc3339

__all__ = ["Catalogue", "Listing"]


class Listing(Struct):
    """A list that is served, and where it came from. Replaced as a whole, never changed in place."""

    models: list[ModelRecord]
    origin: Origin
    url: str = ""
    digest: str = ""
    etag: str = ""
    last_modified: str = ""
    fetched_at: float = 0.0
    checked_at: float = 0.0
    skipped: list[Skipped] = []

    def get(self, model_id: str) -> ModelRecord | None:
        return next((model for model in self.models if model.id == model_id), None)

    def provenance(self) -> Provenance:
        """Where this list comes from, with its age now."""
        if self.origin == "builtin":
            return Provenance("builtin")
        return Provenance(
            origin=self.origin,
            source=self.url,
            fetched_at=rfc3339(self.fetched_at),
            age=round(max(0.0, time.time() - self.checked_at), 3),
            digest=self.digest,
            verification="unverified",
            note=UNVERIFIED,
        )

    @classmethod
    def of(cls, document: Document, entry: CachedList, origin: Origin) -> Listing:
        return cls(
            models=document.models,
            origin=origin,
            url=entry.url,
            digest=entry.digest,
            etag=entry.etag,
            last_modified=entry.last_modified,
            fetched_at=entry.fetched_at,
            checked_at=entry.checked_at,
            skipped=document.skipped,
        )


class Catalogue:
    """Finds the list to serve. The dynamic list is that of the source the settings name now, and of no other."""

    def __init__(self, ctx: Context) -> None:
        self.cache = Cache(ctx.data_dir / "registry.db")
        self.note = ""
        self._ctx = ctx
        self._held: dict[str, Listing | None] = {}
        self._loading = anyio.Lock()

    @property
    def settings(self) -> RegistrySettings:
        settings: RegistrySettings = self._ctx.settings
        return settings

    async def served(self) -> Listing:
        """The list to show: the last valid one of the source, else the built-in one."""
        return await self.dynamic(self.settings.url) or await self.builtin()

    async def dynamic(self, url: str) -> Listing | None:
        """The last valid list of a source, from memory or from the cache; None when there is none."""
        if not url:
            return None
        if url not in self._held:
            async with self._loading:
                if url not in self._held:
                    self._held = {url: await anyio.to_thread.run_sync(self._load, url)}
        return self._held[url]

    async def builtin(self) -> Listing:
        """What the program itself and its extensions bring along; the first of two with one id counts."""
        models: dict[str, ModelRecord] = {}
        for outcome in (await self._ctx.hooks.builtin_models()).outcomes:
            for model in outcome.value or []:
                source = model.source or outcome.extension
                models.setdefault(model.id, replace(model, source=source, verification="builtin"))
        return Listing(list(models.values()), "builtin")

    def hold(self, listing: Listing) -> None:
        """Serve a list that was just fetched or confirmed."""
        self._held = {listing.url: listing}

    def _load(self, url: str) -> Listing | None:
        try:
            entry = self.cache.load(url)
            return Listing.of(read(entry.body, url), entry, "cache") if entry is not None else None
        except (StorageError, DocumentError) as error:
            self.note = f"the cached list cannot be used: {error}"
            self._ctx.log.warning("%s", self.note)
            return None
