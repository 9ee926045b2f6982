"""A job: as the journal keeps it (`Job`), as the wire shows it (`Download`), and the params of the
methods."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from jan_core.types import DownloadFile

__all__ = [
    "LIVE",
    "Download",
    "DownloadId",
    "DownloadList",
    "Job",
    "JobError",
    "JobState",
    "ListDownloads",
    "StartDownload",
    "Verification",
]

JobState = Literal["queued", "running", "waiting", "paused", "verifying", "completed", "failed", "cancelled"]
"""Closed. `waiting`: the network or server fails for now, `retry_at` says when it is tried again."""

LIVE: tuple[JobState, ...] = ("queued", "running", "waiting", "paused", "verifying")
"""States of a job that will still bring its file."""

Text = Annotated[str, Meta(max_length=256)]


class Job(Struct, kw_only=True):
    """One row of the journal. Times are seconds since the epoch, sizes bytes.

    `run` numbers the runs and interventions: whoever changes a job names the run it knows, and changes
    nothing when somebody else was faster. `offset` is how much of the partial file is known to be on the
    disk.
    """

    id: str
    name: str
    url: str
    sha256: str
    size: int
    destination: str
    partial: str
    state: JobState = "queued"
    run: int = 0
    offset: int = 0
    total: int = 0
    high: int = 0
    discarded: int = 0
    source: str = ""
    validator: str = ""
    actual: str = ""
    verified: bool = False
    origin: str = ""
    error_type: str = ""
    error_code: int = 0
    error: str = ""
    retryable: bool = False
    attempts: int = 0
    retry_at: float = 0.0
    created_at: float = 0.0
    updated_at: float = 0.0
    completed_at: float = 0.0

    @property
    def file(self) -> DownloadFile:
        """What is wanted, as hooks get it."""
        return DownloadFile(name=self.name, url=self.url, sha256=self.sha256, size=self.size)

    @property
    def expected(self) -> int:
        """Bytes the whole file has: what was asked for, else what the server said; 0 when neither is
        known."""
        return self.size or self.total


class JobError(Struct):
    """Why a job failed, waits, or was not admitted; the fields of the wire's error."""

    code: int
    type: str
    message: str
    retryable: bool


class Download(Struct, kw_only=True):
    """A download as it stands. Sizes in bytes, times RFC 3339 in UTC (empty: not yet).

    `bytes_done` counts what is safely on the disk and never decreases; bytes that had to be thrown away are
    counted in `bytes_discarded`. `bytes_total` is 0 when unknown. `speed` is in bytes/s, `eta` in seconds.
    `path` is set once the file is complete. `verified`: its SHA-256 was known beforehand and matches;
    `actual_sha256` is what was computed.
    """

    id: str
    name: str
    url: str
    destination: str
    state: JobState
    sha256: str = ""
    path: str = ""
    bytes_done: int = 0
    bytes_total: int = 0
    bytes_discarded: int = 0
    speed: int = 0
    eta: int | None = None
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
    def of(cls, job: Job, path: str, *, speed: float = 0.0, eta: float | None = None) -> Download:
        """Show a job; `path` is where its file is or will be."""
        done = job.state == "completed"
        return cls(
            id=job.id,
            name=job.name,
            url=job.url,
            destination=job.destination,
            state=job.state,
            sha256=job.sha256,
            path=path if done else "",
            bytes_done=job.high,
            bytes_total=job.expected,
            bytes_discarded=job.discarded,
            speed=round(speed),
            eta=None if eta is None else round(eta),
            verified=job.verified,
            actual_sha256=job.actual if done else "",
            warning="" if job.sha256 else "no SHA-256 is known for this file: it cannot be checked",
            origin=job.origin,
            error=JobError(job.error_code, job.error_type, job.error, job.retryable) if job.error_type else None,
            attempts=job.attempts,
            retry_at=_rfc3339(job.retry_at) if job.state == "waiting" else "",
            created_at=_rfc3339(job.created_at),
            updated_at=_rfc3339(job.updated_at),
            completed_at=_rfc3339(job.completed_at),
        )


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else ""


class StartDownload(Struct, forbid_unknown_fields=True):
    """Fetch `file` and keep it as `destination`, a plain file name; without it the file's own name.

    `wait`: answer when it is done, and report progress until then.
    """

    file: DownloadFile
    destination: Text = ""
    wait: bool = False


class DownloadId(Struct, forbid_unknown_fields=True):
    id: Text


class ListDownloads(Struct, forbid_unknown_fields=True):
    """`states`: only jobs in one of these; empty: all. The newest `limit`, oldest first."""

    states: list[JobState] = []
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000


class DownloadList(Struct):
    downloads: list[Download]


class Verification(Struct):
    """The outcome of `downloads.verify`: the SHA-256 of the file on the disk now, and what it was or should
    be.

    `known_before`: the expected hash came with the request; otherwise it is what was computed when it was
    fetched.
    """

    id: str
    ok: bool
    actual: str
    expected: str
    known_before: bool
    size: int
