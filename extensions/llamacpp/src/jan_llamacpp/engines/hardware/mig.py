"""MIG: cards that are cut into instances, of which an engine uses one.

NVIDIA's MIG user guide, "CUDA Device Enumeration": before driver 570 a process sees one instance, and no whole GPU
beside it; from then on one of each GPU instance, and whole GPUs. llama.cpp takes devices at one place on the bus for
the same, as instances of a card are: it uses the first of each card.
"""

from __future__ import annotations

import re

from msgspec.structs import replace

from jan_core.types import Device

from .found import Found, listed

__all__ = ["card_name", "is_instance", "name", "parse_listing", "usable"]

_SEVERAL = 570  # the first branch of drivers that shows more than one


def name(card: Device, index: str) -> str:
    """An instance's."""
    return f"{card.name} MIG {index}"


def card_name(device: Device) -> str:
    """That of the card this is, or is a part of."""
    return device.name.rpartition(" MIG ")[0] if is_instance(device) else device.name


def is_instance(device: Device) -> bool:
    """Whether this is a part of a card: `GPU-<uuid>/<GPU instance>/<compute instance>`."""
    return "/" in device.id


def parse_listing(text: str) -> dict[tuple[str, str], str]:
    """`nvidia-smi -L`: the UUIDs of instances, by the UUID of their card and their number on it."""
    uuids: dict[tuple[str, str], str] = {}
    card = ""
    for line in text.splitlines():
        if match := re.fullmatch(r"GPU \d{1,6}: .*\(UUID: (GPU-[0-9A-Fa-f-]{1,64})\)\s*", line):
            card = match[1]
        elif match := re.fullmatch(r"\s+MIG .*Device +(\d{1,6}): \(UUID: (MIG-[0-9A-Fa-f-]{1,64})\)\s*", line):
            uuids[card, match[1]] = match[2]
    return uuids


def usable(found: Found) -> Found:
    """What llama.cpp uses of these devices; the others become hidden."""
    instances = [device for device in found.devices if is_instance(device)]
    if not instances:
        return found
    branch = re.match(r"\d{1,6}", instances[0].driver)
    if branch and int(branch[0]) >= _SEVERAL:
        first: dict[str, Device] = {}
        for device in found.devices:
            first.setdefault(device.id.partition("/")[0], device)
        used, why = list(first.values()), "llama.cpp uses one MIG instance of a card"
    else:
        used, why = instances[:1], f"before driver {_SEVERAL} CUDA shows a process one MIG instance and nothing else"
    left = [device for device in found.devices if device not in used]
    if not left:
        return found
    note = f"{why}; not used: {listed(left, found.devices)} (CUDA_VISIBLE_DEVICES=MIG-… chooses another)"
    return replace(found, devices=used, hidden=[*found.hidden, *left], notes=[*found.notes, note])
