"""Speed over time as inline SVG, above a strip that says in which state the download was.

Time in which nothing could move is drawn short: a night's pause would leave no room for the minutes that matter.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from ..journal import HistoryEntry
from .markup import text
from .words import STATES, span, speed, when

__all__ = ["Stretch", "plot", "stretches"]

WIDTH, HEIGHT = 960, 250
LEFT, RIGHT, TOP = 78, 10, 12
BASE = 184
"""Where the plot ends and the strip begins."""
STRIP = 24
MOVING = ("running", "verifying")
POINTS = 800
"""So many points are drawn at most; of more, the average of each few."""
LABEL = 74
"""Room that a time takes."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """From `begin` to `end` (seconds since the epoch) a download was in one state."""

    begin: float
    end: float
    state: str

    @property
    def moving(self) -> bool:
        return self.state in MOVING


def stretches(entries: Sequence[HistoryEntry], end: float) -> list[Stretch]:
    """How the states followed each other, until `end`."""
    changes = [(entry.at, str(entry.data.get("state", ""))) for entry in entries if entry.kind == "state"]
    joined = [change for place, change in enumerate(changes) if not place or change[1] != changes[place - 1][1]]
    ends = [*(at for at, _ in joined[1:]), end][: len(joined)]
    return [Stretch(at, max(at, until), state) for (at, state), until in zip(joined, ends, strict=True)]


class _Axis:
    """Where a moment lies. What does not move gets an eighth of what moves, at most."""

    def __init__(self, parts: Sequence[Stretch]) -> None:
        moved = sum(part.end - part.begin for part in parts if part.moving)
        most = moved / 8 or 1.0
        lengths = [part.end - part.begin for part in parts]
        weights = [length if part.moving else min(length, most) for part, length in zip(parts, lengths, strict=True)]
        least = sum(weights) / 300 or 1.0  # also what took no time is to be seen
        weights = [max(weight, least) for weight in weights]
        scale = (WIDTH - LEFT - RIGHT) / sum(weights)
        self._parts = parts
        self.widths = [weight * scale for weight in weights]
        self.lefts = [LEFT + sum(self.widths[:place]) for place in range(len(parts))]
        self._begins = [part.begin for part in parts]

    def x(self, at: float) -> float:
        place = max(0, bisect_right(self._begins, at) - 1)
        part = self._parts[place]
        share = (at - part.begin) / (part.end - part.begin) if part.end > part.begin else 0.0
        return self.lefts[place] + self.widths[place] * min(1.0, max(0.0, share))

    def place(self, at: float) -> int:
        return max(0, bisect_right(self._begins, at) - 1)


def plot(entries: Sequence[HistoryEntry], end: float) -> str:
    """The whole drawing; empty where nothing is known."""
    parts = stretches(entries, end)
    if not parts:
        return ""
    axis = _Axis(parts)
    samples = [(entry.at, float(entry.data.get("speed", 0))) for entry in entries if entry.kind == "sample"]
    inside = [*_curve(axis, samples), *_strip(axis, parts), *_times(axis, parts)]
    title = "Speed over time, and the state of the download"
    return (
        f'<svg class="timeline" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}"><title>{title}</title>'
        f"{''.join(inside)}</svg>"
    )


def _curve(axis: _Axis, samples: Sequence[tuple[float, float]]) -> list[str]:
    every = -(-len(samples) // POINTS) or 1
    groups = [samples[first : first + every] for first in range(0, len(samples), every)]
    points = [(group[-1][0], sum(rate for _, rate in group) / len(group)) for group in groups]
    highest = max((rate for _, rate in points), default=0.0)
    step = _step(highest / 4)
    ticks = [step * place for place in range(8) if step * (place - 1) < highest] if highest else [0.0]
    top = ticks[-1] or 1.0

    def y(rate: float) -> float:
        return TOP + (BASE - TOP) * (1 - rate / top)

    drawn = []
    for tick in ticks:
        drawn.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        name = speed(tick).replace(".0 ", " ") if tick else "0"
        drawn.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{name}</text>')
    if not points:
        drawn.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{(TOP + BASE) / 2}" text-anchor="middle">'
                     "it was too short to measure a speed</text>")  # fmt: skip
    for run in _runs(axis, points):
        line = " ".join(f"{axis.x(at):.1f} {y(rate):.1f}" for at, rate in run)
        first, last = axis.x(run[0][0]), axis.x(run[-1][0])
        if len(run) == 1:
            drawn.append(f'<circle class="dot" cx="{first:.1f}" cy="{y(run[0][1]):.1f}" r="3"/>')
            continue
        drawn.append(f'<path class="area" d="M{first:.1f} {BASE} L{line} L{last:.1f} {BASE} Z"/>')
        drawn.append(f'<path class="line" d="M{line}"/>')
    return drawn


def _runs(axis: _Axis, points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Points that belong together: nothing is drawn through a pause."""
    runs: list[list[tuple[float, float]]] = []
    before = -1
    for point in points:
        place = axis.place(point[0])
        if place != before:
            runs.append([])
        runs[-1].append(point)
        before = place
    return runs


def _strip(axis: _Axis, parts: Sequence[Stretch]) -> list[str]:
    drawn = []
    for part, left, width in zip(parts, axis.lefts, axis.widths, strict=True):
        name = STATES.get(part.state, part.state)
        told = f"{name} for {span(part.end - part.begin)}, from {when(part.begin)}"
        style = part.state if part.state in STATES else "queued"
        drawn.append(
            f'<rect class="state {style}" x="{left:.1f}" y="{BASE + 4}" width="{max(1.0, width - 1):.1f}" '
            f'height="{STRIP}" rx="2"><title>{text(told)}</title></rect>'
        )
        if width > 7 * len(name) + 8:
            drawn.append(
                f'<text class="on" x="{left + width / 2:.1f}" y="{BASE + 20}" text-anchor="middle">{text(name)}</text>'
            )
    return drawn


def _times(axis: _Axis, parts: Sequence[Stretch]) -> list[str]:
    """The time of day where a stretch begins, as far as there is room, and at the end."""
    days = {when(part.begin)[:10] for part in parts}
    end = WIDTH - RIGHT
    drawn = [f'<text x="{end}" y="{BASE + 46}" text-anchor="end">{when(parts[-1].end, date=False)}</text>']
    free = 0.0
    for part, left in zip(parts, axis.lefts, strict=True):
        if not free or (left >= free and left + LABEL * 2 < end):
            drawn.append(f'<text x="{left:.1f}" y="{BASE + 46}">{when(part.begin, date=False)}</text>')
            free = left + LABEL
    told = f"{min(days)} to {max(days | {when(parts[-1].end)[:10]})}"
    first, _, last = told.partition(" to ")
    drawn.append(f'<text x="{LEFT}" y="{BASE + 62}">{first if first == last else told}</text>')
    return drawn


def _step(rough: float) -> float:
    """The next of 1, 2, 5, 10, … that is not smaller."""
    power = 1.0
    while power * 10 <= rough:
        power *= 10
    return next((power * factor for factor in (1, 2, 5) if power * factor >= rough), power * 10)
