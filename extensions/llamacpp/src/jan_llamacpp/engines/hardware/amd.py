"""AMD cards with ROCm, as `rocminfo` (on Windows `hipInfo`) tells of them: architecture and memory.

The memory in use comes from the kernel driver's files, else from `rocm-smi` or its successor `amd-smi`. AMD cards
without ROCm are found through Vulkan. No driver library is loaded here. `rocminfo` shows what `ROCR_VISIBLE_DEVICES`
lets it, in that order, and `hipInfo` what HIP's variables do; `rocm-smi` and `amd-smi` know none of them.
"""

from __future__ import annotations

import json
import re
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from jan_core.types import Device

from .found import Found
from .pci import AMD, Card
from .tools import Answer, Answers, Command, Tools
from .visible import applied, by_hip, setting

__all__ = [
    "NOT_INSTALLED",
    "Agent",
    "card_memory",
    "commands",
    "find",
    "parse_amd_smi",
    "parse_hipinfo",
    "parse_rocm_smi",
    "parse_rocminfo",
    "reason_of",
]

_ROCMINFO: Command = ("rocminfo",)
_ROCM_SMI: Command = ("rocm-smi", "--showmeminfo", "vram", "--json")
_AMD_SMI: Command = ("amd-smi", "metric", "--mem-usage", "--json")
_HIPINFO: Command = ("hipInfo",)
_BUS = "/sys/bus/pci/devices"
_USAGE = ("total", "used")
NOT_INSTALLED = "ROCm is not installed"
_COMPLAINTS = [
    ("rock module is not loaded", "the amdgpu kernel driver is not loaded: install ROCm's driver and restart"),
    ("permission denied", "this user may not use the GPU: add it to the groups render and video, then log in anew"),
    ("not member of", "this user may not use the GPU: add it to the groups render and video, then log in anew"),
    ("unable to open /dev/kfd", "/dev/kfd cannot be opened; in a container: start it with "
     "--device /dev/kfd --device /dev/dri"),
    ("hsa_status_error_out_of_resources", "ROCm could not be started: /dev/kfd is missing or may not be used"),
]  # fmt: skip


class Agent(Struct, frozen=True):
    """One GPU of rocminfo. Memory in bytes; `address` on the PCI bus as in sysfs."""

    gfx: str
    name: str
    uuid: str
    memory: int
    address: str
    integrated: bool


def commands(tools: Tools) -> list[Command]:
    """What `find` needs answers to."""
    if tools.platform == "win32":
        return [_HIPINFO]
    return [_ROCMINFO, _ROCM_SMI, _AMD_SMI] if tools.platform == "linux" else []


