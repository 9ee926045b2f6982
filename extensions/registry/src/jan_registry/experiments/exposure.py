"""What an experiment has shown on this machine, and what came of it. Local: nothing here is sent.

An exposure is that a featured list was shown to somebody who takes part, whatever the branch; it counts once a session.
An outcome is that a model which was shown was then downloaded, loaded or talked with. Who takes part is
`enrolment.py`'s; what happened, `watching.py`'s. Blocks; raises StorageError.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct, field

from ..sqlite import Database
from .enrolment import Arm

__all__ = ["WINDOW", "Evidence", "Exposures"]

WINDOW = 7 * 86400
"""Seconds from the first exposure within which an outcome counts. A machine is compared when they are over: then what
it did is settled, and it enters once."""


class Evidence(Struct):
    """Of one experiment: when it was first shown (seconds since the epoch), in how many sessions, and when each kind of
    outcome first came of it."""

    first: int
    sessions: int
    outcomes: dict[str, int] = field(default_factory=dict)

    def settled(self, now: float) -> bool:
        return now >= self.first + WINDOW

    def converted(self, kind: str) -> bool:
        """Whether an outcome of this kind came in time."""
        return kind in self.outcomes and self.outcomes[kind] < self.first + WINDOW


class Exposures:
    """The tables `exposure`, `shown` and `outcome`, for one session: the time from start to end of the host."""

    def __init__(self, db: Database, session: str) -> None:
        self._db, self._session = db, session
        self._noted: set[tuple[str, str]] = set()  # of this session: experiment and model

    def is_new(self, arm: Arm, models: Collection[str]) -> bool:
        """Whether there is anything to be written; quick, and asks no disk."""
        return arm.counted and not self._noted.issuperset((arm.key, model) for model in ("", *models))

    def shown(self, arm: Arm, models: Collection[str], now: float) -> None:
        """These models were featured."""
        if not self.is_new(arm, models):
            return
        with self._db.write() as db:
            db.execute(
                "INSERT OR IGNORE INTO exposure VALUES (?, ?, ?, ?)", [arm.key, arm.branch, self._session, int(now)]
            )
            db.executemany("INSERT OR IGNORE INTO shown VALUES (?, ?)", [(arm.key, model) for model in models])
        self._noted.update((arm.key, model) for model in ("", *models))

    def forget(self) -> None:
        """Somebody left an experiment: what this session has noted may be gone."""
        self._noted.clear()

    def used(self, model: str, kind: str, now: float) -> None:
        """A model was downloaded, loaded or talked with. It counts for experiments that showed it to who was drawn."""
        if not self._db.exists:
            return
        with self._db.read() as db:
            if db.execute("SELECT 1 FROM shown WHERE model = ?", [model]).fetchone() is None:
                return
        with self._db.write() as db:
            db.execute(
                "INSERT INTO outcome SELECT s.experiment, ?, ?, 1 FROM shown AS s JOIN enrollment AS e"
                " ON e.experiment = s.experiment AND e.status = 'enrolled' AND e.reason = 'qualified'"
                " WHERE s.model = ? ON CONFLICT DO UPDATE SET count = count + 1",
                [kind, int(now), model],
            )

    def evidence(self) -> dict[str, Evidence]:
        """All there is, by the experiment's key."""
        if not self._db.exists:
            return {}
        with self._db.read() as db:
            rows = db.execute("SELECT experiment, min(at), count(*) FROM exposure GROUP BY experiment").fetchall()
            outcomes = db.execute("SELECT experiment, kind, at FROM outcome").fetchall()
        found = {key: Evidence(first, sessions) for key, first, sessions in rows}
        for key, kind, at in outcomes:
            if key in found:
                found[key].outcomes[kind] = at
        return found
