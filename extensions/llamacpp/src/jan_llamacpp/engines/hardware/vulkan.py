"""GPUs that a Vulkan driver offers, as `vulkaninfo --summary` tells of them; no renderer on the processor counts.

`vulkaninfo` is rarely installed. On Linux the drivers' manifests then tell which of the cards on the PCI bus has a
Vulkan driver; whether it works is found out when the engine is checked. No Vulkan library is loaded here.
`GGML_VK_VISIBLE_DEVICES` is llama.cpp's own: vulkaninfo shows what it hides, so it is applied after.
"""

from __future__ import annotations

import re

from msgspec import Struct
from msgspec.structs import replace

from jan_core.types import Device

from .amd import card_memory
from .found import Found
from .memory import Memory
from .pci import AMD, INTEL, NVIDIA, Card
from .tools import Answer, Answers, Command, Tools
from .visible import applied, by_vulkan, setting

__all__ = ["Gpu", "commands", "find", "parse_summary"]

_SUMMARY: Command = ("vulkaninfo", "--summary")
_VISIBLE = "GGML_VK_VISIBLE_DEVICES"
_MANIFESTS = ("/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d")
_LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
# Drivers of the kernel, the names their Vulkan drivers' manifests begin with, and the maker.
_DRIVERS = {
    "amdgpu": (("radeon_icd", "amd_icd"), "AMD"),
    "i915": (("intel_icd",), "Intel"),
    "xe": (("intel_icd",), "Intel"),
    "nvidia": (("nvidia_icd",), "NVIDIA"),
}
_KINDS = {AMD: "rocm", NVIDIA: "cuda"}
_SOFTWARE = re.compile(r"llvmpipe|lavapipe|swiftshader|softpipe|basic render", re.IGNORECASE)
# Device ids of Intel's cards with memory of their own: Arc A and B series, Flex, Max.
_INTEL_CARDS = (range(0x5690, 0x56C4), range(0xE200, 0xE230), range(0x0BD0, 0x0BE6), range(0x4905, 0x490A))
_OWN_MEMORY = 3 * 2**30  # bytes; an AMD GPU inside a processor is rarely given more


class Gpu(Struct, frozen=True):
    """One device of the summary, renderers on the processor included."""

    name: str
    type: str
    api: str
    driver: str
    driver_id: str
    vendor: int
    device: int
    uuid: str


def commands(tools: Tools) -> list[Command]:
    """What `find` needs answers to."""
    return [] if tools.platform == "darwin" else [_SUMMARY]


def find(tools: Tools, answers: Answers, cards: list[Card], others: list[Device], memory: Memory) -> Found:
    """The Vulkan devices of this machine.

    `others`: devices found through their makers' tools; Vulkan's summary has no memory, so theirs is taken where the
    names agree. `memory`: the computer's, which an integrated GPU shares.
    """
    if tools.platform == "darwin":
        return Found([], "on macOS Metal is used")
    answer = answers[_SUMMARY]
    value = tools.env(_VISIBLE)
    if answer.problem == "vulkaninfo is not installed":
        found = _inferred(tools, cards, others, memory)
        return found if value is None or not found.devices else _guessed(found.devices, value)
    listed = parse_summary(answer.output)
    # What is named is taken: renderers on the processor as well, and a card by either of two drivers.
    seen = by_vulkan(value or "", len(listed))
    places = [*seen.places, *(place for place in _hardware(listed) if place not in seen.places)]
    devices = [_device(tools, listed[place], cards, others, memory) for place in places]
    if value is None or not devices:
        return Found(devices, "" if devices else _reason(answer, listed))
    named = replace(seen, places=list(range(len(seen.places))))
    return applied(devices, named, setting(_VISIBLE, value), "Vulkan device")


def parse_summary(text: str) -> list[Gpu]:
    """The devices of `vulkaninfo --summary`."""
    gpus = []
    for block in re.split(r"^GPU\d+:\s*$", text, flags=re.MULTILINE)[1:]:
        told = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in block.splitlines())}
        if not told.get("deviceName"):
            continue
        gpus.append(
            Gpu(
                told["deviceName"],
                told.get("deviceType", "").removeprefix("PHYSICAL_DEVICE_TYPE_"),
                _api(told.get("apiVersion", "")),
                told.get("driverInfo") or told.get("driverName", ""),
                told.get("driverID", ""),
                _hex(told.get("vendorID", "")),
                _hex(told.get("deviceID", "")),
                told.get("deviceUUID", ""),
            )
        )
    return gpus