def find(tools: Tools, answers: Answers, cards: list[Card]) -> Found:
    """The ROCm devices of this machine."""
    if tools.platform == "darwin":
        return Found([], "there is no ROCm on macOS")
    rocr, _ = _set(tools, "ROCR_VISIBLE_DEVICES")
    hip, value = _set(tools, "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
    there = sum(card.vendor == AMD for card in cards)
    if tools.platform == "win32":
        devices = parse_hipinfo(answers[_HIPINFO].output) if answers[_HIPINFO].ok else []
        return _told(answers[_HIPINFO], devices, hip, cards, there)
    agents = parse_rocminfo(answers[_ROCMINFO].output) if answers[_ROCMINFO].ok else []
    version = match[0] if (match := re.match(r"\d+(\.\d+)*", tools.read("/opt/rocm/.info/version"))) else ""
    told = parse_rocm_smi(answers[_ROCM_SMI].output) or parse_amd_smi(answers[_AMD_SMI].output)
    devices = []
    for index, agent in enumerate(agents):
        total, free = card_memory(tools, agent.address, shared=agent.integrated)
        if not total and len(told) == len(agents) and (len(told) == 1 or not rocr):
            total, free = told[index]  # they count alike only where they see the same cards
        device = Device("rocm", agent.name, total or agent.memory, free, runtime=version, id=agent.uuid)
        devices.append(replace(device, compute_capability=_overridden(tools, agent.gfx), integrated=agent.integrated))
    found = _told(answers[_ROCMINFO], devices, rocr, cards, max(there, len(told)))
    if not devices or not hip:
        return found
    seen = applied(devices, by_hip(value, [device.id for device in devices]), hip, "AMD GPU")
    return replace(seen, notes=[*found.notes, *seen.notes])


def parse_rocminfo(text: str) -> list[Agent]:
    """The GPU agents of `rocminfo`."""
    agents = []
    for block in re.split(r"^\*+\s*\nAgent \d+\s*\n\*+\s*$", text, flags=re.MULTILINE)[1:]:
        told = _pairs(block)
        gfx = told.get("Name", "")
        if told.get("Device Type") != "GPU" or not re.fullmatch(r"gfx[0-9a-f]{3,5}", gfx):
            continue
        sizes = [
            int(size) * 1024
            for size in re.findall(r"Segment: +GLOBAL; FLAGS: COARSE GRAINED\s+Size: +(\d{1,15})\(", block)
        ]
        number = re.match(r"\d{1,9}", told.get("BDFID", ""))
        domain = re.match(r"\d{1,6}", told.get("Domain", ""))
        uuid = told.get("Uuid", "")
        agents.append(
            Agent(
                gfx,
                told.get("Marketing Name", "") or f"AMD GPU ({gfx})",
                "" if uuid.endswith("-XX") else uuid,
                max(sizes, default=0),
                _address(int(number[0]), int(domain[0]) if domain else 0) if number else "",
                "APU" in told.get("Memory Properties", ""),
            )
        )
    return agents


def parse_hipinfo(text: str) -> list[Device]:
    """`hipInfo` of the HIP SDK for Windows."""
    devices = []
    for block in re.split(r"^device#", text, flags=re.MULTILINE)[1:]:
        told = _pairs(block)
        gfx = re.match(r"gfx[0-9a-f]{3,5}", told.get("gcnArchName", ""))
        if not gfx:
            continue
        total, free = _gigabytes(told.get("memInfo.total", "")), _gigabytes(told.get("memInfo.free", ""))
        total = total or _gigabytes(told.get("totalGlobalMem", ""))
        name = told.get("Name", "") or f"AMD GPU ({gfx[0]})"
        integrated = told.get("isIntegrated") == "1"
        devices.append(Device("rocm", name, total, min(free, total), compute_capability=gfx[0], integrated=integrated))
    return devices


def parse_rocm_smi(text: str) -> list[tuple[int, int]]:
    """Total and free bytes of each card, of `rocm-smi --showmeminfo vram --json`."""
    told = _json(text)
    cards = [told[key] for key in sorted(told, key=_card_number) if _card_number(key) >= 0]
    memory = []
    for card in cards:
        values = card if isinstance(card, dict) else {}
        total = _number(values.get("VRAM Total Memory (B)"))
        memory.append((total, max(0, total - _number(values.get("VRAM Total Used Memory (B)")))))
    return memory


def parse_amd_smi(text: str) -> list[tuple[int, int]]:
    """Total and free bytes of each GPU, of `amd-smi metric --mem-usage --json` (a list, since ROCm 7 inside an
    object).
    """
    told = _json(text)
    gpus = told.get("gpu_data", told.get("", []))
    memory = []
    for gpu in gpus if isinstance(gpus, list) else []:
        usage = gpu.get("mem_usage") if isinstance(gpu, dict) else None
        if not isinstance(usage, dict):
            continue
        total, used = (_quantity(usage.get(key)) for key in ("total_vram", "used_vram"))
        memory.append((total, max(0, total - used)))
    return memory


def card_memory(tools: Tools, address: str, *, shared: bool = False) -> tuple[int, int]:
    """Total and free bytes of a card by the amdgpu kernel driver. `shared`: also what it may take of the computer's."""
    total = free = 0
    for kind in ("vram", "gtt") if shared else ("vram",):
        size, used = (_number(tools.read(f"{_BUS}/{address}/mem_info_{kind}_{what}").strip()) for what in _USAGE)
        total, free = total + size, free + max(0, size - used)
    return total, free


def reason_of(answer: Answer) -> str:
    """Why rocminfo told of no device, in words that help."""
    if answer.problem:
        hangs = ": the driver hangs; restart the computer" if "no answer" in answer.problem else ""
        return answer.problem + hangs
    said = answer.text.lower()
    for words, meaning in _COMPLAINTS:
        if words in said:
            return meaning
    if answer.status:
        return f"ROCm failed (status {answer.status}): {answer.first_line or 'it said nothing'}"
    return "ROCm tells of no GPU that it supports"


def _told(answer: Answer, devices: list[Device], what: str, cards: list[Card], there: int) -> Found:
    """The devices of a tool that obeys the variable `what` itself, if it is not empty; `there` are so many cards."""
    if not devices:
        hides = answer.ok and what
        return Found([], f"ROCm tells of no GPU that {what} lets it use" if hides else _reason(answer, cards))
    notes = [f"with {what} ROCm tells of {len(devices)} of {there} AMD GPUs"] if what and len(devices) < there else []
    return Found(devices, "", [], notes)


def _set(tools: Tools, *names: str) -> tuple[str, str]:
    """The first of these variables that is set, as a person reads it, and its value; empty: none is."""
    return next(((setting(name, value), value) for name in names if (value := tools.env(name)) is not None), ("", ""))


def _reason(answer: Answer, cards: list[Card]) -> str:
    if answer.problem.endswith("is not installed"):
        has_card = any(card.vendor == AMD for card in cards)
        return NOT_INSTALLED if has_card else "no AMD GPU was found"
    return reason_of(answer)


def _overridden(tools: Tools, gfx: str) -> str:
    """ROCm's own way of treating a card as another: HSA_OVERRIDE_GFX_VERSION=10.3.0."""
    parts = re.fullmatch(r"(\d{1,2})\.(\d)\.(\d{1,2})", tools.env("HSA_OVERRIDE_GFX_VERSION") or "")
    return f"gfx{parts[1]}{parts[2]}{int(parts[3]):x}" if parts else gfx


def _pairs(block: str) -> dict[str, str]:
    """`Key:   value` lines; the first of a key counts (an agent's own name comes before those of its ISAs)."""
    pairs: dict[str, str] = {}
    for line in block.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            pairs.setdefault(key.strip(), value.strip())
    return pairs


def _address(number: int, domain: int) -> str:
    return f"{domain:04x}:{number >> 8 & 0xFF:02x}:{number >> 3 & 0x1F:02x}.{number & 7}"


def _json(text: str) -> dict[str, Any]:
    """The object in an output; a list is under the key ''. Both tools may print warnings before it."""
    starts = [index for index in (text.find("{"), text.find("[")) if index >= 0]
    for start in sorted(starts):
        try:
            told = json.loads(text[start:])
        except (ValueError, RecursionError):
            continue
        return told if isinstance(told, dict) else {"": told}
    return {}


def _card_number(key: str) -> int:
    match = re.fullmatch(r"card(\d{1,4})", key)
    return int(match[1]) if match else -1


def _number(value: object) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0


def _quantity(value: object) -> int:
    """`{"value": 24560, "unit": "MB"}`; AMD's MB are 2**20 bytes."""
    if not isinstance(value, dict):
        return 0
    unit = {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}.get(str(value.get("unit")), 0)
    return _number(value.get("value")) * unit


def _gigabytes(text: str) -> int:
    match = re.match(r"(\d{1,6}(?:[.,]\d{1,4})?) GB", text)
    return int(float(match[1].replace(",", ".")) * 2**30) if match else 0
