"""What becomes of a job whose run ended without its file: which state, when again, and what a person is told.

A function: it changes nothing and sleeps nowhere.
"""

from __future__ import annotations

import errno
import random
from typing import Any

from jan_core import JanError, StorageError

from .errors import DiskFull, DownloadRefused
from .records import Job
from .settings import DownloadSettings

__all__ = ["NO_ERROR", "changes_after"]

NO_ERROR: dict[str, Any] = {"error_type": "", "error_code": 0, "error": "", "retryable": False}

_OFFLINE_PAUSE = 15.0
"""Seconds before names are looked up again while there is a route, and nobody who answers."""
_DISK_PAUSE = 5.0
"""Seconds before a disk that says it is full, and has room all the same (a quota), is tried again."""
_REPAIR_PAUSE = 30.0


def changes_after(
    error: Exception, job: Job, settings: DownloadSettings, *, now: float, online: bool, free: int, capacity: int
) -> dict[str, Any]:
    """The fields of `job` after a run that ended with `error`. `free`, `capacity`: bytes of the disk.

    Network failures never end a job: pauses grow with full jitter to `retry_longest`, or are what the server asked
    for. Without a network they count as no attempts.
    """
    from .network.errors import Unreachable

    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        error = DiskFull("the disk is full", needed=0, free=free) if full else _storage(error)
    if isinstance(error, Unreachable):
        shown: JanError = error.error
        if error.offline:
            changes = {"state": "offline", "retry_at": now + _OFFLINE_PAUSE if online else 0.0}
        else:
            longest = min(settings.retry_longest, settings.retry_first * 2.0 ** min(job.attempts, 20))
            pause = max(error.delay, random.uniform(0.0, longest))
            changes = {"state": "waiting", "retry_at": now + pause, "attempts": job.attempts + 1}
    elif isinstance(error, DiskFull):
        shown, needed = error, int(error.data.get("needed", 0))
        if not job.expected:  # nobody can tell when there would be room for it, if ever: it may have no end
            told = "the disk is full, and the source does not say how large the file is; nothing of it is kept"
            shown = DiskFull(told, **error.data)
            changes = {"state": "failed"}
        elif job.expected > capacity:
            changes = {"state": "failed"}
        else:
            changes = {"state": "blocked_disk", "retry_at": now + (_DISK_PAUSE if needed <= free else 0.0)}
    elif isinstance(error, JanError):
        shown = error
        changes = {"state": "paused" if isinstance(error, DownloadRefused) else "failed"}
    else:
        shown, changes = JanError("the download failed: see the log"), {"state": "failed"}
    return changes | {
        "error_type": shown.type,
        "error_code": shown.code,
        "error": shown.message,
        "retryable": shown.retryable,
    }


def after_lost_end(now: float) -> dict[str, Any]:
    """For a job that is said to run, and has no run: the end of it could not be recorded."""
    lost = StorageError("the end of the last run could not be recorded")
    return {
        "state": "waiting",
        "retry_at": now + _REPAIR_PAUSE,
        "error_type": lost.type,
        "error_code": lost.code,
        "error": lost.message,
        "retryable": True,
    }


def _storage(error: OSError) -> StorageError:
    return StorageError(f"the disk: {error.strerror or error}")
