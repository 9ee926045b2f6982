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
from . import parent
from .peer import Peer
from .threads import ThreadTransport
from .transports import LoopTransport

__all__ = ["claim", "serve"]

GRACE = 0.5
"""Seconds to flush the last answers to a client that has stopped sending. One that does not read either is left
behind."""

_claimed = False


def claim() -> tuple[int, int]:
    """Take stdin and stdout for the wire; returns private descriptors (read, write).

    Afterwards fd 0 is the null device and fd 1 is standard error, which is the null device too where there was none.
    Raises RuntimeError when called twice, or when the process was started without stdin or stdout.
    """
    global _claimed
    if _claimed:
        raise RuntimeError("stdin and stdout are claimed already")
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        read, write = _private(0), _private(1)
    except OSError as error:
        raise RuntimeError("there is no standard input and output to speak on") from error
    _claimed = True
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    try:
        os.fstat(2)
    except OSError:
        os.dup2(null, 2)
    os.dup2(2, 1)
    if null > 2:
        os.close(null)
    if sys.platform == "win32":
        _rebind_handles(read, write)
    # Text layers opened at start still point at fd 0 and 1, which is now where stray output should go.
    return read, write


def _private(fd: int) -> int:
    if sys.platform == "win32":
        return os.dup(fd)  # not inheritable, as all that Python makes
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _rebind_handles(read: int, write: int) -> None:
    """dup2 changes the C runtime's table only; native code and children ask Windows for the standard handles.

    Not run there. Without it a child that inherits our stdin, on which a read is outstanding, hangs at its start.
    """
    if sys.platform == "win32":
        import ctypes
        import msvcrt
        from ctypes import wintypes

        for fd in (read, write):
            msvcrt.setmode(fd, os.O_BINARY)
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.SetStdHandle.argtypes = (wintypes.DWORD, wintypes.HANDLE)
        for number, fd in ((-10, 0), (-11, 1)):  # STD_INPUT_HANDLE, STD_OUTPUT_HANDLE
            kernel.SetStdHandle(number & 0xFFFF_FFFF, msvcrt.get_osfhandle(fd))


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
    """Set `closed` when the parent dies. Returns how to stop watching."""
    loop = asyncio.get_running_loop()
    if sys.platform == "win32":

        def died() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended before
                loop.call_soon_threadsafe(closed.set)

        parent.watch(died)
        return lambda: None
    try:
        sign = parent.sign()
    except ProcessLookupError:
        closed.set()
        return lambda: None
    if sign is None:
        return lambda: None
    loop.add_reader(sign.fileno(), closed.set)

    def stop() -> None:
        loop.remove_reader(sign.fileno())
        sign.close()

    return stop
