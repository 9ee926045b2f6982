"""An extension as the host keeps it: its manifest, its state, its generations, and what went wrong.

This is the record. What moves it from state to state is in `loader.py` and `lifecycle.py`.
"""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING

import msgspec

from .border import text_of
from .errors import ExtensionReloaded
from .manifest import Manifest
from .package import Snapshot, top

if TYPE_CHECKING:
    from .loader import Source
    from .methods import Method

__all__ = ["Extension", "ExtensionInfo", "Failure", "Generation", "Lease", "State"]


class State(StrEnum):
    """Where an extension is in its life. Closed: every extension is in exactly one of these."""

    DISCOVERED = "discovered"
    """Its manifest was read; nothing of it was imported."""
    STAGED = "staged"
    """Imported and being checked or activated; not reachable yet."""
    ACTIVE = "active"
    """Serving."""
    DRAINING = "draining"
    """Serving only calls that had begun."""
    RETIRED = "retired"
    """Ended cleanly, with the host."""
    DISABLED = "disabled"
    """Switched off by a person or by safe mode."""
    FAILED = "failed"
    """See `failure`."""
    QUARANTINED = "quarantined"
    """Switched off by the host after repeated failures."""


class Failure(msgspec.Struct, omit_defaults=True):
    """What went wrong, as data. `stage` is discover, manifest, compile, import, validate, settings, export, activate,
    restore, hook, task, process or deactivate; `file` and `line` point into the extension where that is known."""

    stage: str
    type: str
    message: str
    file: str = ""
    line: int = 0
    at: float = 0.0

    @classmethod
    def of(cls, stage: str, error: BaseException, package: str = "") -> Failure:
        """Describe an exception, pointing at the innermost line of its traceback, or its cause's: of `package`, where
        that is in it; never at the host's own code or the standard library's, which nobody is to mend.

        One that carries its `failure` was described in another process, where it was raised.
        """
        if isinstance(told := getattr(error, "failure", None), Failure):
            return msgspec.structs.replace(told, stage=stage)
        places = [*_places(error.__cause__), *_places(error)]
        _, file, line = next(
            (place for place in reversed(places) if place[0] == package), places[-1] if places else ("", "", 0)
        )
        text = text_of(error)
        if isinstance(error, SyntaxError) and error.filename:
            file, line, text = error.filename, error.lineno or 0, error.msg  # its text has the place in it already
        elif isinstance(error, ImportError) and error.path and hasattr(error, "lineno"):
            file, line = error.path, error.lineno
        return cls(stage, type(error).__name__, text, file, line, time.time())


def _places(error: BaseException | None) -> list[tuple[str, str, int]]:
    """Package, file and line of each step of a traceback that is somebody's own code."""
    return [
        (package, frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__ if error else None)
        if (package := top(frame.f_globals.get("__name__", ""))) != "jan_core"
        and package not in sys.stdlib_module_names
        and not frame.f_code.co_filename.startswith("<")
    ]


class Lease:
    """One call inside a generation: the generation lives while it is held.

    As a context manager it is held by the task that enters it; `Generation.lease(task)` holds it for another one, whose
    owner calls `release`. A revoked lease has cancelled its task; the call then ends with ExtensionReloaded.
    """

    __slots__ = ("_generation", "_left", "_task", "revoked")

    def __init__(
        self, generation: Generation, task: asyncio.Task[object] | None, left: Callable[[], None] | None = None
    ) -> None:
        self._generation, self._task, self._left = generation, task, left
        self.revoked = False
        if task is not None:
            generation.leases.add(self)

    def release(self) -> None:
        """The call is over. Any number of times."""
        self._generation.leases.discard(self)
        if not self._generation.leases:
            self._generation.idle()

    def revoke(self) -> None:
        """Cancel the call that is inside."""
        if not self.revoked and self._task is not None:
            self.revoked = True
            self._task.cancel()

    def leave(self) -> None:
        """Wait no longer for a revoked call that did not end: whoever asked is to be told now."""
        self.release()
        if self._left is not None:
            self._left()

    def reason(self) -> ExtensionReloaded:
        """Why a revoked call ended."""
        return ExtensionReloaded(
            f"{self._generation.name} was retired before this call had ended", extension=self._generation.extension
        )

    def __enter__(self) -> Lease:
        self._task = asyncio.current_task()
        self._generation.leases.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.release()
        # As asyncio.timeout does: the cancellation was ours, so it ends here, unless somebody else's came as well.
        if self.revoked and self._task is not None and self._task.uncancel() <= 0 and kind is asyncio.CancelledError:
            raise self.reason() from error


