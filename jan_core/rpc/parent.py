"""The death of the parent process, as something to wait for. Needed beside the end of input: a sibling of ours may hold
the other end of the pipe, and then that end never comes.

Linux has a descriptor for a process (pidfd), the BSDs and macOS an event queue that tells of one (kqueue); either can
be waited for like a pipe. Windows has a handle that a thread waits on. The parts for kqueue and for Windows are written
from their documentation and have not been run there. Not PR_SET_PDEATHSIG, which follows the thread that spawned us.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Sign", "sign", "watch"]


class Sign(Protocol):
    """Becomes readable when the parent has died."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class _Pidfd:
    """Linux 5.3: pidfd_open(2)."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.pidfd_open(pid)

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        os.close(self._descriptor)


def _kqueue(pid: int) -> Sign:
    """BSD, macOS: kqueue(2) with EVFILT_PROC. Its descriptor is readable once there is an event. Not run there."""
    kernel: Any = select  # the names exist on these systems only
    queue = kernel.kqueue()
    exits = kernel.kevent(
        pid,
        filter=kernel.KQ_FILTER_PROC,
        flags=kernel.KQ_EV_ADD | kernel.KQ_EV_ONESHOT,
        fflags=kernel.KQ_NOTE_EXIT,
    )
    try:
        queue.control([exits], 0)
    except OSError:
        queue.close()
        raise
    return queue  # type: ignore[no-any-return]


def sign() -> Sign | None:
    """A sign of the parent's death; None where the system gives none that can be waited for like a pipe.

    Raises ProcessLookupError when it is dead already.
    """
    parent = os.getppid()
    if hasattr(os, "pidfd_open"):
        make: Callable[[int], Sign] = _Pidfd
    elif hasattr(select, "kqueue"):
        make = _kqueue
    else:
        return None
    try:
        made = make(parent)
    except ProcessLookupError:
        raise
    except OSError:  # forbidden by a sandbox, or a kernel without it
        return None
    if os.getppid() != parent:  # it died between the two calls: the sign may be of somebody else
        made.close()
        raise ProcessLookupError(f"process {parent} is gone")
    return made


def watch(died: Callable[[], None]) -> None:
    """Call `died` when the parent dies, from a thread that needs no event loop; at once when it is dead already.

    On Windows, too. Where nothing tells of it, `died` is never called.
    """

    def wait() -> None:
        if _died():
            died()

    threading.Thread(target=wait, name="parent", daemon=True).start()


def _died() -> bool:
    if sys.platform == "win32":
        return _wait_on_windows(os.getppid())
    try:
        found = sign()
    except ProcessLookupError:
        return True
    if found is None:
        return False
    signs = select.poll()
    signs.register(found.fileno(), select.POLLIN)
    signs.poll()
    found.close()
    return True


def _wait_on_windows(pid: int) -> bool:
    """Wait until the process ends; False when that cannot be known. Not run there.

    Windows keeps the number of a parent that has gone, and may have given it to somebody else: a parent is older than
    its child, so one that was made after us is a stranger.
    """
    if sys.platform != "win32":
        return False
    import ctypes
    from ctypes import wintypes

    synchronize, query, forever = 0x0010_0000, 0x1000, 0xFFFF_FFFF
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.OpenProcess.restype = kernel.GetCurrentProcess.restype = wintypes.HANDLE
    kernel.OpenProcess.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
    kernel.WaitForSingleObject.argtypes = (wintypes.HANDLE, wintypes.DWORD)
    kernel.GetProcessTimes.argtypes = (wintypes.HANDLE, *[ctypes.POINTER(wintypes.FILETIME)] * 4)
    kernel.CloseHandle.argtypes = (wintypes.HANDLE,)

    def made(process: Any) -> int:
        times = [wintypes.FILETIME() for _ in range(4)]
        if not kernel.GetProcessTimes(process, *(ctypes.byref(t) for t in times)):
            return 0
        return int(times[0].dwHighDateTime) << 32 | int(times[0].dwLowDateTime)

    parent = kernel.OpenProcess(synchronize | query, False, pid)
    if not parent:
        return ctypes.get_last_error() == 87  # ERROR_INVALID_PARAMETER: there is no such process
    try:
        if made(parent) > made(kernel.GetCurrentProcess()):
            return True
        return bool(kernel.WaitForSingleObject(parent, forever) == 0)
    finally:
        kernel.CloseHandle(parent)
