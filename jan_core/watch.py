"""Reloads extensions when their files change. On by a flag: for whoever edits them, not for whoever uses them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from .errors import JanError
from .events import Event, EventBus
from .extension import Extension

__all__ = ["Watcher"]

log = logging.getLogger(__name__)

STEP, DEBOUNCE = 10, 50
"""Milliseconds: how long to wait for a further change, and at most for a batch of them. watchfiles' own 50 and 1,600
cost a tenth of a second for each save; editors that save by renaming need some ten."""

SUFFIXES = (".py", ".toml")


class Watcher:
    """Watches the sources of `extensions()`; `reload` is called with each one that changed."""

    def __init__(
        self, extensions: Callable[[], Iterable[Extension]], reload: Callable[[Extension], Awaitable[object]]
    ) -> None:
        self._extensions, self._reload = extensions, reload
        self._reloading: set[asyncio.Task[None]] = set()
        self.ready = asyncio.Event()
        """Set while a change would be noticed."""

    async def run(self, bus: EventBus) -> None:
        """Watch until cancelled. The events on `bus` tell when there are others to watch."""
        while True:
            watching = list(self._extensions())
            anew = asyncio.Event()

            def heard(event: Event, watching: list[Extension] = watching, anew: asyncio.Event = anew) -> None:
                if event.name == "extensions.changed" and list(self._extensions()) != watching:
                    anew.set()

            with bus.subscribe(heard):
                try:
                    await self._watch(watching, anew)
                except* Exception as errors:  # out of inotify watches, a folder that vanished: the host goes on
                    text = "; ".join(map(str, errors.exceptions))
                    log.warning("changes of extensions are not noticed any more: %s; reload them by hand", text)
                    self.ready.clear()
                    await anew.wait()

    async def _watch(self, extensions: list[Extension], anew: asyncio.Event) -> None:
        owners = {path: extension for extension in extensions for path in extension.source.watched}
        folders = [path for path in owners if path.is_dir()]
        # Folders, for editors save by renaming; and those around them, for a whole one may go and come again (another
        # branch). They hold much that is none of ours: not deeply.
        beside = list({path.parent for path in owners if path.parent.is_dir()}.difference(folders))
        async with asyncio.TaskGroup() as group:
            if folders:
                group.create_task(self._follow(folders, owners, anew, deep=True))
            if beside:
                group.create_task(self._follow(beside, owners, anew, deep=False))
            self.ready.set()
            # What changed between two watches was seen by none: a reload of what is the same does nothing.
            self._take_up(e for e in owners.values() if e.current is not None)
            await anew.wait()
        self.ready.clear()

    async def _follow(
        self, folders: list[Path], owners: Mapping[Path, Extension], anew: asyncio.Event, *, deep: bool
    ) -> None:
        from watchfiles import Change, awatch

        def ours(change: Change, path: str) -> bool:
            return (path.endswith(SUFFIXES) and _owner(owners, path) is not None) or came(change, path)

        def came(change: Change, path: str) -> bool:
            """Whether a watched folder, or one around it, is there again: what watched it went with it."""
            folder = Path(path)
            return change is Change.added and any(folder in (o, *o.parents) for o in owners) and folder.is_dir()

        async for batch in awatch(
            *folders, step=STEP, debounce=DEBOUNCE, stop_event=anew, recursive=deep, watch_filter=ours
        ):
            self._take_up(_owner(owners, path) for _, path in batch)
            if any(came(*change) for change in batch):
                anew.set()

    def _take_up(self, extensions: Iterable[Extension | None]) -> None:
        for extension in {e for e in extensions if e is not None}:
            task = asyncio.create_task(self._try(extension), name=f"watch {extension.id}")
            self._reloading.add(task)
            task.add_done_callback(self._reloading.discard)

    async def _try(self, extension: Extension) -> None:
        try:
            await self._reload(extension)
        except JanError as error:
            log.debug("%s: %s", extension.id, error)  # on the record, announced and logged by the reload itself


def _owner(owners: Mapping[Path, Extension], changed: str) -> Extension | None:
    path = Path(changed)
    return next((e for root, e in owners.items() if path == root or root in path.parents), None)