@dataclass(eq=False)
class Generation:
    """One import of an extension: its plugin object, its methods, and the calls that are inside it."""

    extension: str
    number: int
    plugin: object
    methods: list[Method] = field(default_factory=list)
    settings_type: type[msgspec.Struct] | None = None
    manifest: Manifest | None = None
    version: str = ""
    snapshot: Snapshot | None = None
    """What it was imported from."""
    failure: Failure | None = None
    """The last thing that went wrong in it, beside its hooks."""
    leases: set[Lease] = field(default_factory=set)
    drain_limit: float = 30.0
    """Seconds its running calls may take to end once it retires; they are revoked then, and its own tasks cancelled."""
    retiring: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to end it; see `live.live`."""
    retired: asyncio.Event = field(default_factory=asyncio.Event)
    _waiting: asyncio.Future[None] | None = None

    @property
    def name(self) -> str:
        """How this generation is called in logs and in pluggy: `id@g1`."""
        return f"{self.extension}@g{self.number}"

    def lease(self, task: asyncio.Task[object] | None = None, left: Callable[[], None] | None = None) -> Lease:
        """Keep this generation alive while a call is inside it: `with generation.lease():` in the task that calls, or
        for `task` until `release`. `left` is called when the task was cancelled for the generation's end and goes on.
        """
        return Lease(self, task, left)

    def idle(self) -> None:
        """No call is inside any more; told by the last lease."""
        self._settle()

    def hurry(self) -> None:
        """Wait no longer for the calls inside."""
        self.drain_limit = 0.0
        self._settle()

    def _settle(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def drained(self, limit: float) -> None:
        """Wait until no call is inside, for `limit` seconds at most. New calls must have been led elsewhere before."""
        if self.leases and limit > 0:
            self._waiting = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._waiting], timeout=limit)


@dataclass(eq=False)
class Extension:
    """One installed extension."""

    id: str
    source: Source
    manifest: Manifest | None = None
    version: str = ""
    state: State = State.DISCOVERED
    failure: Failure | None = None
    current: Generation | None = None
    draining: Generation | None = None
    """The one before, while calls are inside it. There is never a third."""
    generations: int = 0
    """How many were staged so far; the next one gets the next number."""
    activating: asyncio.Task[Generation] | None = None
    """The activation under way, which every caller that needs the extension waits for."""
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever brings a generation up or takes one out."""
    reloading: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the reload under way; the next one waits for it."""
    becoming: State = State.DISABLED
    """The state after DRAINING."""
    previous: Generation | None = None
    """The one that served before the current one: what it was made from is kept, for a way back."""
    leaks: list[str] = field(default_factory=list)
    """What retired generations left behind, the latest last."""

    @property
    def meant(self) -> State:
        """Its state, or the one it will be in once it has drained."""
        return self.becoming if self.state is State.DRAINING else self.state

    def fail(self, failure: Failure) -> None:
        self.state, self.failure = State.FAILED, failure

    def info(self) -> ExtensionInfo:
        """What `extensions.list` shows."""
        manifest = self.manifest
        return ExtensionInfo(
            id=self.id,
            version=self.version,
            state=self.state.value,
            generation=self.current.number if self.current else 0,
            package=self.source.origin,
            activation=manifest.activation if manifest else "",
            isolation=manifest.isolation if manifest else "none",
            permissions=manifest.permissions if manifest else [],
            methods=sorted(m.name for m in self.current.methods) if self.current else [],
            failure=self.failure,
            leaks=self.leaks,
        )


class ExtensionInfo(msgspec.Struct, omit_defaults=True):
    """One row of `extensions.list`. `generation` is 0 while nothing of it is loaded; `package` is what provides it;
    `leaks` are what retired generations left in the process."""

    id: str
    version: str
    state: str
    generation: int
    package: str = ""
    activation: str = ""
    isolation: str = "none"
    permissions: list[str] = []
    methods: list[str] = []
    failure: Failure | None = None
    leaks: list[str] = []
