"""The border around code that is not the host's: nothing but ordinary errors gets out.

Three things would reach beyond the call they come from. `SystemExit` ends the process. A `CancelledError` that nobody
asked for (from awaiting something that was cancelled) looks like a cancellation of the caller. An exception whose text
cannot be had breaks whoever reports it. Used around every handler, hook implementation and background task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Escaped", "border", "text_of"]


class Escaped(Exception):
    """Something that was about to reach beyond its call; the text says what."""


@contextmanager
def border(what: str) -> Iterator[None]:
    """Turn what would reach beyond `what` into `Escaped`. Cancellation from outside passes, as it must."""
    try:
        yield
    except SystemExit as error:
        raise Escaped(f"{what} called sys.exit({error.code!r})") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Escaped(f"{what} was cancelled from within") from error


def text_of(error: BaseException) -> str:
    """An exception's text, or its type's name where it has none or its own `__str__` fails."""
    try:
        return str(error) or type(error).__name__
    except Exception:
        return type(error).__name__
