"""Why something that a hub sent is not believed. What was verified before is still served, whatever is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .report import SyncReport

__all__ = ["Kind", "Refused", "refusal"]

Kind = Literal["rollback", "expired", "mix", "forged", "tampered", "too_large", "malformed"]


class Refused(Exception):
    """The hub answered with something that must not be used.

    `rollback`: older than what was seen before; `expired`: its metadata has expired, or this machine's clock is wrong;
    `mix`: files of different states of the hub; `forged`: not signed by the keys that must sign it; `tampered`: a
    collection that is not the signed one; `too_large`: more bytes than were signed; `malformed`: signed, and no use.
    `report`: what the same sync did to other collections, if it came so far.
    """

    report: SyncReport | None = None

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind


def refusal(error: Exception, path: str) -> Refused:
    """What TUF raised (`tuf.api.exceptions.RepositoryError`) while it dealt with the file `path`, as ours."""
    from tuf.api import exceptions
    from tuf.api.serialization import DeserializationError

    kind: Kind
    if isinstance(error, exceptions.ExpiredMetadataError):
        kind = "expired"
    elif isinstance(error, exceptions.UnsignedMetadataError):
        kind = "forged"
    elif isinstance(error, DeserializationError):
        kind = "malformed"
    elif isinstance(error, exceptions.BadVersionNumberError):
        # Of the two files whose versions only ever rise; anywhere else it is a file that does not belong here.
        kind = "rollback" if path.endswith(("timestamp.json", ".snapshot.json")) else "mix"
    else:  # lengths and hashes that do not fit, a role that the snapshot lacks, a file of another type
        kind = "mix"
    return Refused(kind, f"{path}: {error}")
