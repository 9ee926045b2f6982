"""Waiting for the end of a download, or of a group, and reporting how far it is meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio

from jan_core import Call, JanError

from .errors import DownloadCancelled, error_from
from .shapes import Download, DownloadGroup, JobError

__all__ = ["follow"]

T = TypeVar("T", Download, DownloadGroup)
_AGAIN = 1.0
"""Seconds after which it is looked at without a change: another process may run it."""


async def follow(call: Call, change: Callable[[], anyio.Event], look: Callable[[], Awaitable[T]]) -> T:
    """Wait until what `look` shows is complete or paused; `change` is set at the next change of it.

    Raises the error with which it fails, DownloadCancelled when it is given up.
    """
    while True:
        event = change()
        now = await look()
        parts: Sequence[Download] = now.downloads if isinstance(now, DownloadGroup) else [now]
        error = next((part.error for part in parts if part.state == now.state and part.error is not None), None)
        call.progress(_message(now.state, error, parts), done=now.bytes_done, total=now.bytes_total or None)
        if now.state == "paused" or (now.state == "completed" and all(part.path for part in parts)):
            return now
        if now.state == "cancelled":
            raise DownloadCancelled("the download was cancelled", id=now.id)
        if now.state == "failed":
            raise _failure(error)
        with anyio.move_on_after(_AGAIN):
            await event.wait()


def _message(state: str, error: JobError | None, parts: Sequence[Download]) -> str:
    waiting = next((part.waiting_for for part in parts if part.state == state and part.waiting_for), "")
    if waiting:
        return f"waiting for {waiting}" + (f" ({error.message})" if error else "")
    return error.message if error else state


def _failure(error: JobError | None) -> JanError:
    return error_from(error.type if error else "", error.message if error else "the download failed")
