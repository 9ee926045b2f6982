"""What a gate decided, with everything it decided from, in the table `decision`: kept for good, and never changed."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from ..collections import canonical
from ..sqlite import Database
from .gates import Inputs, Verdict

__all__ = ["Decision", "Decisions"]

STAYS_EVERY = 86_400


class Decision(Struct, frozen=True):
    """One row. `at` in seconds since the epoch; `inputs` and `verdict` are canonical JSON."""

    number: int
    at: int
    flag: str
    from_phase: str
    to_phase: str
    reason: str
    inputs: bytes
    verdict: bytes


class Decisions:
    """Of one flag. Every method blocks, and raises StorageError."""

    def __init__(self, db: Database, flag: str) -> None:
        self._db, self._flag = db, flag

    def store(self, inputs: Inputs, verdict: Verdict) -> None:
        """Keep a decision; that nothing changes at most once a day in each phase."""
        with self._db.write() as db:
            if verdict.action == "stay":
                again = db.execute(
                    "SELECT 1 FROM decision WHERE flag = ? AND from_phase = ? AND to_phase = from_phase AND at > ?",
                    [self._flag, inputs.phase, inputs.now - STAYS_EVERY],
                ).fetchone()
                if again:
                    return
            db.execute(
                "INSERT INTO decision (at, flag, from_phase, to_phase, reason, inputs, verdict)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    inputs.now,
                    self._flag,
                    inputs.phase,
                    verdict.phase,
                    verdict.reason,
                    canonical(_plain(inputs)),
                    canonical(_plain(verdict)),
                ],
            )

    def latest(self, limit: int) -> list[Decision]:
        """Newest first."""
        if not self._db.exists:
            return []
        with self._db.read() as db:
            rows = db.execute(
                "SELECT number, at, flag, from_phase, to_phase, reason, inputs, verdict FROM decision WHERE flag = ?"
                " ORDER BY number DESC LIMIT ?",
                [self._flag, limit],
            ).fetchall()
        return [Decision(*row) for row in rows]


def _plain(value: Inputs | Verdict) -> Any:
    return msgspec.to_builtins(value)
