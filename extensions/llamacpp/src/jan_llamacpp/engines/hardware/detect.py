"""What this machine is, put together: processor, memory, and the GPUs of every kind, or why there are none.

Told by the operating system and by the vendors' command-line tools alone: no engine is imported and no driver library
is loaded. Nothing is chosen here (`builds.py`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from msgspec.structs import replace

from jan_core.types import Device, Hardware

from . import amd, apple, container, cpu, libraries, memory, nvidia, pci, vulkan
from .tools import Answers, SystemTools, Tools, ask_all

__all__ = ["Detector", "detect"]

_OS = {"linux": "linux", "darwin": "macos", "win32": "windows"}
_MAKERS = {pci.NVIDIA: "NVIDIA", pci.AMD: "AMD"}


def detect(tools: Tools | None = None) -> Hardware:
    """This machine now. Never an exception: what could not be found out is empty, with the reason in `absent`.

    Takes about a millisecond where no GPU tool is installed, else as long as the slowest of them, within a limit.
    """
    tools = tools or SystemTools()
    asked = (cpu, memory, pci, nvidia, amd, vulkan, apple)
    answers = ask_all(tools, [command for each in asked for command in each.commands(tools)])
    hardware = _computer(tools, answers)
    here = memory.Memory(hardware.memory_total, hardware.memory_free)
    cards = pci.find(tools, answers)
    found = {
        "cuda": nvidia.find(tools, answers, cards),
        "rocm": amd.find(tools, answers, cards),
        "metal": apple.find(tools, answers, here),
    }
    others = [device for each in found.values() for device in (*each.devices, *each.hidden)]
    found["vulkan"] = vulkan.find(tools, answers, cards, others, here)
    devices = [_shared(device, here) for each in found.values() for device in each.devices]
    hardware.devices = devices
    hardware.absent = {kind: each.reason for kind, each in found.items() if not each.devices}
    hardware.warnings += [note for each in found.values() for note in each.notes]
    hardware.warnings += _unused(cards, devices, hardware.absent, hardware.container)
    if any(device.kind in ("cuda", "rocm") for device in devices):
        hardware.libraries = libraries.find(tools)
    return hardware


class Detector:
    """Detects again when what it knows is older than `max_age` seconds: drivers come and go, memory fills up."""

    def __init__(
        self,
        tools: Tools | None = None,
        *,
        max_age: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tools = tools
        self._max_age = max_age
        self._clock = clock
        self._lock = threading.Lock()
        self._known: tuple[float, Hardware] | None = None

    def hardware(self, *, fresh: bool = False) -> Hardware:
        """This machine; `fresh`: as it is now. Threads that ask at the same time wait for one detection."""
        asked = self._clock()
        with self._lock:
            known = self._known
            oldest = asked if fresh else asked - self._max_age
            if known is None or known[0] < oldest:
                self._known = known = (self._clock(), detect(self._tools))
            return known[1]


def _computer(tools: Tools, answers: Answers) -> Hardware:
    processor = cpu.find(tools, answers)
    here = memory.find(tools, answers)
    machine = cpu.architecture(tools.machine)
    quota = memory.cpu_quota(tools) if tools.platform == "linux" else 0.0
    threads = max(1, min(tools.threads, math.ceil(quota)) if quota else tools.threads)
    hardware = Hardware(
        os=_OS.get(tools.platform, tools.platform),
        arch=machine,
        cpu=processor.name or machine,
        cores=min(processor.cores or threads, threads),
        threads=threads,
        features=processor.features,
        memory_total=here.total,
        memory_free=here.free,
        container=container.find(tools),
    )
    if cpu.translated(answers):
        hardware.warnings.append(
            "This is a Python for Intel processors on Apple silicon: engines run many times slower; install with a "
            "Python for arm64"
        )
    return hardware


def _shared(device: Device, here: memory.Memory) -> Device:
    """A GPU that has no memory of its own uses the computer's."""
    if device.integrated and not device.memory_total:
        return replace(device, memory_total=here.total, memory_free=here.free)
    return device


def _unused(cards: list[pci.Card], devices: list[Device], absent: dict[str, str], container: str) -> list[str]:
    """GPUs that are in the machine while no driver that an engine could use speaks for them."""
    warnings = []
    for vendor, kind in ((pci.NVIDIA, "cuda"), (pci.AMD, "rocm")):
        maker = _MAKERS[vendor]
        mine = [card for card in cards if card.vendor == vendor and card.driver != "vfio-pci"]
        if kind not in absent:
            continue
        if not mine:
            if container == "wsl" and kind == "cuda" and absent[kind] != nvidia.NO_CARD:  # it shows no PCI bus
                warnings.append(f"The NVIDIA GPU of this computer cannot be used: {absent[kind]}")
            continue
        if vendor == pci.AMD and any(device.kind == "vulkan" and maker in device.name for device in devices):
            continue  # Vulkan is what most AMD cards are used with
        where = f" (PCI {mine[0].address})" if mine[0].address else ""
        what = f"{len(mine)} {maker} GPUs that cannot" if len(mine) > 1 else f"an {maker} GPU{where} that cannot"
        warnings.append(f"This machine has {what} be used: {_what_to_do(kind, absent[kind], container)}")
    return warnings


def _what_to_do(kind: str, reason: str, container: str) -> str:
    if container not in ("", "wsl") and "installed" in reason:
        if kind == "cuda":
            how = "with --gpus all, and the NVIDIA Container Toolkit on the host"
        else:
            how = "with --device /dev/kfd --device /dev/dri"
        return f"this container ({container}) was not given it, so start it {how}"
    return "install ROCm, or a Vulkan driver for it" if reason == amd.NOT_INSTALLED else reason
