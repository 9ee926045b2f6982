"""Downloads under way as bars on a terminal: a row for each file, what stands in its way below it, a total for several.

The columns have fixed widths, so that nothing moves but what changes, and rows give way to the height of the terminal.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .amounts import speed
from .output import size
from .standing import KEPT, Standing, together

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

__all__ = ["Bars", "rows"]

GAP = 0.1
"""Seconds between two drawings at least."""
PATIENCE = 0.3
"""Seconds before something is drawn: what is over by then needs no bar."""
WIDE, MIDDLE, NARROW = 108, 60, 34
"""Columns of a terminal that shows everything, of one that shows bar and speed, and of one that shows the time left."""
_SHARD = re.compile(r"-0*(\d+)-of-0*(\d+)\.gguf$")


class Bars:
    """Draws on stderr until closed; then nothing of it remains."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._drawn = 0.0
        self._began = time.monotonic()

    def show(self, parts: Sequence[Standing]) -> None:
        """Draw how they stand now; too often is not drawn."""
        now = time.monotonic()
        if now - self._drawn < GAP or now - self._began < PATIENCE:
            return
        self._drawn = now
        from rich.console import Group

        live = self._live or self._start()
        console = live.console
        plain = console.legacy_windows or not console.encoding.lower().startswith("utf")
        live.update(Group(*rows(parts, console.width, console.height, plain=plain)), refresh=True)

    def close(self) -> None:
        """Take the bars away."""
        if self._live is not None:
            self._live.stop()

    def _start(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        self._live = Live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._live.start()
        return self._live


def rows(parts: Sequence[Standing], width: int, height: int, *, plain: bool = False) -> list[Text]:
    """The lines to draw on a terminal of `width` columns and `height` lines. `plain`: of ASCII."""
    from rich.text import Text

    whole = together(parts)
    shared = whole.words if len(parts) > 1 else ""
    room = max(1, height - 1 - (2 if len(parts) > 1 else 0) - bool(shared))
    drawn: list[Text] = []
    # What is complete comes last when there is no room for all.
    order = parts if len(parts) <= room // 2 else sorted(parts, key=lambda part: part.state == "completed")
    left_out = 0
    for part in order:
        lines = [_row(part, width, plain)]
        if part.words and not shared:
            lines.append(_words(part, width))
        if len(drawn) + len(lines) > room:
            left_out += 1
        else:
            drawn += lines
    if left_out:
        more = f"and {left_out} more file{'s' if left_out > 1 else ''}"
        drawn.append(Text(more[: width - 1], "dim"))
    if len(parts) > 1:
        complete = sum(part.state == "completed" for part in parts)
        drawn.append(_row(whole, width, plain, name=f"total ({complete}/{len(parts)})", style="bold"))
    if shared:
        drawn.append(_words(whole, width))
    drawn.append(Text())  # here the terminal shows the ^C that somebody types, and it is taken away with the rest
    return drawn


def _row(part: Standing, width: int, plain: bool, *, name: str = "", style: str = "") -> Text:
    """Name, bar and figures of one download, in the columns that all rows of this width have."""
    from rich.text import Text

    figures = [f"{_percent(part):>5}"]
    if width >= WIDE:
        figures.append(f"{_amount(part):>15}")
    if width >= MIDDLE:
        figures.append(f"{speed(part.speed) if part.speed else '':>10}")
    if width >= NARROW:
        figures.append(f"{_clock(part.eta):>7}")
    if width >= WIDE:
        figures.append(f"{_sources(part):<18}")
    bar = 0 if width < MIDDLE else 12 if width < WIDE else min(40, 14 + (width - WIDE) // 2)
    told = "  ".join(figures)
    if part.outcome and width >= MIDDLE:  # takes the place of the figures that only what moves has
        told = f"{told[:24] if width >= WIDE else told[:7]}{part.outcome}".ljust(len(told))[: len(told)]
    row = Text(no_wrap=True, overflow="crop")
    named = name or _SHARD.sub(r" \1/\2", part.name)
    row.append(_fitted(named, max(1, width - 1 - len(told) - 2 - (bar + 2 if bar else 0)), plain), style)
    row.append("  ")
    if bar:
        row.append_text(_bar(part, bar, plain))
        row.append("  ")
    row.append(told, "dim" if part.outcome else "")
    return row


def _words(part: Standing, width: int) -> Text:
    from rich.cells import cell_len
    from rich.text import Text

    bad = part.state in ("failed", "cancelled")
    told = part.words if cell_len(part.words) + 3 < width else part.words.removesuffix(f"; {KEPT}")
    row = Text(f"  {told}", "red" if bad else "yellow", no_wrap=True, overflow="ellipsis")
    row.truncate(max(1, width - 1), overflow="ellipsis")
    return row


def _bar(part: Standing, width: int, plain: bool) -> Text:
    from rich.text import Text

    share = part.share or 0.0
    halves = int(share * width * 2)
    full, half = divmod(halves, 2)
    bar = Text()
    bar.append(("#" if plain else "━") * full, "green" if part.state == "completed" else "cyan")
    if half:
        bar.append("-" if plain else "╸", "cyan")
    bar.append(("." if plain else "━") * (width - full - half), "bright_black")
    return bar


def _fitted(text: str, width: int, plain: bool) -> str:
    """The text in exactly `width` columns; of a longer one its beginning and its end, which tell files apart."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return set_cell_size(text, width)
    dots = "..." if plain else "…"
    room = width - len(dots)
    if room < 6:
        return set_cell_size(text, width)
    end = ""
    for character in reversed(text):
        if cell_len(character + end) > room * 2 // 3:
            break
        end = character + end
    return set_cell_size(text, room - cell_len(end)) + dots + end


def _percent(part: Standing) -> str:
    return "" if part.share is None else f"{int(part.share * 100)} %"  # 100 % only when all of it is there


def _amount(part: Standing) -> str:
    """`1.2/4.7 GB`; what is there alone where the size is not known, or when all of it is there."""
    if not part.total or part.state == "completed":
        return size(part.total or part.done)
    whole, unit = size(part.total).split(" ")
    of_unit = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    done = part.done / of_unit
    return f"{done:.1f}/{whole} {unit}" if unit != "B" else f"{done:.0f}/{whole} B"


def _clock(seconds: int | None) -> str:
    if seconds is None:
        return ""
    if seconds >= 100 * 3600:
        return f"{seconds // 86_400} days"
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _sources(part: Standing) -> str:
    if not part.connections:
        return ""
    many = f"{part.sources} sources, " if part.sources > 1 else ""
    return f"{many}{part.connections} conn" + ("s" if part.connections > 1 else "")
