"""What callers see and send: jobs, groups and the params of the methods. How a job is kept is in `records`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from jan_core.types import DownloadFile

from .records import PIECE, Job, JobState
from .status import SourceFigures, Status

__all__ = [
    "ConfigureDownload",
    "Download",
    "DownloadGroup",
    "DownloadId",
    "DownloadList",
    "GroupMember",
    "JobError",
    "ListDownloads",
    "Mover",
    "RemoveDownload",
    "Removed",
    "StartDownload",
    "StartGroup",
    "Verification",
    "VerifyDownload",
    "rfc3339",
]

Text = Annotated[str, Meta(max_length=256)]
Rate = Annotated[int, Meta(ge=0, le=1 << 50)]
Priority = Annotated[int, Meta(ge=-100, le=100)]
Instant = Annotated[str, Meta(max_length=40)]
Mover = Literal["", "here", "elsewhere"]


class JobError(Struct):
    """Why a job failed, waits, or was not admitted; the fields of the wire's error."""

    code: int
    type: str
    message: str
    retryable: bool


class Download(Struct, kw_only=True):
    """A download as it stands. Sizes in bytes, times RFC 3339 in UTC (empty: not yet).

    `bytes_done` counts what is safely on the disk and never decreases; bytes that had to be thrown away are
    counted in `bytes_discarded`. It never exceeds `bytes_total` where that is known: when the server turns out to have
    a smaller file meanwhile, both fall to the size of that one. `bytes_total` is 0 when unknown. `speed` is in bytes/s,
    `eta` in seconds, null until it can be told. While another program's copy is being taken in, `bytes_verified` says
    how much of it was hashed. `path` is set once the file may be used: it is complete, and so is the group it belongs
    to. `verified`: its SHA-256 was known beforehand and matches; `actual_sha256` is what was computed; `warning` says
    what a person should know, such as that nothing could be checked.

    `pieces` is the piece map: runs of a count and a letter, such as `12v3a400m`, for pieces of `piece_length` bytes in
    the order of the file. `v` verified, `w` whole (there is no hash of this piece alone), `a` under way, `p` begun,
    `x` was wrong and is fetched anew, `m` missing. Empty while the size is unknown. `waiting_for` says in words what a
    job that does not run is waiting for. `mover` says which process moves the bytes of this data folder: the one that
    is asked (`here`) or another one (`elsewhere`); empty where there is none. Without one a job may be called `running`
    that was interrupted: it goes on as soon as there is one again.
    """

    id: str
    name: str
    url: str
    destination: str
    state: JobState
    role: str = "weights"
    group: str = ""
    sha256: str = ""
    path: str = ""
    bytes_done: int = 0
    bytes_total: int = 0
    bytes_verified: int = 0
    bytes_discarded: int = 0
    speed: int = 0
    eta: int | None = None
    connections: int = 0
    sources: list[SourceFigures] = []
    pieces: str = ""
    piece_length: int = PIECE
    priority: int = 0
    limit: int = 0
    not_before: str = ""
    waiting_for: str = ""
    mover: Mover = ""
    verified: bool = False
    actual_sha256: str = ""
    warning: str = ""
    origin: str = ""
    error: JobError | None = None
    attempts: int = 0
    retry_at: str = ""
    created_at: str = ""
    updated_at: str = ""
    completed_at: str = ""

    @classmethod
    def of(
        cls,
        job: Job,
        path: str,
        *,
        speed: float = 0.0,
        eta: float | None = None,
        status: Status | None = None,
        waiting_for: str = "",
        mover: Mover = "",
    ) -> Download:
        """Show a job; `path` is where its file is, "" while it may not be used; `status` is that of its run."""
        done = job.state == "completed"
        high = min(job.high, job.expected) if job.expected else job.high
        return cls(
            id=job.id,
            name=job.name,
            url=job.url,
            destination=job.destination,
            state=job.state,
            role=job.role,
            group=job.group,
            sha256=job.sha256,
            path=path if done else "",
            bytes_done=high,
            bytes_total=job.expected,
            bytes_verified=high if done else status.verified if status else 0,
            bytes_discarded=job.discarded,
            speed=round(speed),
            eta=None if eta is None else round(eta),
            connections=status.connections if status else 0,
            sources=list(status.sources) if status else [],
            pieces=status.pieces if status else "",
            piece_length=job.piece_length,
            priority=job.priority,
            limit=job.limit,
            not_before=rfc3339(job.not_before),
            waiting_for=waiting_for,
            mover=mover,
            verified=job.verified,
            actual_sha256=job.actual if done else "",
            warning="" if job.sha256 else "no SHA-256 is known for this file: it cannot be checked",
            origin=job.origin,
            error=JobError(job.error_code, job.error_type, job.error, job.retryable) if job.error_type else None,
            attempts=job.attempts,
            retry_at=rfc3339(job.retry_at) if job.state == "waiting" else "",
            created_at=rfc3339(job.created_at),
            updated_at=rfc3339(job.updated_at),
            completed_at=rfc3339(job.completed_at),
        )


