"""What the operating system says about the use of the processors: by everybody, and by this process.

Linux from /proc/stat. macOS (`host_statistics`, HOST_CPU_LOAD_INFO) and Windows (`GetSystemTimes`) are written from
their documentation and untested. A container's own share (cgroup quota) is in `quota`.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["Reading", "open_accounts", "parse_stat", "quota"]

_CGROUP_2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_1 = Path("/sys/fs/cgroup/cpu")


class Reading(NamedTuple):
    """A moment (monotonic seconds), and the CPU seconds spent until then by everybody and by this process.

    What has a lower priority than this process is not counted: it gives way.
    """

    now: float
    everybody: float
    own: float


def open_accounts() -> Callable[[], Reading] | None:
    """A way to read, quick enough to be used several times a second; None where there is none."""
    reader = {"linux": _linux, "darwin": _macos, "win32": _windows}.get(sys.platform)
    try:
        read = reader() if reader else None
        if read is not None:
            read()
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    return read


def quota() -> float | None:
    """Processors' worth of time that a control group allows this process; None: no limit."""
    try:
        used, _, period = _CGROUP_2.read_text().partition(" ")
    except OSError:
        try:
            used = (_CGROUP_1 / "cpu.cfs_quota_us").read_text()
            period = (_CGROUP_1 / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        return float(used) / float(period) if float(used) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max"
        return None


def parse_stat(text: str, cpus: frozenset[int] | None, *, nice: bool) -> int:
    """Ticks in which the processors `cpus` (None: all) did something, out of /proc/stat; `nice`: for niced
    processes, too.
    """
    busy = 0
    for line in text.splitlines():
        name, *fields = line.split()
        if not name.startswith("cpu"):
            break
        if (name == "cpu") if cpus is None else (name[3:].isdigit() and int(name[3:]) in cpus):
            user, niced, system, _idle, _wait, interrupts, soft, steal = (int(field) for field in fields[:8])
            busy += user + system + interrupts + soft + steal + (niced if nice else 0)
            if cpus is None:
                break
    return busy


def _own() -> float:
    times = os.times()
    return times.user + times.system


def _linux() -> Callable[[], Reading]:
    allowed = os.sched_getaffinity(0)
    cpus = None if len(allowed) == (os.cpu_count() or 1) else frozenset(allowed)
    nice = os.getpriority(os.PRIO_PROCESS, 0) > 0
    tick = os.sysconf("SC_CLK_TCK")
    descriptor = os.open("/proc/stat", os.O_RDONLY | os.O_CLOEXEC)
    size = 256 if cpus is None else 1 << 16

    def read() -> Reading:
        text = os.pread(descriptor, size, 0).decode("ascii", "replace")
        return Reading(time.monotonic(), parse_stat(text, cpus, nice=nice) / tick, _own())

    weakref.finalize(read, os.close, descriptor)
    return read


def _macos() -> Callable[[], Reading]:
    system = ctypes.CDLL("/usr/lib/libSystem.B.dylib")
    host = system.mach_host_self()
    tick = os.sysconf("SC_CLK_TCK")

    def read() -> Reading:
        ticks, count = (ctypes.c_uint32 * 4)(), ctypes.c_uint32(4)  # user, system, idle, nice
        if system.host_statistics(host, 3, ctypes.byref(ticks), ctypes.byref(count)) != 0:
            raise OSError("host_statistics")
        return Reading(time.monotonic(), (ticks[0] + ticks[1]) / tick, _own())

    return read


def _windows() -> Callable[[], Reading]:
    kernel = ctypes.CDLL("kernel32")  # its functions have one convention on 64-bit Windows

    def read() -> Reading:
        idle, system, user = ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_uint64()  # of 100 ns
        if not kernel.GetSystemTimes(ctypes.byref(idle), ctypes.byref(system), ctypes.byref(user)):
            raise OSError("GetSystemTimes")
        return Reading(time.monotonic(), (system.value + user.value - idle.value) / 1e7, _own())

    return read
