"""Whether an engine that was put together runs on this machine: asked of a child process (`smoke.py`)."""

from __future__ import annotations

import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct

from jan_core.types import EngineBuild

from .diagnosis import AttemptFailed
from .progress import Progress
from .workshop import Workshop

__all__ = ["check"]

_SMOKE = Path(__file__).with_name("smoke.py")
_LEFTOVERS = ("bin", "include", "lib")  # CMake's second copy of the libraries; the package loads its own


class _Said(Struct):
    """What `smoke.py` prints."""

    devices: list[str] = []
    error: str = ""
    no_device: bool = False


async def check(shop: Workshop, build: EngineBuild, model: Path | None, seconds: float) -> list[str]:
    """Import the engine, list its devices and run `model`, within so many seconds; returns the devices.

    Raises AttemptFailed: `no_device` when a GPU build finds no GPU, else `check_failed`.
    """
    import anyio

    for name in _LEFTOVERS:
        await anyio.to_thread.run_sync(partial(shutil.rmtree, shop.target / name, ignore_errors=True))
    shop.tracker.show(Progress("checking", "checking that the engine runs here"))
    command = [sys.executable, "-I", str(_SMOKE), str(shop.target), build.variant, build.version]
    try:
        with anyio.fail_after(seconds):
            status, output = await shop.run([*command, str(model)] if model else command)
    except TimeoutError:
        raise _failed(f"its check did not end within {seconds:g} seconds") from None
    last = next((line for line in reversed(output.splitlines()) if line.startswith("{")), "{}")
    try:
        said = msgspec.json.decode(last, type=_Said)
    except msgspec.DecodeError:
        said = _Said()
    if said.no_device:
        raise AttemptFailed("no_device", said.error)
    if status or said.error:
        raise _failed(said.error or _ending(status))
    return said.devices


def _failed(why: str) -> AttemptFailed:
    return AttemptFailed("check_failed", f"the engine does not run here: {why}")


def _ending(status: int) -> str:
    if status == 128 + 4:  # SIGILL
        return "it uses instructions this processor does not have"
    if status > 128 and status - 128 in list(signal.Signals):
        return f"it was ended by {signal.Signals(status - 128).name}"
    return f"its check ended with status {status}"
