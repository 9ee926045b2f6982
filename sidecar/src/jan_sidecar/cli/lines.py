"""Downloads under way as plain lines, where there is no terminal: one every few seconds, and one when something new
stands in the way. No control characters, and nothing for what is over within a moment."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import click

from .amounts import span, speed
from .output import size
from .standing import Standing, together

__all__ = ["Lines", "line"]

QUIET = 1.5
"""Seconds before the first line: it stays, so it must be worth it."""
INTERVAL = 3.0
"""Seconds between two lines at first; later a tenth of the time it takes."""
STILL = 60.0
"""Seconds after which it is said again how something stands of which nothing moves: figures alone are no news then."""
_NUMBERS = re.compile(r"\d[\d.,]*")


class Lines:
    """Writes to stderr."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._said = 0.0
        self._words: dict[str, str] = {}
        """By name, what was said last of what stands in the way, without figures."""
        self._done = -1
        """The bytes that were there when something was said last."""

    def show(self, parts: Sequence[Standing]) -> None:
        """Say how they stand now, if it is time to, or new."""
        now = time.monotonic()
        if now - self._began < QUIET:
            return
        whole = together(parts, name=f"{len(parts)} files")
        shared = len(parts) == 1 or whole.words
        for part in parts if not shared else [whole if len(parts) > 1 else parts[0]]:
            words = _NUMBERS.sub("", part.words)  # "again in 3 s" is nothing new
            if words and words != self._words.get(part.name):
                click.echo(f"{part.name}: {part.words}", err=True)
                self._said, self._done, self._words[part.name] = now, whole.done, words
        pause = STILL if whole.done == self._done else INTERVAL
        if now - self._said >= max(pause, (now - self._began) / 10):
            self._said, self._done = now, whole.done
            click.echo(line(parts[0] if len(parts) == 1 else whole), err=True)

    def close(self) -> None:
        """Nothing remains to be done: what was said stays."""


def line(part: Standing) -> str:
    """How a download stands, in one line."""
    share = f" ({int(part.share * 100)} %)" if part.share is not None else ""
    told = [f"{size(part.done)} of {size(part.total)}{share}" if part.total else size(part.done)]
    told += [speed(part.speed)] if part.speed else []
    told += [f"{span(part.eta)} left"] if part.eta is not None else []
    told += [part.words] if part.words else []
    return f"{part.name}: {', '.join(told)}"