def _hardware(listed: list[Gpu]) -> list[int]:
    """The places of the real GPUs, each once: the same card may be offered by two drivers (RADV and AMDVLK)."""
    kept: dict[str, int] = {}
    first: dict[tuple[int, int], str] = {}
    for place, gpu in enumerate(listed):
        if gpu.type not in ("DISCRETE_GPU", "INTEGRATED_GPU"):  # llama.cpp takes no others
            continue
        if _SOFTWARE.search(gpu.name) or gpu.driver_id == "DRIVER_ID_MESA_DOZEN":  # Vulkan over Direct3D 12, in WSL
            continue
        if first.setdefault((gpu.vendor, gpu.device), gpu.driver_id) == gpu.driver_id:
            kept.setdefault(gpu.uuid if gpu.uuid.strip("0-") else f"{place}", place)
    return list(kept.values())


def _device(tools: Tools, gpu: Gpu, cards: list[Card], others: list[Device], memory: Memory) -> Device:
    integrated = gpu.type != "DISCRETE_GPU"
    total = free = 0
    if integrated:
        total, free = memory.total, memory.free
    else:
        same = [other for other in others if other.name and other.name in gpu.name and other.memory_total]
        here = [card for card in cards if (card.vendor, card.device) == (gpu.vendor, gpu.device) and card.address]
        if same:
            total, free = same[0].memory_total, same[0].memory_free
        elif here and gpu.vendor == AMD:
            total, free = max((card_memory(tools, card.address) for card in here), key=lambda told: told[1])
    return Device(
        "vulkan", gpu.name, total, free, driver=gpu.driver, runtime=gpu.api, integrated=integrated, id=gpu.uuid
    )


def _reason(answer: Answer, listed: list[Gpu]) -> str:
    if answer.problem:
        return answer.problem
    if listed:
        return f"Vulkan offers no GPU, only {listed[0].name}"
    said = answer.text.lower()
    if "incompatible_driver" in said or "found no drivers" in said or "cannot create vulkan instance" in said:
        return "no Vulkan driver is installed for a GPU of this machine"
    return f"vulkaninfo told of no GPU: {answer.first_line or 'it said nothing'}"


def _inferred(tools: Tools, cards: list[Card], others: list[Device], memory: Memory) -> Found:
    if tools.platform != "linux":
        return Found([], "vulkaninfo is not installed (it comes with the GPU's driver or the Vulkan SDK)")
    cards = [card for card in cards if card.driver in _DRIVERS]
    if not cards:
        return Found([], "no GPU was found that Vulkan could use")
    if not any("libvulkan.so.1" in tools.names(folder) for folder in _LIBRARIES):
        return Found([], "the Vulkan loader (libvulkan.so.1) is not installed")
    manifests = [name for folder in _MANIFESTS for name in tools.names(folder)]
    devices = []
    for card in cards:
        names, maker = _DRIVERS[card.driver]
        if not any(manifest.startswith(names) for manifest in manifests):
            continue
        total, free = card_memory(tools, card.address) if card.vendor == AMD else (0, 0)
        integrated = {
            AMD: total < _OWN_MEMORY,
            INTEL: not any(card.device in ids for ids in _INTEL_CARDS),
            NVIDIA: False,
        }.get(card.vendor, True)
        if integrated:
            total, free = memory.total, memory.free
        name = f"{maker} GPU {card.vendor:04x}:{card.device:04x}"
        alike = [other for other in cards if other.vendor == card.vendor]
        told = [other for other in others if other.kind == _KINDS.get(card.vendor)]
        if len(alike) == len(told) == 1:  # the manifests have no names; its maker's tool has
            name, total, free, integrated = told[0].name, told[0].memory_total, told[0].memory_free, told[0].integrated
        devices.append(Device("vulkan", name, total, free, driver=card.driver, integrated=integrated, id=card.address))
    return Found(devices, "" if devices else "no Vulkan driver is installed for a GPU of this machine")


def _guessed(devices: list[Device], value: str) -> Found:
    """Those of `_inferred` that are named, as far as that can be told without Vulkan's own list."""
    what = setting(_VISIBLE, value)
    if any(place >= len(devices) for place in by_vulkan(value, 1 << 16).places):
        return Found([], f"which devices {what} names is told by vulkaninfo alone: install it", devices)
    found = applied(devices, by_vulkan(value, len(devices)), what, "Vulkan device")
    if found.devices and len(devices) > 1:
        note = f"which devices {what} names is told by vulkaninfo alone: that their order is that on the bus is a guess"
        return replace(found, notes=[*found.notes, note])
    return found


def _api(text: str) -> str:
    """`1.3.242`, or `4206834 (1.3.242)` of older releases."""
    match = re.search(r"\b\d{1,3}\.\d{1,3}\.\d{1,5}\b", text)
    return match[0] if match else ""


def _hex(text: str) -> int:
    match = re.fullmatch(r"0x([0-9A-Fa-f]{1,8})", text)
    return int(match[1], 16) if match else 0
