"""Room in memory for a model that is to be loaded, while others are loading or stand idle.

A load takes its memory bit by bit, so what is free says little until it is over: where it could make a difference, the
next one waits for it. Weights that are mapped from a file count as free memory for the system; for who is to be loaded
beside them they are not. And nobody is unloaded for a model that would not fit even then.

What a model takes is `fit.py`'s; who is loaded, and how one is unloaded, is the caller's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import anyio
import anyio.to_thread
import msgspec

from jan_core import Progress
from jan_core.types import Device, Hardware

from .fit import Fit, gpus_of

__all__ = ["Room", "given_back", "left_by"]


class Room:
    """`detect`: the hardware as it is now; slow, called in threads. What others take: `loading`, by id; `loaded`; and
    `idle`, those of the loaded that may be unloaded for another. `give_up_one` unloads one of these, and says whether
    there was one.
    """

    def __init__(
        self,
        detect: Callable[[], Hardware],
        *,
        loading: Callable[[], dict[str, Fit]],
        loaded: Callable[[], list[Fit]],
        idle: Callable[[], list[Fit]],
        give_up_one: Callable[[], Awaitable[bool]],
    ) -> None:
        self._detect, self._loading, self._loaded, self._idle = detect, loading, loaded, idle
        self._give_up_one = give_up_one
        self._turn = anyio.Event()  # set and replaced

    def changed(self) -> None:
        """A load has ended, or a model was unloaded."""
        turn, self._turn = self._turn, anyio.Event()
        turn.set()

    async def find(self, id: str, plan: Callable[[Hardware], Fit], report: Progress, *, force: bool) -> Fit:
        """How `id` is to be loaded: from when this returns it is one of `loading`. `plan`: how it would be with so much
        free memory; called in threads. It may not fit: that is the caller's to refuse. `force`: nobody is unloaded.
        """

        async def planned(hardware: Hardware) -> Fit:
            return await anyio.to_thread.run_sync(plan, hardware)

        def others() -> dict[str, Fit]:
            return {each: fit for each, fit in self._loading().items() if each != id}

        while True:
            turn, taking = self._turn, others()
            hardware = self.beside_loaded(await anyio.to_thread.run_sync(self._detect))
            found = await planned(left_by(hardware, taking.values()))
            if taking and (not found.fits or found.options != (await planned(hardware)).options):
                report(f"waiting for the memory that {', '.join(taking)} leaves", None, None)
                await turn.wait()
                continue
            if others() != taking:
                continue  # another was quicker
            if found.fits or force or not await self._make_way(planned, hardware):
                return found

    async def _make_way(self, planned: Callable[[Hardware], Awaitable[Fit]], hardware: Hardware) -> bool:
        """Unload one that is idle, if that could be enough in the end; False: there is none, or it could not."""
        return (await planned(given_back(hardware, self._idle()))).fits and await self._give_up_one()

    def beside_loaded(self, hardware: Hardware) -> Hardware:
        """What is free for another, of what the system says is free."""
        mapped = [fit.places[0].need.weights for fit in self._loaded() if fit.options.mmap]
        return _moved(hardware, [("cpu", -sum(mapped))])


def left_by(hardware: Hardware, fits: Iterable[Fit]) -> Hardware:
    """What is free when these have taken all that they need."""
    return _moved(hardware, [(place.device, -place.need.total) for fit in fits for place in fit.places])


def given_back(hardware: Hardware, fits: Iterable[Fit]) -> Hardware:
    """What is free when these are gone."""
    return _moved(hardware, [(place.device, place.need.total) for fit in fits for place in fit.places])


def _moved(hardware: Hardware, changes: list[tuple[str, int]]) -> Hardware:
    """The hardware with so many more bytes free in these places, which are called as in `Place.device`."""
    more: dict[str, int] = {}
    for device, change in changes:
        more[device] = more.get(device, 0) + change
    names = {
        id(device): place
        for kind in {device.kind for device in hardware.devices}
        for place, device in gpus_of(hardware, kind).items()
    }

    def moved(device: Device) -> Device:
        # At least a byte: 0 says that the driver does not tell.
        free = _within(device.memory_free + more.get(names.get(id(device), ""), 0), device.memory_total)
        return msgspec.structs.replace(device, memory_free=max(1, free) if device.memory_free else 0)

    return msgspec.structs.replace(
        hardware,
        memory_free=_within(hardware.memory_free + more.get("cpu", 0), hardware.memory_total),
        devices=[moved(device) for device in hardware.devices],
    )


def _within(free: int, total: int) -> int:
    return max(0, min(free, total) if total else free)
