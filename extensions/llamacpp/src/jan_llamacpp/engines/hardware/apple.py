"""The GPUs of a Mac, as `system_profiler` tells of them: Metal, and memory shared with the computer or not."""

from __future__ import annotations

import json
import re

from jan_core.types import Device

from .found import Found
from .memory import Memory
from .tools import Answers, Command, Tools

__all__ = ["commands", "find", "parse_displays", "working_set"]

_DISPLAYS: Command = ("system_profiler", "SPDisplaysDataType", "-json")
_LIMIT: Command = ("sysctl", "iogpu.wired_limit_mb")
_FAMILY = re.compile(r"spdisplays_(?:mtlgpufamily|metal)(\w*)")


def commands(tools: Tools) -> list[Command]:
    """What `find` needs answers to."""
    return [_DISPLAYS, _LIMIT] if tools.platform == "darwin" else []


def find(tools: Tools, answers: Answers, memory: Memory) -> Found:
    """The Metal devices of this machine."""
    if tools.platform != "darwin":
        return Found([], "Metal exists on macOS only")
    answer = answers[_DISPLAYS]
    limit = re.search(r"^iogpu\.wired_limit_mb: (\d{1,9})$", answers[_LIMIT].output, re.MULTILINE)
    shared = working_set(memory.total, int(limit[1]) if limit else 0)
    devices = parse_displays(answer.output, Memory(shared, min(shared, memory.free)))
    if devices:
        return Found(devices)
    return Found(
        [], answer.problem or "system_profiler tells of no GPU with Metal (in a virtual machine there is none)"
    )


def parse_displays(text: str, shared: Memory) -> list[Device]:
    """The GPUs that Metal supports, of `system_profiler SPDisplaysDataType -json`. `shared`: the memory that a GPU
    without its own may use.
    """
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return []
    entries = told.get("SPDisplaysDataType") if isinstance(told, dict) else None
    devices = []
    for entry in entries if isinstance(entries, list) else []:
        said = {key: value for key, value in entry.items() if isinstance(value, str)} if isinstance(entry, dict) else {}
        # Names of the key, the newest first: macOS 13, 11, 10.14.
        keys = ("spdisplays_mtlgpufamilysupport", "spdisplays_metalfamily", "spdisplays_metal")
        metal = next((said[key] for key in keys if said.get(key)), "")
        if not metal or "notsupported" in metal.lower():
            continue
        name = said.get("sppci_model") or said.get("_name", "")
        own = _bytes(said.get("spdisplays_vram", ""))
        family = _FAMILY.match(metal)
        devices.append(
            Device(
                "metal",
                name or "GPU",
                own or shared.total,
                0 if own else shared.free,
                runtime=f"Metal {family[1]}".strip() if family else "Metal",
                integrated=not own,
            )
        )
    return devices


def working_set(total: int, limit_mb: int = 0) -> int:
    """Bytes of unified memory a GPU may hold: as set by a person (`iogpu.wired_limit_mb`), else macOS's
    recommendedMaxWorkingSetSize: two thirds of the memory up to 36 GiB, three quarters above.
    """
    if limit_mb:
        return min(limit_mb * 2**20, total)
    return total * 2 // 3 if total <= 36 * 2**30 else total * 3 // 4


def _bytes(text: str) -> int:
    """`8 GB`, `1536 MB`, `1,5 GB`."""
    match = re.fullmatch(r"(\d{1,6}(?:[.,]\d{1,3})?)\s*(MB|GB)", text)
    return int(float(match[1].replace(",", ".")) * (2**30 if match[2] == "GB" else 2**20)) if match else 0
