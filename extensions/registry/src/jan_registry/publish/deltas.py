"""Which differences a collection offers to who has an older version of it.

A delta says whole records: those that changed since, as they are now, and the ids that went away since. Clients trust
none of it: they believe the outcome when it has the signed hash. So that a delta from any version can be made without
that version, the history remembers for each id when it last changed, as Kinto's `last_modified` does.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from ..collections import canonical
from .content import Content
from .roles import DAY

__all__ = ["History", "Point", "advance", "delta", "delta_path", "largest"]

RECENT = 64
"""So many of the last versions have a delta…"""
DAYS = 30
"""…and the last version of each of so many days."""


class Point(Struct, frozen=True):
    """A version of the collection: its counter, its hash, and when it was published (seconds)."""

    seq: int
    sha256: str
    at: int


class History(Struct, frozen=True):
    """`points`: the versions that a delta can start from, oldest first; the last one is the present version.
    `changed`, `deleted`: id -> the `seq` in which it last did so, as far back as the first point."""

    points: list[Point]
    changed: dict[str, int]
    deleted: dict[str, int]

    def from_on(self, seq: int) -> History:
        """Forget what came before `seq`."""
        return History(
            [point for point in self.points if point.seq >= seq],
            {id: at for id, at in self.changed.items() if at > seq},
            {id: at for id, at in self.deleted.items() if at > seq},
        )


def advance(history: History, before: Content, after: Content, *, seq: int, now: float) -> History:
    """The history with one more version, without the points that nothing is offered from any more."""
    changed, deleted = dict(history.changed), dict(history.deleted)
    for id, record in after.records.items():
        if before.records.get(id) != record:
            changed[id] = seq
            deleted.pop(id, None)
    for id in before.records.keys() - after.records.keys():
        deleted[id] = seq
        changed.pop(id, None)
    last_of_day = {point.at // DAY: point.seq for point in history.points}
    kept = [
        point
        for point in history.points
        if point.seq >= seq - RECENT or (last_of_day[point.at // DAY] == point.seq and point.at > now - DAYS * DAY)
    ]
    present = Point(seq, after.sha256, int(now))
    oldest = kept[0].seq if kept else seq
    return History([*kept, present], changed, deleted).from_on(oldest)


def delta(name: str, history: History, records: Mapping[str, bytes], since: int) -> bytes:
    """What leads from the version `since` to the present one: `{"collection","delete","from","to","upsert"}`."""
    head = canonical({"collection": name})[:-1]
    gone = canonical(sorted(id for id, seq in history.deleted.items() if seq > since))
    upsert = b",".join(records[id] for id in sorted(history.changed) if history.changed[id] > since)
    return b'%b,"delete":%b,"from":%d,"to":%d,"upsert":[%b]}' % (head, gone, since, history.points[-1].seq, upsert)


def delta_path(name: str, since: int, to: int) -> str:
    """Where it lies, relative to the hub."""
    return f"deltas/{name}/{since}-{to}.json.gz"


def largest(full: int) -> int:
    """How long a packed delta may be when the packed snapshot has `full` bytes: half of that, or a packet or two."""
    return max(full // 2, 4096)
