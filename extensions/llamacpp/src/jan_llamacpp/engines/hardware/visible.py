"""The variables that hide GPUs from an engine, read as the runtimes read them.

CUDA: the CUDA programming guide, "CUDA Environment Variables"; what it leaves open (what follows a number, entries that
are there twice) as PyTorch found it out (`torch.cuda._parse_visible_devices`). HIP: `Device::init` of ROCclr's
`rocdevice.cpp`. Vulkan: `ggml_vk_instance_init` of llama.cpp. `ROCR_VISIBLE_DEVICES` is not here: `rocminfo` obeys it.

Which devices there are, and in which order, is the detectors' business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from jan_core.types import Device

from .found import Found, listed

__all__ = ["Seen", "applied", "by_cuda", "by_hip", "by_vulkan", "setting"]

_SIZES = 2**64  # those of a size_t


class Seen(Struct, frozen=True):
    """The places of the devices that are seen, in the order in which the engine numbers them. `but`: what is wrong with
    the value, if something is.
    """

    places: list[int]
    but: str = ""


def by_cuda(value: str, ids: Sequence[str], instances: Mapping[str, str]) -> Seen:
    """`CUDA_VISIBLE_DEVICES`: numbers of cards, or beginnings of `GPU-<uuid>`, `MIG-<uuid>` and
    `MIG-GPU-<uuid>/<GPU instance>/<compute instance>`. The first entry that names no device ends the list.

    `ids`: of cards in CUDA's order (`GPU-<uuid>`), and of the MIG instances in place of theirs (`GPU-<uuid>/1/0`).
    `instances`: the `MIG-<uuid>` of those ids, where it is known. A card with instances stands for its first.
    """
    by_uuid = value.lstrip().startswith(("GPU-", "MIG-"))
    places: list[int] = []
    for entry in (entry.strip() for entry in value.split(",")):
        place = _named(entry, ids, instances) if by_uuid else _counted(entry, ids)
        if place is None:
            return Seen(places, _names_none(entry, value))
        if place in places:
            return Seen([], "it names one twice, and CUDA then shows none")
        places.append(place)
    return Seen(places)


def by_hip(value: str, ids: Sequence[str]) -> Seen:
    """`HIP_VISIBLE_DEVICES`, or `CUDA_VISIBLE_DEVICES` where it is not set: numbers without any sign or blank, or parts
    of `GPU-<id>`. The first entry that names no device ends the list; one that is there twice counts once.
    """
    quoted = re.fullmatch(r' *"(.*)" *', value, re.DOTALL)
    entries = (quoted[1] if quoted else value).split(",")
    places: list[int] = []
    for entry in entries[:-1] if len(entries) > 1 and not entries[-1] else entries:
        if "GPU-" in entry:
            place = next((place for place, id in enumerate(ids) if entry in id), None)
        else:
            place = int(entry) if re.fullmatch(r"0|[1-9][0-9]{0,5}", entry) else None
        if place is None or place >= len(ids):
            return Seen(places, _names_none(entry, value))
        if place not in places:
            places.append(place)
    return Seen(places)


def by_vulkan(value: str, count: int) -> Seen:
    """`GGML_VK_VISIBLE_DEVICES`: numbers of Vulkan's devices, renderers on the processor included. One that is
    too large makes llama.cpp give up Vulkan; what is no number ends the list.
    """
    places: list[int] = []
    text, at = value.replace(",", " "), 0
    while match := re.compile(r"[ \t-\r]*([+-]?)0*([0-9]+)").match(text, at):
        if len(match[2]) > 20 or int(match[2]) >= _SIZES:
            break
        place, at = int(match[1] + match[2]) % _SIZES, match.end()  # as C++ reads a number with a minus
        if place >= count:
            return Seen([], f"there is no device {match[0].strip()}, and llama.cpp then uses none")
        if place not in places:
            places.append(place)
    return Seen(places, _names_none(value[at:], value) if text[at:].strip() else "")


def setting(name: str, value: str) -> str:
    """A variable as it is set, for a person."""
    return name + "=" + (_shown(value) or '""')


def applied(devices: Sequence[Device], seen: Seen, what: str, every: str) -> Found:
    """Those that are seen, and what is said of the others. `what`: hides them; `every`: as in `NVIDIA GPU`."""
    hidden = [device for place, device in enumerate(devices) if place not in seen.places]
    but = f": {seen.but}" if seen.but else ""
    if not seen.places:
        return Found([], f"{what} hides every {every}{but}", hidden)
    notes = [f"{what} hides {listed(hidden, devices)}{but}"] if hidden else []
    return Found([devices[place] for place in seen.places], "", hidden, notes)


def _counted(entry: str, ids: Sequence[str]) -> int | None:
    """The place of a card by its number, which may be followed by anything."""
    match = re.match(r"\+?0*([0-9]+)", entry)
    cards = list(dict.fromkeys(_card(id) for id in ids))
    if not match or len(match[1]) > 6 or int(match[1]) >= len(cards):
        return None
    return next(place for place, id in enumerate(ids) if _card(id) == cards[int(match[1])])


def _named(entry: str, ids: Sequence[str], instances: Mapping[str, str]) -> int | None:
    """The place of the one device whose UUID begins so."""
    if entry.startswith("MIG-"):
        names = [(instances.get(id, ""), f"MIG-{id}" if "/" in id else "") for id in ids]
        found = [place for place, each in enumerate(names) if any(name.startswith(entry) for name in each)]
        return found[0] if len(found) == 1 else None
    found = [place for place, id in enumerate(ids) if entry.startswith("GPU-") and _card(id).startswith(entry)]
    return found[0] if len({_card(ids[place]) for place in found}) == 1 else None


def _card(id: str) -> str:
    return id.partition("/")[0]


def _names_none(entry: str, value: str) -> str:
    return "" if entry == value.strip() else f"'{_shown(entry)}' names none of them"


def _shown(text: str) -> str:
    return "".join(sign for sign in text if sign.isprintable())[:80]
