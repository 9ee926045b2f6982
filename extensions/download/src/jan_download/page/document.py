"""The document: what the page says, and in which order. Everything that came from elsewhere is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from ..journal import HistoryEntry
from ..records import ENDED, Piece
from ..shapes import Download
from ..status import SourceFigures
from .markup import empty, section, table, text
from .piece_map import drawing, legend
from .style import STYLE
from .timeline import plot, stretches
from .words import STATES, address, checked, event, size, span, speed, when, zone

__all__ = ["page"]

LISTED = 300
"""Events that are listed: of more, the first few and the last ones."""
_SOURCE_STATES = {
    "unused": ("was not needed", ""),
    "active": ("in use", "good"),
    "idle": ("was asked, and others did better", ""),
    "waiting": ("does not answer for now", "wait"),
    "quarantined": ("sent wrong bytes, and is not used", "bad"),
    "gone": ("is not used", "bad"),
}


def page(shown: Sequence[tuple[Download, Sequence[HistoryEntry], Sequence[Piece]]], now: float) -> str:
    """The whole document, of one download or of several below each other. `now`: when it is made (seconds since the
    epoch)."""
    first = shown[0][0]
    others = len(shown) - 1
    title = f"{text(first.name)} and {others} more" if others else f"{text(first.name)}: {_state(first)}"
    body = "".join(_body(download, entries, pieces, now) for download, entries, pieces in shown)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _body(download: Download, entries: Sequence[HistoryEntry], pieces: Sequence[Piece], now: float) -> str:
    ended = download.state in ENDED
    changes = [entry.at for entry in entries if entry.kind == "state"]
    end = changes[-1] if ended and changes else max([now, *changes])
    body = [
        _head(download, now),
        _tiles(download, entries, pieces, end),
        section("Speed", plot(entries, end) or empty("No history of this download was kept.")),
        section("Pieces", _pieces(download, pieces)),
        section("Sources", _sources(download, entries)),
        section("What happened", _events(download, entries)),
        section("The file", _file(download)),
    ]
    return "".join(body)


def _head(download: Download, now: float) -> str:
    word, told = checked(download)
    error = text(download.error.message) if download.error else ""
    why = f"Waiting for {text(download.waiting_for)}{f': {error}' if error else ''}" if download.waiting_for else error
    because = f"<p>{why[:1].upper() + why[1:]}.</p>" if why else ""
    adopted = f" It was taken from {text(download.origin)}, not fetched." if download.origin else ""
    return (
        f'<header><h1><bdi>{text(download.name)}</bdi> <span class="badge {download.state}">{_state(download)}'
        f'</span></h1>{because}<p><b class="{_judgement(download)}">{word[:1].upper() + word[1:]}.</b> '
        f'{told}{adopted}</p><p class="soft">As of {when(now)}, in the time of this machine ({zone(now)}).</p></header>'
    )


def _tiles(download: Download, entries: Sequence[HistoryEntry], pieces: Sequence[Piece], end: float) -> str:
    done, total = download.bytes_done, download.bytes_total
    moving = [part for part in stretches(entries, end) if part.moving]
    seconds = sum(part.end - part.begin for part in moving)
    samples = [entry.data for entry in entries if entry.kind == "sample"]
    fastest = max((int(data.get("speed", 0)) for data in samples), default=0)
    again = sum(piece.tries > 0 for piece in pieces)
    tiles = [
        (size(done), "complete" if download.state == "completed" else _share(done, total), ""),
        (checked(download)[0], "SHA-256", _judgement(download)),
        (span(seconds) if moving else "–", "time in which it moved", ""),
        (speed(done / seconds) if seconds > 0 and not download.origin else "–", "on average", ""),
        (speed(fastest) if fastest else "–", "at best", ""),
        (size(download.bytes_discarded), "thrown away", "bad" if download.bytes_discarded else ""),
        (f"{again:,}", "pieces fetched again", "bad" if again else ""),
        (f"{sum(entry.data.get('state') == 'running' for entry in entries if entry.kind == 'state'):,}", "runs", ""),
    ]
    inside = "".join(
        f'<div class="tile"><b class="{style}">{value}</b><span>{name}</span></div>' for value, name, style in tiles
    )
    return f'<div class="tiles">{inside}</div>'


def _pieces(download: Download, pieces: Sequence[Piece]) -> str:
    length = max(1, download.piece_length)
    count = -(-download.bytes_total // length)
    if not count:
        return empty("How large the file is, is not known yet.")
    if not pieces and download.state == "completed":
        told = "It was taken over from this machine." if download.origin else "Who brought which piece was not kept."
        return empty(f"{told} It has {count:,} pieces of {size(length)}.")
    whole = download.state == "completed"
    told = f"{count:,} pieces of {size(length)}, in the order of the file; each in the colour of who brought it."
    if whole and download.verified:
        told += " The hash of the whole file matched, so all of them are right."
    return f'<p class="soft">{told}</p>{legend(pieces, count, whole)}{drawing(pieces, count, whole)}'


@dataclass(frozen=True)
class _Total:
    """A source over all runs; each run counts from nothing."""

    last: SourceFigures
    bytes_before: int = 0
    errors_before: int = 0
    fastest: int = 0


def _sources(download: Download, entries: Sequence[HistoryEntry]) -> str:
    totals = _totals(download, entries)
    if not totals:
        return empty("It was taken from this machine." if download.origin else "No source was asked yet.")
    rows = []
    for id, total in sorted(totals.items(), key=lambda item: -(item[1].last.bytes + item[1].bytes_before)):
        state = total.last.state if total.last.state != "active" or download.state == "running" else "idle"
        told, style = ("was used", "") if state == "idle" and download.state != "running" else _SOURCE_STATES[state]
        errors = total.last.errors + total.errors_before
        reason = f": {text(total.last.reason)}" if total.last.reason and style else ""
        rows.append(
            (
                f"<bdi>{text(id)}</bdi>",
                size(total.last.bytes + total.bytes_before),
                speed(total.fastest) if total.fastest else "–",
                f'<span class="{"bad" if errors else ""}">{errors:,}</span>',
                f'<span class="{style}">{told}{reason}</span>',
            )
        )
    return table((("source", "h"), ("brought", "n"), ("at best", "n"), ("errors", "n"), ("how it went", "w")), rows)


def _totals(download: Download, entries: Sequence[HistoryEntry]) -> Mapping[str, _Total]:
    told: list[dict[str, Any]] = []
    for entry in entries:
        told += [entry.data] if entry.kind == "source" else entry.data.get("figures", ())
    totals: dict[str, _Total] = {}
    for figures in [*msgspec.convert(told, list[SourceFigures]), *download.sources]:
        total = totals.get(figures.id) or _Total(figures)
        if figures.bytes < total.last.bytes or figures.errors < total.last.errors:
            total = replace(
                total,
                bytes_before=total.bytes_before + total.last.bytes,
                errors_before=total.errors_before + total.last.errors,
            )
        totals[figures.id] = replace(total, last=figures, fastest=max(total.fastest, figures.speed))
    return totals


def _events(download: Download, entries: Sequence[HistoryEntry]) -> str:
    told = [(entry.at, *event(entry, download.piece_length)) for entry in entries]
    lines = [line for line in told if line[1]]
    if not lines:
        return empty("Nothing was noted.")
    left_out = max(0, len(lines) - LISTED)
    shown = lines if not left_out else lines[: LISTED // 3] + lines[-(LISTED - LISTED // 3) :]
    rows = [(when(at), f'<span class="{style}">{text(words)}</span>') for at, words, style in shown]
    if left_out:
        rows.insert(LISTED // 3, ("…", f'<span class="soft">{left_out:,} more</span>'))
    return table((("at", "t"), ("what", "")), rows)


def _file(download: Download) -> str:
    rows = [
        ("kept as", f"<bdi>{text(download.destination)}</bdi>"),
        ("size", f"{download.bytes_total:,} bytes" if download.bytes_total else "not known yet"),
        ("expected SHA-256", f"<code>{text(download.sha256)}</code>" if download.sha256 else "not known"),
        ("computed SHA-256", f"<code>{text(download.actual_sha256)}</code>" if download.actual_sha256 else "not yet"),
        ("address", f"<bdi>{text(address(download.url)) or 'none: found by its hash'}</bdi>"),
        ("download", f"<code>{text(download.id)}</code>"),
        ("group", f"<code>{text(download.group)}</code>" if download.group else ""),
        ("limit", speed(download.limit) if download.limit else ""),
    ]
    return table((("", "t soft"), ("", "")), [row for row in rows if row[1]])


def _state(download: Download) -> str:
    return STATES.get(download.state, download.state)


def _judgement(download: Download) -> str:
    """How to take what `checked` says."""
    if download.state == "completed":
        return "good" if download.verified else "wait"
    return "" if download.sha256 else "wait"


def _share(done: int, total: int) -> str:
    return f"of {size(total)}, {min(100.0, 100 * done / total):.1f} %" if total else "of an unknown size"
