"""The piece map as inline SVG: who brought which piece, and how it stands. One path a colour, however many they are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from ..records import Piece
from .markup import text
from .words import size

__all__ = ["drawing", "legend"]

WIDTH = 960
MOST = 6_000
"""Cells that are drawn; of more pieces than that, several share one."""
CELLS = (26.0, 20.0, 15.0, 12.0, 9.0, 7.0)
"""How wide a cell may be: the widest of which the drawing has a bearable height."""
BEARABLE = 200
COLOURS = 6
"""Sources with a colour of their own; the others share one."""
SEVERAL = "several sources together"
_BOX, _MARK = "M0 0h12v12h-12z", "M12 0v12L0 0z"

Cell = tuple[str, bool]
"""Its style, and whether it was fetched again."""


def drawing(pieces: Sequence[Piece], count: int, complete: bool) -> str:
    """The grid of `count` pieces. `complete`: the whole file is there and was hashed, and with it each of them.

    Empty where the number of pieces is not known.
    """
    if count <= 0:
        return ""
    cells = _cells(pieces, count, complete)
    cell = next((c for c in CELLS if math.ceil(len(cells) / (WIDTH // c)) * c <= BEARABLE), CELLS[-1])
    columns = min(int(WIDTH // cell), len(cells))
    width, height = columns * cell, math.ceil(len(cells) / columns) * cell
    gap = 1.0 if cell < 10 else 2.0
    corner = cell - gap if cell < 12 else cell / 3
    paths: dict[str, list[str]] = {}
    for first, length, (style, again) in _runs(cells, columns):
        x, y = first % columns * cell, first // columns * cell
        paths.setdefault(style, []).append(f"M{x:g} {y:g}h{length * cell:g}v{cell - gap:g}h{-length * cell:g}z")
        if again:
            ends = (x + place * cell - gap for place in range(1, length + 1))
            marks = (f"M{end:g} {y:g}v{corner:g}l{-corner:g} {-corner:g}z" for end in ends)
            paths.setdefault("again", []).extend(marks)
    body = "".join(f'<path class="{style}" d="{"".join(paths[style])}"/>' for style in sorted(paths, key=_marks_last))
    # Lines in the colour of the ground make cells of the runs.
    lines = "".join(f"M{place * cell - gap / 2:g} 0V{height:g}" for place in range(1, columns + 1))
    shared = math.ceil(count / MOST)
    title = f"{count:,} pieces" + (f", {shared:,} in each cell" if shared > 1 else "")
    return (
        f'<svg class="pieces" viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px" role="img" '
        f'aria-label="{title}"><title>{title}</title>{body}'
        f'<path class="gaps" d="{lines}" stroke-width="{gap:g}"/></svg>'
    )


def legend(pieces: Sequence[Piece], count: int, complete: bool) -> str:
    """What the colours and marks mean, as HTML, with counts."""
    styles, ranks = _styles(pieces), _ranked(pieces)
    keys = [
        (styles[name], text(name or "unknown"), f"{number:,} · {size(length)}")
        for name, number, length in ranks
        if styles[name] != "others" or name == SEVERAL
    ]
    others = [row for row in ranks if styles[row[0]] == "others" and row[0] != SEVERAL]
    if others:
        told = f"{sum(row[1] for row in others):,} · {size(sum(row[2] for row in others))}"
        keys.append(("others", f"{len(others):,} more sources", told))
    states = Counter(piece.state for piece in pieces)
    if states["whole"] and not complete:
        keys.append(("s0 whole", "there, and checked with the whole file", f"{states['whole']:,}"))
    if states["begun"] and not complete:
        keys.append(("s0 begun", "begun", f"{states['begun']:,}"))
    if again := sum(piece.tries > 0 for piece in pieces):
        keys.append(("again", "was wrong and fetched again", f"{again:,}"))
    if (missing := count - len(pieces)) > 0:
        keys.append(("missing", "missing", f"{missing:,}"))
    return f'<div class="legend">{"".join(_key(*key) for key in keys)}</div>'


def _key(style: str, name: str, told: str) -> str:
    path = f'<path class="{style}" d="{_MARK if style == "again" else _BOX}"/>'
    return f'<span><svg class="key" viewBox="0 0 12 12">{path}</svg>{name} <b>{told}</b></span>'


def _source(piece: Piece) -> str:
    return SEVERAL if " " in piece.source else piece.source


def _ranked(pieces: Sequence[Piece]) -> list[tuple[str, int, int]]:
    """Each source with its pieces and bytes, those that brought most first."""
    counts, lengths = Counter[str](), Counter[str]()
    for piece in pieces:
        counts[_source(piece)] += 1
        lengths[_source(piece)] += piece.length
    return sorted(((name, counts[name], lengths[name]) for name in counts), key=lambda row: (-row[2], row[0]))


def _styles(pieces: Sequence[Piece]) -> dict[str, str]:
    names = [name for name, _, _ in _ranked(pieces) if name != SEVERAL]
    return {SEVERAL: "others"} | {
        name: f"s{place}" if place < COLOURS else "others" for place, name in enumerate(names)
    }


def _cells(pieces: Sequence[Piece], count: int, complete: bool) -> list[Cell]:
    known, styles = {piece.index: piece for piece in pieces}, _styles(pieces)
    shared = math.ceil(count / MOST)
    parts = (range(first, min(count, first + shared)) for first in range(0, count, shared))
    return [_cell(known, places, styles, complete) for places in parts]


def _cell(known: Mapping[int, Piece], places: range, styles: Mapping[str, str], complete: bool) -> Cell:
    """How the pieces of one cell stand: the one that is furthest behind speaks for all of them."""
    here = [known[place] for place in places if place in known]
    again = any(piece.tries for piece in here)
    if len(here) < len(places):
        return "missing", again
    style = styles[Counter(map(_source, here)).most_common(1)[0][0]]
    states = {piece.state for piece in here}
    behind = "" if complete else " begun" if "begun" in states else " whole" if "whole" in states else ""
    return style + behind, again


def _runs(cells: Sequence[Cell], columns: int) -> Iterator[tuple[int, int, Cell]]:
    """Neighbours of one kind in one row: the first, how many, which kind."""
    first = 0
    for place in range(1, len(cells) + 1):
        if place == len(cells) or place % columns == 0 or cells[place] != cells[first]:
            yield first, place - first, cells[first]
            first = place


def _marks_last(style: str) -> tuple[bool, str]:
    return style == "again", style
