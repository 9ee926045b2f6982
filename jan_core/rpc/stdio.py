"""Moves bytes between a client and a `Peer` over standard input and output, and ends with them.

`claim` takes file descriptors 0 and 1 away from everybody else before any extension is imported: the wire runs on
private duplicates, so neither `print()` nor C code nor a child process can write into it or read from it.

Two transports behind one interface: on POSIX with a pipe or socket, the event loop's own readers and writers on
non-blocking descriptors; elsewhere (files, terminals, Windows) a reader and a writer thread. The Windows parts are
written from documentation and have not been run there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
from collections.abc import Callable

from ..invoke import Service
from .peer import Peer
from .transports import LoopTransport, ThreadTransport

__all__ = ["claim", "serve"]

GRACE = 0.5
"""Seconds to flush the last answers to a client that has stopped sending. One that does not read either is left
behind."""

_claimed = False


def claim() -> tuple[int, int]:
    """Take stdin and stdout for the wire; returns private descriptors (read, write).

    Afterwards fd 0 is the null device and fd 1 is standard error. Raises RuntimeError when called twice.
    """
    global _claimed
    if _claimed:
        raise RuntimeError("stdin and stdout are claimed already")
    _claimed = True
    sys.stdout.flush()
    read, write = _private(0), _private(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    if sys.platform == "win32":
        _rebind_handles()
    # Text layers opened at start still point at fd 0 and 1, which is now where stray output should go.
    return read, write


def _private(fd: int) -> int:
    if sys.platform == "win32":
        return os.dup(fd)
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _rebind_handles() -> None:
    """dup2 changes the C runtime's table only; native code asks Windows for the standard handles."""
    if sys.platform == "win32":
        import ctypes
        import msvcrt

        for number, fd in ((-10, 0), (-11, 1)):
            ctypes.windll.kernel32.SetStdHandle(number, msvcrt.get_osfhandle(fd))


async def serve(service: Service, read: int, write: int) -> Peer:
    """Serve one client until `exit`, end of input, the client's death, or a broken pipe. Returns the closed peer."""
    closed: Callable[[], None] = lambda: peer.closed.set()  # noqa: E731 (named for what it is)
    transport: LoopTransport | ThreadTransport
    if sys.platform != "win32" and _pollable(read) and _pollable(write):
        transport = LoopTransport(read, write, closed)
    else:
        transport = ThreadTransport(read, write, closed)
    peer = Peer(service, transport)
    watch = _watch_parent(peer.closed)
    transport.start(peer.feed)
    try:
        await peer.closed.wait()
    finally:
        transport.stop_reading()
        with contextlib.suppress(Exception):
            await peer.aclose()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await transport.flushed()
        transport.close()
        watch()
    return peer


def _pollable(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _watch_parent(closed: asyncio.Event) -> Callable[[], None]:
    """Set `closed` when the parent dies. Needed beside end of input: a sibling may hold the other end of the pipe.

    Linux: a pidfd. Not PR_SET_PDEATHSIG, which follows the spawning thread. Elsewhere end of input has to do for now.
    """
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return lambda: None
    parent = os.getppid()
    try:
        fd = os.pidfd_open(parent)
    except OSError:
        return lambda: None
    if os.getppid() != parent:  # died between the two calls: the pidfd may be somebody else's
        closed.set()
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, closed.set)

    def stop() -> None:
        loop.remove_reader(fd)
        os.close(fd)

    return stop
