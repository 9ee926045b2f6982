"""The methods about extensions: what there is, and switching, reloading and reading the log of one.

Installing and removing packages is in `install/`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from .errors import ExtensionNotFound, ExtensionUnavailable, ReloadFailed, RestartRequired, StorageError
from .extension import ExtensionInfo
from .methods import Call, Empty, method
from .reload import Reloaded

if TYPE_CHECKING:
    from .host import Host

__all__ = ["ExtensionMethods"]

FOLLOW_EVERY = 0.2
"""Seconds between two looks at the log: soon enough for a person who watches it."""


class ExtensionList(Struct):
    extensions: list[ExtensionInfo]


class ExtensionQuery(Struct, forbid_unknown_fields=True):
    """`id`: one of `extensions.list`."""

    id: str


class ReloadQuery(Struct, forbid_unknown_fields=True):
    """`force`: also when the source is what is being served."""

    id: str
    force: bool = False


class LogsQuery(Struct, forbid_unknown_fields=True):
    """`lines`: how many, at most. `follow`: go on with new ones, as stream items, until cancelled."""

    id: str
    lines: Annotated[int, Meta(ge=0, le=10_000)] = 100
    follow: bool = False


class Logs(Struct):
    """Lines of the log, oldest first."""

    lines: list[str]


class ExtensionMethods:
    """Bound to one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @method("extensions.list")
    def list_extensions(self, params: Empty) -> ExtensionList:
        """Every installed extension, its state, and what went wrong with it."""
        return ExtensionList([e.info() for e in self._host.lifecycle.extensions.values()])

    @method("extensions.enable", errors=[ExtensionNotFound, StorageError])
    async def enable(self, params: ExtensionQuery) -> ExtensionInfo:
        """Let an extension run, now and from now on. The way back for one that is disabled, failed or quarantined.

        Its source is read anew. Whether that went well stands in the answer: `state`, and `failure`.
        """
        extension = self._host.lifecycle.find(params.id)
        self._host.remember_disabled(extension.id, False)
        await self._host.lifecycle.enable(extension)
        return extension.info()

    @method("extensions.disable", errors=[ExtensionNotFound, StorageError])
    async def disable(self, params: ExtensionQuery) -> ExtensionInfo:
        """Switch an extension off, now and for the next start. Calls inside it may end first (`draining`)."""
        extension = self._host.lifecycle.find(params.id)
        self._host.remember_disabled(extension.id, True)
        await self._host.lifecycle.disable(extension)
        return extension.info()

    @method("extensions.reload", errors=[ExtensionNotFound, ExtensionUnavailable, ReloadFailed, RestartRequired])
    async def reload(self, params: ReloadQuery) -> Reloaded:
        """Serve what is on disk now. The old generation serves until the new one does, and for good when that fails."""
        if params.id == "core":
            raise RestartRequired("the core is not reloaded while it runs; restart the process")
        lifecycle = self._host.lifecycle
        return await lifecycle.reloads.reload(lifecycle.find(params.id), force=params.force)

    @method("extensions.rollback", errors=[ExtensionNotFound, ReloadFailed])
    async def rollback(self, params: ExtensionQuery) -> Reloaded:
        """Serve the code that served before the last reload, as a new generation, until the next reload."""
        lifecycle = self._host.lifecycle
        return await lifecycle.reloads.rollback(lifecycle.find(params.id))

    @method("extensions.logs", item=str, errors=[ExtensionNotFound, StorageError])
    async def logs(self, params: LogsQuery, call: Call) -> Logs:
        """What the log has about an extension: its own lines, and the host's about it."""
        from .logs import Follower, tail

        extension = self._host.lifecycle.find(params.id)
        where = self._host.data_dir, extension.source.id, extension.source.origin
        try:
            follower = Follower(*where)
            lines = await asyncio.to_thread(tail, *where, params.lines) if params.lines else []
            if not params.follow:
                return Logs(lines)
            while True:
                for line in lines:
                    await call.send(line)
                await asyncio.sleep(FOLLOW_EVERY)
                lines = follower.read()
        except OSError as error:
            raise StorageError(f"cannot read the log: {error.strerror}") from error
