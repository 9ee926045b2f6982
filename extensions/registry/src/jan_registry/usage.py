"""How often this person uses which model, by the day: for the order of what is recommended to them.

It is kept on this machine, and nothing of it is sent. Days are counted from the epoch. Blocks; raises StorageError.
"""

from __future__ import annotations

from collections.abc import Mapping

from .sqlite import Database

__all__ = ["DAY", "HALF_LIFE", "KINDS", "Usage", "score"]

DAY = 86400
HALF_LIFE = 14
"""Days after which what was done counts half."""
KINDS: Mapping[str, float] = {"download": 1.0, "load": 0.5, "chat": 1.0}
"""What is counted, and how much one of it says. A download is a wish; a chat, that it was fulfilled."""
_FORGOTTEN = 180


class Usage:
    """The table `usage`."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._added = 0
        self._scores: tuple[int, int, dict[str, float]] | None = None  # of which day, after how many were added

    def add(self, model: str, kind: str, now: float) -> None:
        """One more of a kind, which is one of `KINDS`."""
        today = int(now // DAY)
        with self._db.write() as db:
            db.execute(
                "INSERT INTO usage VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
                [model, kind, today],
            )
            db.execute("DELETE FROM usage WHERE day < ?", [today - _FORGOTTEN])
        self._added += 1

    def scores(self, now: float) -> dict[str, float]:
        """How much each model is used, by `score`."""
        today, added, cached = int(now // DAY), self._added, self._scores
        if cached is not None and cached[:2] == (today, added):
            return cached[2]
        found: dict[str, float] = {}
        if self._db.exists:
            with self._db.read() as db:
                rows = db.execute("SELECT model, kind, day, count FROM usage ORDER BY model, kind, day").fetchall()
            for model, kind, day, count in rows:
                found[model] = found.get(model, 0.0) + score(kind, count, today - day)
        self._scores = today, added, found
        return found


def score(kind: str, count: int, days: int) -> float:
    """What so many uses so many days ago are worth; a day to come (a clock was put back) counts as today."""
    return float(KINDS.get(kind, 0.0) * count * 0.5 ** (max(0, days) / HALF_LIFE))
