"""What a hub publishes: the forms of its five collections, and the one byte sequence each of them has.

Forms only: nothing here reads a disk, a network or a clock.
"""

from .canonical import canonical, digest, snapshot
from .constraint import Constraint
from .experiment import Branch, Experiment
from .featured import Slot
from .flag import Flag, FlagRecord, Rule
from .record import Deprecation, File, FileSource, Pieces, Record, Requires, Variant
from .revocation import Revocation
from .stats import Stats

__all__ = [
    "COLLECTIONS",
    "Branch",
    "Constraint",
    "Deprecation",
    "Experiment",
    "File",
    "FileSource",
    "Flag",
    "FlagRecord",
    "Pieces",
    "Record",
    "Requires",
    "Revocation",
    "Rule",
    "Slot",
    "Stats",
    "Variant",
    "canonical",
    "digest",
    "snapshot",
]

COLLECTIONS: dict[str, type] = {
    "models": Record,
    "featured": Slot,
    "flags": FlagRecord,  # type: ignore[dict-item]  # a union: a flag or an experiment
    "revocations": Revocation,
    "stats": Stats,
}
"""Name -> the form of its records. Every record has an `id` that is unique in its collection."""
