"""The border around code that is not the host's: nothing but ordinary errors gets out.

Four things would reach beyond the call they come from. `SystemExit` ends the process. A `CancelledError` that nobody
asked for (from awaiting something that was cancelled) looks like a cancellation of the caller. What is no `Exception`
at all (a panic in an extension module written in Rust) passes whoever catches errors. An exception whose text cannot be
had breaks whoever reports it. Used around every handler, hook implementation and background task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Escaped", "border", "contained", "text_of"]


class Escaped(Exception):
    """Something that was about to reach beyond its call; the text says what."""


@contextmanager
def border(what: str) -> Iterator[None]:
    """Turn what would reach beyond `what` into `Escaped`. Cancellation from outside passes, as it must."""
    try:
        yield
    except BaseException as error:
        inside = contained(what, error)
        if inside is error:
            raise
        raise inside from error


def contained(what: str, error: BaseException) -> BaseException:
    """`error` as it may leave `what`: `Escaped` in place of what would reach beyond, else `error` itself. For places
    where entering a context for each call costs too much."""
    if isinstance(error, SystemExit):
        return Escaped(f"{what} called sys.exit({error.code!r})")
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            return Escaped(f"{what} was cancelled from within")
    elif not isinstance(error, Exception | KeyboardInterrupt | GeneratorExit):
        escaped = Escaped(f"{what} raised {type(error).__name__}: {text_of(error)}")
        escaped.__cause__ = error  # its traceback is told with it
        return escaped
    return error


def text_of(error: BaseException) -> str:
    """An exception's text, or its type's name where it has none or its own `__str__` fails."""
    try:
        return str(error) or type(error).__name__
    except Exception:
        return type(error).__name__
