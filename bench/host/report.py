"""What a part hands back: tables, and how its figures stand to the reach. Printed as Markdown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Reach", "Report", "Table", "figure", "progress", "ratio"]


@dataclass(frozen=True)
class Table:
    """`rows` are as wide as `columns`; the first column is a name, the others are figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(len(line[n]) for line in lines) for n in range(len(self.columns))]
        ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        padded = [
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
            for line in [self.columns, ruler, *self.rows]
        ]
        return "\n".join([f"### {self.title}", "", *(f"| {' | '.join(line)} |" for line in padded)])


@dataclass(frozen=True)
class Reach:
    """One aim: `value` should be at most (or, with `at_least`, at least) `bound`. None: not taken."""

    what: str
    value: float | None
    bound: float
    unit: str = "×"
    at_least: bool = False
    moonshot: float | None = None

    def row(self) -> list[str]:
        sign = "≥" if self.at_least else "≤"
        aim = f"{sign} {self.bound:g} {self.unit}".rstrip()
        if self.moonshot is not None:
            aim += f" (moonshot {self.moonshot:g})"
        if self.value is None:
            return [self.what, aim, "not taken", "?"]
        return [self.what, aim, f"{figure(self.value)} {self.unit}".rstrip(), self._verdict(self.value)]

    def _verdict(self, value: float) -> str:
        def within(bound: float) -> bool:
            return value >= bound if self.at_least else value <= bound

        if self.moonshot is not None and within(self.moonshot):
            return "moonshot"
        return "reached" if within(self.bound) else "NOT reached"


@dataclass
class Report:
    """All of one part."""

    tables: list[Table] = field(default_factory=list)
    reaches: list[Reach] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        blocks = [str(table) for table in self.tables]
        if self.reaches:
            rows = [reach.row() for reach in self.reaches]
            blocks.append(str(Table("Beside the reach", ["", "reach", "measured", "verdict"], rows)))
        if self.notes:
            blocks.append("\n".join(f"* {note}" for note in self.notes))
        return "\n\n".join(blocks)


def figure(value: float | None) -> str:
    """Three digits that matter, thousands apart, counts as they are; "-" for what was not taken."""
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def ratio(value: float | None, other: float | None) -> float | None:
    """`value` over `other`, when both were taken."""
    return value / other if value is not None and other else None


def progress(text: str) -> None:
    """Say on a terminal what is being done; "" clears the line."""
    if sys.stderr.isatty():
        print(f"\r{text:76}{'' if text else chr(13)}", end="", file=sys.stderr, flush=True)
