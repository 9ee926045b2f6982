"""Trying again what brought no byte of an answer yet. After the first byte nobody may: the request was taken."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from jan_core import JanError

from .errors import RemoteBusy, RemoteUnreachable

__all__ = ["persist"]

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds
LONGEST_WAIT = 20.0
"""Seconds: a person waits. An endpoint that asks for more is answered for with its own words and time."""


async def persist(attempt: Callable[[], Awaitable[T]], retries: int) -> T:
    """Make an attempt, and up to `retries` more while it fails in a way that another one may not.

    Between them passes what the endpoint asked for (Retry-After), else a random part of a time that doubles: clients
    that failed together shall not come back together.
    """
    for tried in range(retries):
        try:
            return await attempt()
        except (RemoteUnreachable, RemoteBusy) as error:
            pause = _pause(error, tried)
            if pause is None:
                raise
        await anyio.sleep(pause)
    return await attempt()


def _pause(error: JanError, tried: int) -> float | None:
    """Seconds until the next attempt; None: there is no use in one."""
    if isinstance(error, RemoteUnreachable) and error.data.get("reason") not in ("connect", "lost"):
        return None  # what takes too long takes no less time when it is asked for twice
    wait = error.data.get("retry_after")
    if wait is not None:
        return float(wait) if wait <= LONGEST_WAIT else None
    return random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**tried))
