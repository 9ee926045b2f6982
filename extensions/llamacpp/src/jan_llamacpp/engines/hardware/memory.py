"""How much memory this machine has and how much can be had now, within what a container or a service may take."""

from __future__ import annotations

import re

from msgspec import Struct

from .tools import Answers, Command, Tools

__all__ = ["Memory", "commands", "cpu_quota", "find", "parse_meminfo", "parse_vm_stat", "within_cgroups"]

_SYSCTL: Command = ("sysctl", "hw.memsize")
_VM_STAT: Command = ("vm_stat",)
_MOUNT = "/sys/fs/cgroup"
_PARENTS = 32  # deeper than any hierarchy made by a service manager


class Memory(Struct, frozen=True):
    """In bytes; `free` is what can be had without swapping. 0: not told."""

    total: int
    free: int


def commands(tools: Tools) -> list[Command]:
    """What `find` needs answers to."""
    return [_SYSCTL, _VM_STAT] if tools.platform == "darwin" else []


def find(tools: Tools, answers: Answers) -> Memory:
    """This machine's memory."""
    if tools.platform == "linux":
        return within_cgroups(tools, parse_meminfo(tools.read("/proc/meminfo")))
    if tools.platform == "darwin":
        size = re.search(r"^hw\.memsize: (\d+)", answers[_SYSCTL].output, re.MULTILINE)
        total = int(size[1]) if size else 0
        return Memory(total, min(total, parse_vm_stat(answers[_VM_STAT].output)))
    return _windows()


def parse_meminfo(text: str) -> Memory:
    """/proc/meminfo (proc_meminfo(5)). Kernels before 3.14 have no MemAvailable: then free and cached pages."""
    found = {key: int(number) * 1024 for key, number in re.findall(r"^(\w+):\s+(\d{1,18}) kB$", text, re.MULTILINE)}
    total = found.get("MemTotal", 0)
    free = found.get("MemAvailable", found.get("MemFree", 0) + found.get("Cached", 0))
    return Memory(total, min(free, total))


def parse_vm_stat(text: str) -> int:
    """Bytes that can be had on macOS: free, speculative and inactive pages of vm_stat(1)."""
    size = re.search(r"page size of (\d{1,9}) bytes", text)
    pages = re.findall(r"^Pages (?:free|speculative|inactive):\s+(\d{1,15})\.", text, re.MULTILINE)
    return sum(int(count) for count in pages) * (int(size[1]) if size else 4096)


def within_cgroups(tools: Tools, memory: Memory) -> Memory:
    """The same within the limits of every control group above this process (cgroup v2, else v1).

    Pages of files that were not used lately count to a group but are given up before it runs out, so they are free.
    """
    total, free = memory.total, memory.free
    for folder, limits, usage, reclaimable in _memory_groups(tools):
        told = [int(text) for name in limits if (text := tools.read(f"{folder}/{name}").strip()).isdecimal()]
        if not told or min(told) >= memory.total:
            continue
        limit = min(told)
        used = tools.read(f"{folder}/{usage}").strip()
        spare = re.search(rf"^{reclaimable} (\d+)$", tools.read(f"{folder}/memory.stat"), re.MULTILINE)
        taken = int(used) - (int(spare[1]) if spare else 0) if used.isdecimal() else 0
        total, free = min(total, limit), min(free, max(0, limit - max(0, taken)))
    return Memory(total, free)


def cpu_quota(tools: Tools) -> float:
    """The processors this process may use on average, by the quotas of its control groups; 0: as many as there are."""
    quotas: list[float] = []
    for folder in _folders(tools, "cpu"):
        words = tools.read(f"{folder}/cpu.max").split()
        if not words:
            words = [tools.read(f"{folder}/cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
        if len(words) == 2 and all(word.isdecimal() and int(word) for word in words):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=0.0)


def _memory_groups(tools: Tools) -> list[tuple[str, tuple[str, ...], str, str]]:
    """Folder, names of the limits, of the usage, and of what can be reclaimed."""
    v2 = ("memory.max", "memory.high"), "memory.current", "inactive_file"
    v1 = ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"
    return [(folder, *(v1 if folder.startswith(f"{_MOUNT}/memory") else v2)) for folder in _folders(tools, "memory")]


def _folders(tools: Tools, controller: str) -> list[str]:
    """The folders of this process's group and of those above it. In a container the group's path is often not there,
    and the root of the mount is the container's own.
    """
    path, root = "", _MOUNT
    for line in tools.read("/proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controller in controllers.split(","):
            # Debian's and systemd's mounts are named for their controllers, "cpu,cpuacct", with a link for each.
            path, root = group, f"{_MOUNT}/{controller}"
            break
        if not controllers:
            path = group
    parts = [part for part in path.split("/") if part not in ("", ".", "..")][:_PARENTS]
    return ["/".join([root, *parts[:count]]) for count in range(len(parts), -1, -1)]


def _windows() -> Memory:
    import sys

    if sys.platform != "win32":
        return Memory(0, 0)
    import ctypes

    class Status(ctypes.Structure):
        """MEMORYSTATUSEX of the Windows API."""

        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong), ("total", ctypes.c_ulonglong),
                    ("free", ctypes.c_ulonglong), ("rest", ctypes.c_ulonglong * 5)]  # fmt: skip

    status = Status(length=ctypes.sizeof(Status))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return Memory(0, 0)
    return Memory(int(status.total), int(status.free))
