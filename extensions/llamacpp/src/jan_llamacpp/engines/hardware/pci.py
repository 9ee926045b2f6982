"""The display controllers on the PCI bus, whether a driver speaks for them or not: what GPUs are to be expected."""

from __future__ import annotations

import re

from msgspec import Struct

from .tools import Answers, Command, Tools

__all__ = ["AMD", "INTEL", "NVIDIA", "Card", "commands", "find", "parse_pnputil", "parse_uevent"]

NVIDIA, AMD, INTEL = 0x10DE, 0x1002, 0x8086
_BUS = "/sys/bus/pci/devices"
# /connected: cards that were taken out stay known to Windows. Its words are translated, the ids are not.
_PNPUTIL: Command = ("pnputil", "/enum-devices", "/connected", "/class", "Display")


class Card(Struct, frozen=True):
    """A display controller. `driver`: the kernel's, empty when none has it or the system does not tell. `address` as
    in `0000:01:00.0`.
    """

    vendor: int
    device: int
    driver: str = ""
    address: str = ""


def commands(tools: Tools) -> list[Command]:
    """What `find` needs answers to."""
    return [_PNPUTIL] if tools.platform == "win32" else []


def find(tools: Tools, answers: Answers) -> list[Card]:
    """The display controllers. On macOS always none: system_profiler tells the GPUs itself."""
    if tools.platform == "win32":
        return parse_pnputil(answers[_PNPUTIL].output)
    if tools.platform != "linux":
        return []
    cards = (parse_uevent(tools.read(f"{_BUS}/{address}/uevent"), address) for address in tools.names(_BUS))
    return [card for card in cards if card]


def parse_uevent(text: str, address: str) -> Card | None:
    """A device's `uevent` in sysfs; None when it is no display controller (class 03)."""
    told = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if not re.fullmatch(r"3[0-9A-Fa-f]{4}", told.get("PCI_CLASS", "")):
        return None
    ids = re.fullmatch(r"([0-9A-Fa-f]{4}):([0-9A-Fa-f]{4})", told.get("PCI_ID", ""))
    return Card(int(ids[1], 16), int(ids[2], 16), told.get("DRIVER", ""), address) if ids else None


def parse_pnputil(text: str) -> list[Card]:
    """`pnputil /enum-devices /class Display`: the ids of the instances."""
    found = re.findall(r"PCI\\VEN_([0-9A-Fa-f]{4})&DEV_([0-9A-Fa-f]{4})&\S*", text)
    return [Card(int(vendor, 16), int(device, 16)) for vendor, device in found]
