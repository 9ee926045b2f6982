"""Amounts and moments as people type and read them: `5M` a second, `22:30`, `1 min 20 s`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import click

from .output import size

__all__ = ["Moment", "Rate", "local", "span", "speed"]

_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([kmgt]?)(i?)b?(?:/s|ps)?", re.IGNORECASE)
_MOST = 1 << 50


class Rate(click.ParamType[int]):
    """Bytes a second: `500k`, `5M`, `1.5 MB/s`, `2MiB`; 0 or `none`: no limit. In powers of 1,000 but for `i`."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip()
        if text.lower() in ("none", "off", "unlimited"):
            return 0
        found = _RATE.fullmatch(text)
        if found is None:
            self.fail(f"{text!r} is no rate: write 500k, 5M or 2MiB (bytes a second), or none", param, ctx)
        amount, unit, binary = found.groups()
        step = 1024.0 if binary else 1000.0
        rate = round(float(amount) * step ** " kmgt".index(unit.lower() or " "))
        if rate > _MOST or (not rate and float(amount)):
            self.fail(f"{text!r} is out of range", param, ctx)
        return rate


class Moment(click.ParamType[str]):
    """When: `22:30` (the next time it is), `2026-11-30 22:30` (local time), RFC 3339, or `now`. An RFC 3339 time comes
    out; "" for now."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip()
        if text.lower() in ("", "now"):
            return ""
        try:
            if re.fullmatch(r"\d{1,2}:\d\d", text):
                now = datetime.now().astimezone()
                hour, minute = map(int, text.split(":"))
                moment = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
                moment += timedelta(days=moment <= now)
            else:
                moment = datetime.fromisoformat(text).astimezone()
        except (ValueError, OverflowError, OSError):
            self.fail(f"{text!r} is no time: write 22:30, 2026-11-30 22:30, or now", param, ctx)
        return moment.isoformat(timespec="seconds")


def local(moment: str) -> str:
    """An RFC 3339 time as the clock on this wall shows it."""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def speed(rate: float) -> str:
    """Bytes a second for people."""
    return f"{size(rate)}/s"


def span(seconds: float) -> str:
    """A length of time in its two greatest units."""
    left = round(seconds)
    for unit, length, lesser, part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if left >= length:
            rest = left % length // part
            return f"{left // length} {unit} {rest} {lesser}" if rest else f"{left // length} {unit}"
    return f"{left} s"
