"""What a download's history says, in words: states, events, sizes, times. Plain text; whoever makes HTML escapes it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from ..journal import HistoryEntry
from ..shapes import Download

__all__ = ["STATES", "address", "checked", "event", "size", "span", "speed", "when", "zone"]

STATES = {
    "queued": "queued",
    "running": "running",
    "waiting": "waiting",
    "offline": "no network",
    "blocked_disk": "no room on the disk",
    "paused": "paused",
    "verifying": "verifying",
    "completed": "complete",
    "failed": "failed",
    "cancelled": "cancelled",
}
_SOURCES = {
    "used": "is used",
    "active": "is used",
    "idle": "is used",
    "waiting": "does not answer for now",
    "quarantined": "is not used any more: it sent wrong bytes",
    "gone": "is not used any more",
}


def size(amount: float) -> str:
    """Bytes for people, in powers of 1,000 as disks are sold."""
    if amount < 1000:
        return f"{amount:.0f} B"
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:,.1f} TB"


def speed(rate: float) -> str:
    """Bytes a second for people."""
    return f"{size(rate)}/s"


def span(seconds: float) -> str:
    """A length of time, in its two greatest units."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    left = round(seconds)
    for unit, length, lesser, fraction in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if left >= length:
            rest = left % length // fraction
            return f"{left // length} {unit} {rest} {lesser}" if rest else f"{left // length} {unit}"
    return f"{left} s"


def when(at: float, *, date: bool = True) -> str:
    """A moment in local time."""
    moment = datetime.fromtimestamp(at)
    return moment.strftime("%Y-%m-%d %H:%M:%S" if date else "%H:%M:%S")


def zone(at: float) -> str:
    """How far this machine's time was from UTC then, such as `UTC+01:00`."""
    return f"UTC{datetime.fromtimestamp(at).astimezone().isoformat()[-6:]}"


def address(url: str) -> str:
    """A URL without what may be secret in it: user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    return f"{parts.scheme}://{host}{port}{parts.path}" if host else ""


def checked(download: Download) -> tuple[str, str]:
    """Whether the file was checked, in a word or two, and what that means."""
    if download.state != "completed":
        if download.sha256:
            return "not checked yet", "Its SHA-256 is known, and the file gets its name only when it matches."
        return (
            "cannot be checked",
            "Nobody knows what this file should hash to, so nothing can tell whether it is the right one.",
        )
    if download.verified:
        told = "Every byte was hashed, and the SHA-256 is the one that was known before the download began."
        return "verified", told
    told = "Nobody knew what it should hash to. Its SHA-256 was computed and kept, so that a later change would show."
    return "not checked", told


def event(entry: HistoryEntry, piece_length: int) -> tuple[str, str]:
    """What an entry tells, in words, and whether that is `good`, `bad`, `wait` or nothing of the kind. Empty: it is no
    event for people."""
    data = entry.data
    if entry.kind == "state":
        return _state(data)
    if entry.kind == "source":
        told = f"{data.get('id', '')} {_SOURCES.get(data.get('state', ''), 'is known')}"
        if data.get("reason") and data.get("state") != "active":
            told += f" ({data['reason']})"
        return told, {"quarantined": "bad", "gone": "bad", "waiting": "wait"}.get(data.get("state", ""), "")
    if entry.kind == "piece":
        index = int(data.get("index", 0))
        return f"piece {index + 1:,} (from {size(index * piece_length)} on) was wrong and is fetched again", "bad"
    if entry.kind == "settings":
        return _settings(data), ""
    return "", ""


def _state(data: dict[str, Any]) -> tuple[str, str]:
    state, error, reason = (str(data.get(name, "")) for name in ("state", "error", "waiting_for"))
    so_far = f" at {size(data.get('done', 0))}" if data.get("done") else ""
    if state == "running":
        return ("goes on" if so_far else "begins") + so_far, ""
    if state == "completed":
        kept = f"; taken from {data['origin']}, which had it on this machine" if data.get("origin") else ""
        if data.get("verified"):
            return f"complete, and its SHA-256 matches{kept}", "good"
        return f"complete, but nothing was known to check it against{kept}", "wait"
    if state == "verifying":
        return "all bytes are there; the whole file is hashed", ""
    told = STATES.get(state, state) + so_far
    if error:
        told += f": {error}"
    elif reason and state in ("queued", "blocked_disk") and reason != "its turn":
        told += f", waiting for {reason}"
    return told, {"failed": "bad", "waiting": "wait", "offline": "wait", "blocked_disk": "wait"}.get(state, "")


def _settings(data: dict[str, Any]) -> str:
    limit = data.get("limit")
    parts = [f"at most {speed(limit)}" if limit else "no limit of its own", f"priority {data.get('priority', 0)}"]
    if data.get("not_before"):
        parts.append(f"not before {data['not_before']}")
    return f"changed: {', '.join(parts)}"
