"""Plots over days as inline SVG, coloured by the page's stylesheet. Text in, text out; nothing is fetched or run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Series", "bands", "lines"]

WIDTH, HEIGHT = 720, 220
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 12, 30


@dataclass(frozen=True, slots=True)
class Series:
    """`values` one a day, None where there is none; `style`: a class of the stylesheet."""

    name: str
    style: str
    values: Sequence[float | None]


def lines(
    title: str,
    days: Sequence[str],
    series: Sequence[Series],
    show: Callable[[float], str],
    *,
    low: float | None = None,
    limit: tuple[str, float] | None = None,
) -> str:
    """One line a series. `low`: where the axis begins (0 if not said); `limit`: a level to mark, and its name."""
    known = [value for one in series for value in one.values if value is not None]
    if not known:
        return ""
    bottom = min([*known, low]) if low is not None else 0.0
    top = max([*known, *([limit[1]] if limit and limit[1] <= max(known) * 2 else [])])
    top = top if top > bottom else bottom + 1
    step = _step((top - bottom) / 4)
    bottom = bottom // step * step
    ticks = [bottom + step * place for place in range(8) if bottom + step * (place - 1) < top]
    top = ticks[-1]

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - bottom) / (top - bottom))

    parts = [_axis(days)]
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{show(tick)}</text>')
    if limit and bottom <= limit[1] <= top:
        at = y(limit[1])
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT + 4}" y="{at + 14:.1f}">{limit[0]}</text>')
    for one in series:
        points = [(_x(place, len(days)), y(v), v, days[place]) for place, v in enumerate(one.values) if v is not None]
        path = " ".join(f"{'ML'[i > 0]}{point[0]:.1f} {point[1]:.1f}" for i, point in enumerate(points))
        parts.append(f'<path class="line {one.style}" d="{path}"/>')
        parts += [
            f'<circle class="dot {one.style}" cx="{px:.1f}" cy="{py:.1f}" r="{3 if len(points) < 40 else 2}">'
            f"<title>{escape(f'{day}: {one.name} {show(value)}')}</title></circle>"
            for px, py, value, day in points
        ]
    return _svg(title, "".join(parts), HEIGHT)


def bands(title: str, spans: Sequence[tuple[float, float, str, str]], ends: tuple[str, str]) -> str:
    """Stretches of time on one bar: from and to (0 to 1), what it is (also its style), and more to tell. `ends` name
    the bar's beginning and end."""
    width, parts = WIDTH - LEFT - RIGHT, []
    for begin, end, name, told in spans:
        x, w = LEFT + begin * width, max(2.0, (end - begin) * width)
        parts.append(
            f'<rect class="band {escape(name)}" x="{x:.1f}" y="8" width="{w:.1f}" height="30" rx="3">'
            f"<title>{escape(told)}</title></rect>"
        )
        if w > 9 * len(name):
            parts.append(f'<text class="on" x="{x + w / 2:.1f}" y="28" text-anchor="middle">{escape(name)}</text>')
    parts.append(f'<text class="tick" x="{LEFT}" y="56">{escape(ends[0])}</text>')
    parts.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="56" text-anchor="end">{escape(ends[1])}</text>')
    return _svg(title, "".join(parts), 64)


def _axis(days: Sequence[str]) -> str:
    every = -(-len(days) // 7)
    return "".join(
        f'<text class="tick" x="{_x(place, len(days)):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{day[5:]}</text>'
        for place, day in enumerate(days)
        if place % every == 0
    )


def _x(place: int, count: int) -> float:
    inset = 16
    width = WIDTH - LEFT - RIGHT - 2 * inset
    return LEFT + inset + (width * place / (count - 1) if count > 1 else width / 2)


def _step(rough: float) -> float:
    """The next of 1, 2, 5, 10, … that is not smaller."""
    power = 1.0
    while power < rough:
        power *= 10
    while power >= rough * 10:
        power /= 10
    return next((power * factor for factor in (0.1, 0.2, 0.5, 1.0) if power * factor >= rough), power)


def _svg(title: str, inside: str, height: int) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f"{inside}</svg>"
    )
