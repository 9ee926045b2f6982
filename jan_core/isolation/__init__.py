"""Extensions in processes of their own: `isolation = "process"` in the manifest.

The extension runs in a child interpreter and is reached over the host's own channel: JSON-RPC, both ways, on two
private sockets. Nothing changes for it or for who calls it, but that only plain data crosses. A crash, a hang, a leak
or `os._exit` costs the calls that are inside; each is answered, and the process is started again.

    starter     starts a process and has it import the extension        (worker thread)
    process     one child process: its descriptors, its group, its end
    child       what runs in there: the extension, staged and kept by the host's own code
    house       what its context reaches into
    link        the asking end of a conversation; exchange: one request of it; windows: flow control of its streams
    caller      the host's methods over a link, for the child
    relay       what the host serves to the child: the extension's own context
    connection  both conversations with one child
    supervisor  keeps a process up: starts it again when it ended
    remote      the plugin object that stands for it in the host; typed: types made of its schemas

This is no sandbox: the child may do what the user may. It is a border for accidents, not for attackers. How it came
to be this way stands in `docs/decisions/0008`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..loader import Source
    from ..manifest import Manifest
    from ..package import Snapshot

__all__ = ["discard", "loading", "reading"]


def loading(source: Source, manifest: Manifest) -> Callable[[int, Snapshot | None], tuple[Any, Snapshot | None]]:
    """What stands in for `source.load` when the extension is isolated; see `loader.Source.load`. Raises StageError."""
    from ..extension import Failure
    from ..loader import PackageSource, StageError
    from .remote import RemotePlugin
    from .starter import Starter

    def load(number: int, snapshot: Snapshot | None) -> tuple[Any, Snapshot | None]:
        if not isinstance(source, PackageSource):
            text = "only a package can run in a process of its own, not an object that is at hand"
            raise StageError(Failure("process", "TypeError", text))
        if snapshot is None and (number > 1 or source.live):
            snapshot = reading(source)(None)
        starter = Starter(source, manifest, number, snapshot)
        return RemotePlugin(starter, starter.start()), snapshot or source.seen()

    return load


def reading(source: Source) -> Callable[[Snapshot | None], Snapshot | None]:
    """What stands in for `source.read` then: native code is no hindrance, for each process loads it anew. There is no
    snapshot of it, and the process imports what is on the disk."""
    from ..package import NativeCode

    def read(previous: Snapshot | None) -> Snapshot | None:
        try:
            return source.read(previous)
        except NativeCode:
            return None

    return read


def discard(plugin: Any) -> None:
    """End the process of a plugin that was staged and will not be activated, if it has one: now, and not when the
    garbage is collected."""
    from .remote import RemotePlugin

    if isinstance(plugin, RemotePlugin):
        plugin.discard()
