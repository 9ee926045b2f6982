"""What can go wrong with a download, as callers see it. Codes -32060 to -32069."""

from __future__ import annotations

from jan_core import JanError

__all__ = [
    "BadSource",
    "DiskFull",
    "DownloadCancelled",
    "DownloadConflict",
    "DownloadNotFound",
    "DownloadRefused",
    "HashMismatch",
    "SourceNotFound",
    "SourceUnauthorized",
    "SourceUnreachable",
    "error_from",
]


class DownloadNotFound(JanError):
    """No job has this `id`."""

    code, type = -32060, "download_not_found"


class DownloadConflict(JanError):
    """The job's state does not allow this, or another job or file has the destination; `state`/`job` say
    which."""

    code, type = -32061, "download_conflict"


class DownloadRefused(JanError):
    """An extension voted against the download (`jan_admit_download`): `extension` and its reason."""

    code, type = -32062, "download_refused"


class DiskFull(JanError):
    """Not enough free space: `needed` and `free` in bytes. What was fetched is kept; resume when there is
    room."""

    code, type, retryable = -32063, "disk_full", True


class SourceUnauthorized(JanError):
    """The server asks for credentials or refuses them (HTTP 401, 403); `status` and `host` say which."""

    code, type = -32064, "source_unauthorized"


class SourceNotFound(JanError):
    """The server has no such file (HTTP 404, 410)."""

    code, type = -32065, "source_not_found"


class HashMismatch(JanError):
    """The bytes are not those that were asked for: `expected` and `actual` SHA-256. They were thrown away."""

    code, type = -32066, "hash_mismatch"


class BadSource(JanError):
    """The server's answer cannot be used: another size, a redirect to plain HTTP, a wrong range, a bad
    certificate."""

    code, type = -32067, "bad_source"


class SourceUnreachable(JanError):
    """The network or the server fails for now. A job waits and tries again by itself; this is its reason."""

    code, type, retryable = -32068, "source_unreachable", True


class DownloadCancelled(JanError):
    """The job a caller waited for was cancelled by somebody."""

    code, type = -32069, "download_cancelled"


def error_from(type_: str, message: str) -> JanError:
    """The error that a job's record names, to be raised again for a caller who waited."""
    kinds = {
        kind.type: kind
        for kind in (
            DownloadConflict,
            DownloadRefused,
            DiskFull,
            SourceUnauthorized,
            SourceNotFound,
            HashMismatch,
            BadSource,
            SourceUnreachable,
        )
    }
    return kinds.get(type_, BadSource)(message)
