"""What a detector of one kind of GPU comes back with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct, field

from jan_core.types import Device

__all__ = ["Found", "listed"]


class Found(Struct, frozen=True):
    """The devices of one kind, in the order in which the engine numbers them; where there are none, `reason` says why
    in words that help. `hidden`: those that are there and that an engine does not see; `notes`: sentences for a person,
    why it does not, or what is uncertain.
    """

    devices: list[Device]
    reason: str = ""
    hidden: list[Device] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def listed(devices: Iterable[Device], among: Iterable[Device]) -> str:
    """Their names; those that are alike are counted, and `among` how many."""
    every = Counter(device.name for device in among)
    return ", ".join(
        f"the {name}" if every[name] == 1 else f"{count} of {every[name]} × {name}"
        for name, count in Counter(device.name for device in devices).items()
    )
