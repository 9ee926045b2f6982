"""How far an installation is, read out of what uv and ninja print.

Only for showing: no decision is taken on these lines, so that another version of uv costs progress, not
correctness.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

__all__ = ["OnProgress", "Phase", "Progress", "Tracker"]

Phase = Literal["waiting", "resolving", "downloading", "building", "installing", "checking"]


class Progress(Struct, frozen=True):
    """One step of an installation. `done` of `total` counts compile steps while building; `total` None:
    unknown.
    """

    phase: Phase
    message: str
    done: int = 0
    total: int | None = None


OnProgress = Callable[[Progress], None]

_STEP = re.compile(r"\[(\d{1,6})/(\d{1,6})\] ")
_MARKS: list[tuple[str, Phase, str]] = [
    ("DEBUG Solving with", "resolving", "resolving the engine's packages"),
    ("Downloading ", "downloading", "downloading the engine"),
    ("DEBUG Downloading source distribution", "downloading", "downloading the engine's source"),
    ("Building llama-cpp-python", "building", "preparing the build"),
    ("Prepared ", "installing", "installing"),
    ("Installed ", "installing", "installed"),
]


_ORDER: list[Phase] = ["waiting", "resolving", "downloading", "building", "installing", "checking"]


class Tracker:
    """Feeds on the output of uv commands and reports each change once; within one command, phases go forward only."""

    def __init__(self, report: OnProgress) -> None:
        self._report = report
        self._last: Progress | None = None
        self._reached = 0

    def begin(self) -> None:
        """Another command begins: earlier phases may come again."""
        self._reached = 0

    def line(self, line: str) -> None:
        """Take one line of output."""
        step = _STEP.search(line)
        if step:
            done, total = int(step[1]), int(step[2])
            if 0 < done <= total:
                self.show(Progress("building", f"compiling {done} of {total}", done, total))
            return
        text = line.strip()
        for mark, phase, message in _MARKS:
            # A build resolves and fetches its own tools: that is part of building to who waits.
            if text.startswith(mark) and _ORDER.index(phase) >= self._reached:
                self.show(Progress(phase, message))

    def show(self, progress: Progress) -> None:
        """Report `progress` unless it is what was reported last."""
        self._reached = _ORDER.index(progress.phase)
        if progress != self._last:
            self._last = progress
            self._report(progress)
