"""The methods `registry.sources` and `registry.browse`: other hubs, asked only when somebody names one.

What they answer is theirs: it is not part of the registry's own list, and counts for as much as the hub does.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import Struct

from jan_core import Context, Empty, InvalidParams, method
from jan_core.types import ModelSource, SourcePage, SourceQuery

from ..settings import SourceSetting
from .base import known_sources, open_hub
from .errors import HubInvalid, HubRefused, HubUnreachable

if TYPE_CHECKING:
    from ..sqlite import Database
    from .base import HubClient
    from .http import Http
    from .transfer import Admit

__all__ = ["HubMethods", "SourceList"]

BROWSE = "registry.browse"
_MAX_TEXT, _MAX_CURSOR = 1000, 4096


class SourceList(Struct):
    """The hubs that can be browsed. One is `verified` when what it answers is signed by whom the settings trust."""

    sources: list[ModelSource]


class HubMethods:
    """Handlers. `start` comes before any call."""

    _ctx: Context
    _database: Database
    _admit: Admit

    def start(self, ctx: Context, database: Database, admit: Admit) -> None:
        """`database`: that of `local.py`. `admit` may veto each use of the network. Nothing is opened yet."""
        self._ctx = ctx
        self._database, self._admit = database, admit

    def named(self) -> list[ModelSource]:
        """What `jan_model_sources` answers."""
        return [
            ModelSource(setting.id, setting.title or setting.id, BROWSE, verified=_signed(setting))
            for setting in self.known().values()
        ]

    @method("registry.sources")
    async def sources(self, params: Empty) -> SourceList:
        """List the hubs that can be browsed: those known by name, those the settings name, and other extensions'."""
        found = {source.id: source for source in self.named()}
        for outcome in (await self._ctx.hooks.model_sources()).outcomes:
            for source in outcome.value or []:
                found.setdefault(source.id, source)
        return SourceList(list(found.values()))

    @method(BROWSE, errors=[HubUnreachable, HubRefused, HubInvalid])
    async def browse(self, params: SourceQuery) -> SourcePage:
        """Ask a hub for its models: all, those with the words of `text`, or the one with this `id`.

        What it said lately is answered from what is kept; what it said longer ago too, while it is asked anew.
        """
        for name, limit in (("text", _MAX_TEXT), ("id", _MAX_TEXT), ("cursor", _MAX_CURSOR)):
            if len(getattr(params, name)) > limit:
                raise InvalidParams(f"{name} is longer than {limit} characters", path=f"$.{name}")
        setting = self.known().get(params.source)
        if setting is not None:
            return await self.open(setting).page(params)
        others = (await self.sources(Empty())).sources
        for source in others:
            if source.id == params.source and source.method != BROWSE:
                return await self._ctx.call(source.method, params, result=SourcePage)
        known = ", ".join(source.id for source in others)
        raise InvalidParams(f"no source {params.source[:100]!r} is known, only {known}", path="$.source")

    def open(self, setting: SourceSetting) -> HubClient:
        """The client of a hub, for whoever reads more of it than one page."""
        return open_hub(setting, self._http)

    @cached_property
    def _http(self) -> Http:
        from .http import Http

        ctx = self._ctx
        return Http(ctx, self._database, admit=self._admit, timeout=lambda: float(ctx.settings.timeout_seconds))

    def known(self) -> dict[str, SourceSetting]:
        """The sources by id. The settings' come first: they may put a mirror in the place of a hub known by name."""
        return {setting.id: setting for setting in (*known_sources(), *reversed(self._ctx.settings.sources))}


def _signed(setting: SourceSetting) -> bool:
    return setting.kind == "hub" or "root_hash" in setting.options
