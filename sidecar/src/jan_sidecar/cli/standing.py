"""How downloads stand, as a person reads it: amounts, speed, time left, and in words what stands in the way.

Made from what `downloads.*` answer and `downloads.changed` tells; how it is drawn is for `bars` and `lines`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .output import clean

__all__ = ["KEPT", "LIVE", "Record", "Standing", "Steady", "looked_at", "together", "under_way"]

Record = dict[str, Any]
"""A download as `downloads.*` show it."""

LIVE = ("queued", "running", "waiting", "offline", "blocked_disk", "verifying")
"""States of a download that comes further by itself."""
STEADY = 2.5
"""Seconds that what stands in the way is shown at least, unless bytes come: who is asked again often fails again."""
WINDOW = 10.0
"""Seconds over which the speed of another process's download is measured."""
KEPT = "Ctrl-C keeps what there is"
"""Ends what is said of a download that may take long."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One download, or several together. Bytes, bytes/s, seconds; `total` 0 and `eta` None: not known.

    `words`: why nothing moves, or "". `outcome`: how the file of a complete one was checked.
    """

    name: str
    state: str
    done: int = 0
    total: int = 0
    speed: int = 0
    eta: int | None = None
    sources: int = 0
    connections: int = 0
    words: str = ""
    outcome: str = ""

    @property
    def share(self) -> float | None:
        """From 0 to 1; None where the size is not known."""
        if self.state == "completed":
            return 1.0
        return min(1.0, self.done / self.total) if self.total else None


def under_way(record: Record) -> bool:
    """Whether a download will still come further by itself. A complete file of a group has no path before all are."""
    return record["state"] in LIVE


def looked_at(record: Record) -> str:
    """What stands in the way of a download, for a command that only looks. It moves bytes too while it does, and ends:
    what no other process moves stands still after it."""
    words = Steady().read(record).words.removesuffix(f"; {KEPT}")
    if not under_way(record) or record["mover"] == "elsewhere":
        return "" if words == record["state"] else words.removeprefix(f"{record['state']}: ")
    error = (record.get("error") or {}).get("message", "")
    if record["state"] in ("running", "verifying", "waiting"):
        words = f"interrupted ({clean(error)})" if error else "interrupted"
    return f"{words}; goes on when jan runs"


class Steady:
    """Reads records, and remembers what stood in their way: it is not taken back before bytes come."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[str, float, int]] = {}
        self._seen: dict[str, deque[tuple[float, int]]] = {}

    def read(self, record: Record, now: float | None = None) -> Standing:
        """How a download stands. `now`: monotonic seconds."""
        now = time.monotonic() if now is None else now
        words = _in_the_way(record)
        id, done = record["id"], record["bytes_done"]
        if record["state"] in ("waiting", "offline", "blocked_disk"):
            self._kept[id] = words, now, done
        elif record["state"] in ("running", "queued") and id in self._kept:
            kept, since, then = self._kept[id]
            if done > then or now - since > STEADY:
                del self._kept[id]
            else:
                words = kept
        rate, left = record["speed"], record["eta"]
        if record["state"] == "running" and not record["connections"]:  # another process moves it: only bytes are known
            rate, left = self._measure(record, now)
        active = [source for source in record.get("sources", []) if source["state"] == "active"]
        return Standing(
            name=clean(record["name"]).replace("\n", " "),
            state=record["state"],
            done=max(done, record["bytes_verified"]) if record["state"] == "verifying" else done,
            total=record["bytes_total"],
            speed=0 if words else rate,
            eta=None if words else left,
            sources=len(active),
            connections=record["connections"],
            words=clean(" ".join(words.split())),
            outcome=_outcome(record),
        )

    def _measure(self, record: Record, now: float) -> tuple[int, int | None]:
        """Bytes/s over the last seconds, and the seconds left."""
        seen = self._seen.setdefault(record["id"], deque())
        seen.append((now, record["bytes_done"]))
        while len(seen) > 2 and now - seen[1][0] > WINDOW:
            seen.popleft()
        began, then = seen[0]
        if now - began < WINDOW / 3:
            return 0, None
        rate = round((record["bytes_done"] - then) / (now - began))
        left = record["bytes_total"] - record["bytes_done"]
        return rate, round(left / rate) if rate and left >= 0 else None


def together(parts: Sequence[Standing], name: str = "total") -> Standing:
    """Several as one: of an unknown size when one of them is."""
    left = sum(max(0, part.total - part.done) for part in parts if part.state != "completed")
    rate = sum(part.speed for part in parts)
    known = all(part.total for part in parts)
    done = all(part.state == "completed" for part in parts)
    in_the_way = _common(part.words for part in parts if part.state != "completed")
    return Standing(
        name=name,
        state="completed" if done else "running",
        done=sum(part.done for part in parts),
        total=sum(part.total for part in parts) if known else 0,
        speed=rate,
        eta=round(left / rate) if known and rate and any(part.eta is not None for part in parts) else None,
        sources=max((part.sources for part in parts), default=0),
        connections=sum(part.connections for part in parts),
        words=in_the_way,
    )


def _common(words: Iterable[str]) -> str:
    """What all of them wait for; "" when one of them moves or waits for something else."""
    different = set(words)
    return different.pop() if len(different) == 1 else ""


def _in_the_way(record: Record) -> str:
    state, error, what = record["state"], (record.get("error") or {}).get("message", ""), record.get("waiting_for")
    if state == "offline":
        return f"waiting for the network; {KEPT}"
    if state in ("waiting", "blocked_disk"):
        return f"waiting for {what or 'a source'}{f' ({error})' if error else ''}; {KEPT}"
    if state == "queued":
        return f"waiting for {what}" if what else "queued"
    if state == "verifying":
        return "verifying: the whole file is hashed"
    if state in ("paused", "failed", "cancelled"):
        return f"{state}: {error}" if error else state
    return ""


def _outcome(record: Record) -> str:
    if record["state"] != "completed":
        return ""
    checked = "verified" if record["verified"] else "not checked"
    return f"{checked}, from {clean(record['origin'])}" if record.get("origin") else checked
