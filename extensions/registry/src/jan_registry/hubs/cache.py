"""What other hubs answered, kept in `hub_cache` of `registry.db`: an LRU of bodies with their validators.

It knows neither HTTP nor which answers are good for how long: `http.py` says. Every method blocks. Nothing readable of
a request is stored, neither its address nor its token; a key is a hash.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from ..sqlite import Database

__all__ = ["CAP", "Entry", "HubCache", "cache_key"]

CAP = 64 << 20
"""Bytes that are kept at most."""

_OVERHEAD = 512
"""What a row costs beside its body."""

_EVICT = 10
_TOUCH = 60
"""Seconds: how exact `last_used` is, so that reading does not write each time."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer. Times in whole seconds since the epoch: it needs no asking before `fresh_until`, and may be shown when
    asking fails before `stale_until`."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)
    fetched_at: int
    fresh_until: int
    stale_until: int
    etag: str = ""
    last_modified: str = ""


def cache_key(url: str, accept: str, token: str) -> str:
    """What an answer is kept under: to whom it was given is part of it."""
    return hashlib.sha256("\0".join((url, accept, token)).encode()).hexdigest()


class HubCache:
    """The table. Raises StorageError."""

    def __init__(self, database: Database, *, cap: int = CAP) -> None:
        self._database, self._cap = database, cap

    def get(self, key: str, now: float) -> Entry | None:
        """What is kept, however old. It counts as used now."""
        if not self._database.exists:
            return None
        with self._database.read() as db:
            row = db.execute(
                "SELECT last_used, status, headers, body, fetched_at, fresh_until, stale_until, etag, last_modified"
                " FROM hub_cache WHERE key = ?",
                [key],
            ).fetchone()
        if row is None:
            return None
        if abs(now - row[0]) >= _TOUCH:
            with self._database.write() as db:
                db.execute("UPDATE hub_cache SET last_used = ? WHERE key = ?", [int(now), key])
        return Entry(row[1], json.loads(row[2]), bytes(row[3]), *row[4:])

    def put(self, key: str, hub: str, entry: Entry, now: float) -> None:
        """Keep an answer, and let go of those longest unused while there is too much. One of more than a quarter of
        the whole is not kept."""
        if len(entry.body) > self._cap // 4:
            return self.drop(key)
        with self._database.write() as db:
            db.execute(
                "INSERT OR REPLACE INTO hub_cache (key, hub, status, etag, last_modified, headers, size, fetched_at,"
                " fresh_until, stale_until, last_used, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    *(key, hub, entry.status, entry.etag, entry.last_modified, json.dumps(entry.headers)),
                    *(
                        len(entry.body) + _OVERHEAD,
                        entry.fetched_at,
                        entry.fresh_until,
                        entry.stale_until,
                        int(now),
                        entry.body,
                    ),
                ],
            )
            while db.execute("SELECT total(size) FROM hub_cache").fetchone()[0] > self._cap:
                db.execute(
                    "DELETE FROM hub_cache WHERE key IN"
                    " (SELECT key FROM hub_cache WHERE key != ? ORDER BY last_used LIMIT ?)",
                    [key, _EVICT],
                )
        return None

    def drop(self, key: str) -> None:
        if self._database.exists:
            with self._database.write() as db:
                db.execute("DELETE FROM hub_cache WHERE key = ?", [key])
