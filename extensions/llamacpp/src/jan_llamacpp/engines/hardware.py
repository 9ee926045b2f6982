"""What this machine is, told by the operating system alone.

No engine is imported and no driver library is loaded. **GPUs are not detected yet**: `devices` is always an
empty list, which means "not looked for", not "there are none". Only builds that need no GPU are therefore
offered. Linux is read from /proc and the cgroup file system; macOS and Windows paths are written but
untested.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

from jan_core.types import Hardware

__all__ = ["detect"]

_OS = {"linux": "linux", "darwin": "macos", "win32": "windows"}
_ARCH = {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64", "armv8l": "arm64"}


def detect() -> Hardware:
    """This machine now. Memory in bytes; `memory_free` is what can be had without swapping. Takes about a
    millisecond.

    A container's memory limit (cgroup v2) lowers both memory figures. `threads` counts the logical processors
    this process may use, `cores` the physical ones among them where the system tells, else the same number.
    """
    machine = platform.machine().lower()
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if sys.platform == "linux":
        cpu, features, cores = parse_cpuinfo(_read("/proc/cpuinfo"))
        total, free = parse_meminfo(_read("/proc/meminfo"))
        total, free = _within_cgroup(total, free)
    elif sys.platform == "darwin":
        cpu, features, cores, total, free = _macos()
    else:
        cpu, features, cores = platform.processor(), [], 0
        total, free = _windows_memory()
    return Hardware(
        os=_OS.get(sys.platform, sys.platform),
        arch=_ARCH.get(machine, machine),
        cpu=cpu or machine,
        cores=min(cores or threads, threads),
        threads=threads,
        features=features,
        memory_total=total,
        memory_free=free,
    )


def parse_cpuinfo(text: str) -> tuple[str, list[str], int]:
    """Model name, sorted feature flags and number of physical cores out of /proc/cpuinfo (0 where it does not
    tell).
    """
    name, flags, cores = "", set[str](), set[tuple[str, str]]()
    package = core = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        key, value = key.strip(), value.strip()
        if key in ("model name", "Model") and not name:
            name = value
        elif key in ("flags", "Features") and not flags:
            flags = set(value.split())
        elif key == "physical id":
            package = value
        elif key == "core id":
            core = value
            cores.add((package, core))
    return name, sorted(flags), len(cores)


def parse_meminfo(text: str) -> tuple[int, int]:
    """Total and available bytes out of /proc/meminfo; 0 where a line is missing."""
    found = {
        key: int(number) * 1024
        for key, number in re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", text, re.MULTILINE)
    }
    return found.get("MemTotal", 0), found.get("MemAvailable", 0)


def _within_cgroup(total: int, free: int) -> tuple[int, int]:
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if not (limit.isdigit() and used.isdigit()):
        return total, free
    return min(total, int(limit)), min(free, max(0, int(limit) - int(used)))


def _macos() -> tuple[str, list[str], int, int, int]:
    import subprocess

    keys = ["machdep.cpu.brand_string", "hw.physicalcpu", "hw.memsize", "vm.page_free_count", "hw.pagesize"]
    try:
        shown = subprocess.run(["/usr/sbin/sysctl", *keys], capture_output=True, text=True, timeout=5).stdout
    except (OSError, subprocess.TimeoutExpired):
        shown = ""
    values = {key: value.strip() for key, _, value in (line.partition(":") for line in shown.splitlines())}

    def number(key: str) -> int:
        return int(values.get(key, "0") or 0)

    free = number("vm.page_free_count") * number("hw.pagesize")
    return values.get(keys[0], ""), [], number("hw.physicalcpu"), number("hw.memsize"), free


def _windows_memory() -> tuple[int, int]:
    if sys.platform != "win32":
        return 0, 0
    import ctypes

    class Status(ctypes.Structure):
        """MEMORYSTATUSEX of the Windows API."""

        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong), ("total", ctypes.c_ulonglong),
                    ("free", ctypes.c_ulonglong), ("rest", ctypes.c_ulonglong * 5)]  # fmt: skip

    status = Status(length=ctypes.sizeof(Status))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return 0, 0
    return int(status.total), int(status.free)


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", errors="replace")
    except OSError:
        return ""
