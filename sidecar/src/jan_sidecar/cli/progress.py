"""Progress of long work on stderr: a bar on a terminal, a line every few seconds elsewhere.

Nothing is shown for work that is over within a moment, and nothing remains of the bar once the work is done.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from .output import clean

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

__all__ = ["Progress"]

PATIENCE = 0.3
"""Seconds before a bar is shown."""
SILENCE = 2.0
"""Seconds after which silence is explained."""
QUIET = 1.5
"""Seconds before the first plain line: it stays, so it must be worth it."""
INTERVAL = 3.0
"""Seconds between two plain lines at first, unless the phase changes; later a tenth of the time it takes."""


_NUMBERS = re.compile(r"\d[\d.,]*")


class Progress:
    """Called with (message, done, total), as `jan_core.Progress` asks."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._said = 0.0
        self._over = False
        self._phase: str | None = None
        self._bar: Bar | None = None
        self._task: Any = None
        self._terminal = sys.stderr is not None and sys.stderr.isatty()

    def __call__(self, message: str, done: float | None, total: float | None) -> None:
        elapsed = time.monotonic() - self._began
        if self._over or elapsed < (PATIENCE if self._terminal else QUIET):
            return
        if self._terminal:
            self._show(clean(message), done, total)
        else:
            self._say(clean(message), done, total)

    @contextmanager
    def otherwise(self, message: str) -> Iterator[None]:
        """Show `message` if nothing else was reported after some seconds: silence looks like a failure."""
        timer = asyncio.get_running_loop().call_later(SILENCE, self._break_silence, message)
        try:
            yield
        finally:
            timer.cancel()

    def _break_silence(self, message: str) -> None:
        if self._bar is None and self._phase is None:
            self(message, None, None)

    def close(self) -> None:
        """Take the bar away; what is reported later is not shown."""
        self._over = True
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, message: str, done: float | None, total: float | None) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.markup import escape
            from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as RichProgress

            self._escape = escape
            self._bar = RichProgress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[count]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=None, count="")
        count = _count(message, done, total)
        self._bar.update(self._task, description=self._escape(message), completed=done or 0, total=total, count=count)
        self._bar.start()

    def _say(self, message: str, done: float | None, total: float | None) -> None:
        now = time.monotonic()
        phase = _NUMBERS.sub("", message)
        if phase == self._phase and now - self._said < max(INTERVAL, (now - self._began) / 10):  # what lasts is known
            return
        self._phase, self._said = phase, now
        count = _count(message, done, total)
        click.echo(f"{message}{' ' + count if count else ''} ({now - self._began:.0f} s)", err=True)


def _count(message: str, done: float | None, total: float | None) -> str:
    """How far it is; empty when that is not known, or when the message says it already."""
    if done is None or not total or f"{done:.0f} of {total:.0f}" in message:
        return ""
    if total >= 10_000:  # bytes, by all experience
        from .output import size

        return f"{size(done)}/{size(total)}"
    if float(total).is_integer() and total > 1:
        return f"{done:.0f}/{total:.0f}"
    return f"{100 * done / total:.0f} %"