def rfc3339(at: float) -> str:
    """A moment (seconds since the epoch) in UTC; "" for none."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else ""


GroupState = Literal[
    "queued", "running", "waiting", "offline", "blocked_disk", "paused", "verifying", "completed", "failed", "cancelled"
]


class DownloadGroup(Struct, kw_only=True):
    """Files that are of use only together, such as the parts of a model and its projector. All of it follows from its
    members: `completed` when every file is, and only then do they have a `path`."""

    id: str
    name: str
    state: GroupState
    bytes_done: int
    bytes_total: int
    speed: int
    eta: int | None
    downloads: list[Download]


class StartDownload(Struct, forbid_unknown_fields=True):
    """Fetch `file` and keep it as `destination`, a plain file name; without it the file's own name.

    `priority`: higher ones first. `limit`: bytes/s, 0 for none of its own. `not_before`: RFC 3339, when it may begin.
    `wait`: answer when it is done, and report progress until then.
    """

    file: DownloadFile
    destination: Text = ""
    priority: Priority = 0
    limit: Rate = 0
    not_before: Instant = ""
    wait: bool = False


class GroupMember(Struct, forbid_unknown_fields=True):
    """One file of a group, kept as `destination`, a plain file name; without it the file's own name."""

    file: DownloadFile
    destination: Text = ""


class StartGroup(Struct, forbid_unknown_fields=True):
    """Fetch files that are of use only together. `name` is for people. The rest as for one file."""

    files: Annotated[list[GroupMember], Meta(min_length=1, max_length=1000)]
    name: Text = ""
    priority: Priority = 0
    limit: Rate = 0
    not_before: Instant = ""
    wait: bool = False


class ConfigureDownload(Struct, forbid_unknown_fields=True):
    """Change how a job, or each of a group, is treated; what is null stays as it is. At once, also while it runs."""

    id: Text
    priority: Priority | None = None
    limit: Rate | None = None
    not_before: Instant | None = None


class DownloadId(Struct, forbid_unknown_fields=True):
    """The id of a download, or of a group where a method takes one."""

    id: Text


class RemoveDownload(Struct, forbid_unknown_fields=True):
    """`keep_file`: forget the record and leave the file under its name."""

    id: Text
    keep_file: bool = False


class Removed(Struct):
    """`freed`: bytes that are free on the disk because of it; 0 where something else still has the file."""

    id: str
    freed: int


class ListDownloads(Struct, forbid_unknown_fields=True):
    """`states`: only jobs in one of these; empty: all. The newest `limit`, oldest first."""

    states: list[JobState] = []
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000


class DownloadList(Struct):
    downloads: list[Download]


class VerifyDownload(Struct, forbid_unknown_fields=True):
    """`repair`: fetch again what is wrong, and only that where the hashes of the pieces are known."""

    id: Text
    repair: bool = False


class Verification(Struct):
    """The outcome of `downloads.verify`: the SHA-256 of the file on the disk now, and what it was or should be.

    `known_before`: the expected hash came with the request; otherwise it is what was computed when it was
    fetched. `damaged`: bytes in pieces that are wrong; the whole file where its pieces have no hashes. `repairing`:
    they are being fetched again; `downloads.changed` says when that is done. `warning`: what a person should know, such
    as that the file's name had become another file's and was made again.
    """

    id: str
    ok: bool
    actual: str
    expected: str
    known_before: bool
    size: int
    damaged: int = 0
    repairing: bool = False
    warning: str = ""
