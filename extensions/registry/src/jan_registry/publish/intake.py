"""Many models at once into the operator's folder: what is new, what changed, what cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..collections import Record, Stats
from .answers import Imported
from .changes import Changes
from .editing import put_model, put_stats
from .workspace import STATS

__all__ = ["take_in"]


def take_in(
    folder: Path, records: Sequence[Record], stats: Sequence[Stats], said: Imported, *, write_it: bool
) -> Imported:
    """Write records that were checked, and say what that did. Raises as `Changes.save` does."""
    changes = Changes(folder)
    written = {put_model(changes, record): record.id for record in records}
    if stats:
        put_stats(changes, stats)
    present = changes.held.entries["models"]
    files = changes.save(write_it=write_it)
    touched = [written[file] for file in files if file in written]
    return msgspec.structs.replace(
        said,
        added=[id for id in touched if id not in present],
        updated=[id for id in touched if id in present],
        unchanged=len(written) - len(touched),
        notes=list(dict.fromkeys(said.notes)),
        files=[file for file in files if file in written or file == STATS],
    )
