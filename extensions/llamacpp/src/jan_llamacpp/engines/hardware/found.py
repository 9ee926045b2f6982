"""What a detector of one kind of GPU comes back with."""

from __future__ import annotations

from msgspec import Struct

from jan_core.types import Device

__all__ = ["Found"]


class Found(Struct, frozen=True):
    """The devices of one kind; where there are none, `reason` says why in words that help."""

    devices: list[Device]
    reason: str = ""
