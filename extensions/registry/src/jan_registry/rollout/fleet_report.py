"""What many machines' exports say together: read from a folder, added up, judged by `fleet.py` day by day.

Reads files and nothing else. The verdicts follow from the files alone, so that anybody who has them can check them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from jan_core import StorageError

from .export import DAY, Export
from .fleet import FleetThresholds, FleetVerdict, Period, periods, replay

__all__ = ["FleetAnswer", "judged"]

LARGEST = 256 * 1024
"""Bytes of an export: 400 days are less."""


class FleetAnswer(Struct, kw_only=True):
    """`percent`: of the machines that may have the dynamic list now; `verdicts` and `periods`: one a day, oldest first.
    `machines`: how many exports were read; `skipped`: files that are none, and why."""

    percent: int
    machines: int
    verdicts: list[FleetVerdict]
    periods: list[Period]
    skipped: list[str]


def judged(folder: Path, margin: int, steps: Sequence[int]) -> FleetAnswer:
    """Blocks. Raises StorageError."""
    exports, skipped = [], []
    decoder = msgspec.json.Decoder(Export)
    try:
        for path in sorted(path for path in folder.iterdir() if path.suffix == ".json"):
            if path.stat().st_size > LARGEST:
                skipped.append(f"{path.name}: larger than {LARGEST} bytes")
                continue
            try:
                exports.append(decoder.decode(path.read_bytes()))
            except msgspec.MsgspecError as error:
                skipped.append(f"{path.name}: {error}")
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror or error}") from error
    thresholds = FleetThresholds(margin=margin, steps=tuple(steps))
    found = periods(exports)
    fleet, verdicts = replay(found[0].at - DAY if found else 0, found, thresholds)
    return FleetAnswer(
        percent=fleet.percent(thresholds),
        machines=len(exports),
        verdicts=verdicts,
        periods=found,
        skipped=skipped,
    )
