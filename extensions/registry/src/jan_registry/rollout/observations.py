"""What was seen of the two lists, in the table `observation`: bounded, and written off the request path.

`add` and `served` only touch memory; `take` and `write` bring it to the disk now and then. Nothing here judges, and
nothing leaves the machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct, field

from jan_core.types import Phase

from ..sqlite import Database
from .arm import Arm
from .compare import Deviation

__all__ = ["Entered", "Observation", "Observations", "Pair", "Row", "Serve", "Sync", "percentile"]

KEPT_SECONDS = 90 * 86_400
KEPT_ROWS = 20_000
PENDING = 1_000
SAMPLES = 64
PRUNE_SECONDS = 3_600


class Sync(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="sync"):
    """The hub was asked. `refused`: the kind of refusal (a signature, a rollback, …); `unreachable`: no answer."""

    outcome: Literal["ok", "unreachable", "refused"]
    refused: str = ""
    seq: int = 0

    @property
    def ok(self) -> int:
        return {"ok": 1, "unreachable": -1, "refused": 0}[self.outcome]


class Pair(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="pair"):
    """Both lists answered the same question, or failed to (`…_error`, in which case there is nothing to compare).

    Microseconds; -1 where there was no answer. `cold`: the dynamic list had just changed, so the time says nothing
    about the next one. `age` in seconds since the hub confirmed the list, -1 when nobody knows.
    """

    served: Literal["builtin", "dynamic", ""] = ""
    builtin_us: int = -1
    dynamic_us: int = -1
    builtin_error: str = ""
    dynamic_error: str = ""
    cold: bool = False
    age: int = -1
    seq: int = 0
    coverage: int = -1
    overlap: int = -1
    invalid: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    examples: list[Deviation] = field(default_factory=list)

    @property
    def conflicts(self) -> int:
        """-1 when nothing could be compared."""
        return self.counts.get("conflict", 0) if self.coverage >= 0 else -1

    @property
    def ok(self) -> int:
        if self.dynamic_error:
            return -1 if self.builtin_error else 0
        return 0 if self.conflicts > 0 or self.invalid else 1


class Serve(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="serve"):
    """Answers of one arm since the last batch: `micros` are those of every n-th, spread evenly."""

    arm: Arm
    count: int
    errors: int = 0
    micros: list[int] = field(default_factory=list)

    @property
    def ok(self) -> int:
        return 0 if self.errors else 1


class Entered(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="phase"):
    """Another phase is in force, or somebody else chose it (`level` of `inforce.py`), or another percentage of machines
    is served the dynamic list in `mixed`."""

    phase: Phase
    level: str = ""
    percent: int = 0
    reason: str = ""

    @property
    def ok(self) -> int:
        return 1


Observation = Sync | Pair | Serve | Entered


class Row(Struct, frozen=True):
    """An observation, and when it was made (seconds since the epoch)."""

    at: int
    seen: Observation


class _Answers:
    """The answers of one arm since the last batch, in bounded memory: when it is full, every other sample goes."""

    def __init__(self, before: int) -> None:
        self.count = self.errors = 0
        self.in_a_row = before
        self.micros: list[int] = []
        self._every = 1

    def add(self, micros: int, ok: bool) -> None:
        if ok and self.count % self._every == 0:
            self.micros.append(micros)
            if len(self.micros) >= SAMPLES:
                del self.micros[1::2]
                self._every *= 2
        self.count += 1
        self.errors += not ok
        self.in_a_row = 0 if ok else self.in_a_row + 1


class Observations:
    """Of one flag. `add`, `served` and `take` belong to the event loop; `write` and the readers block and may run in a
    worker thread. These raise StorageError."""

    def __init__(self, db: Database, flag: str) -> None:
        self._db, self._flag = db, flag
        self._pending: deque[Row] = deque(maxlen=PENDING)
        self._answers: dict[Arm, _Answers] = {}
        self._pruned_at = 0

    def add(self, at: float, seen: Observation) -> None:
        self._pending.append(Row(int(at), seen))

    def served(self, arm: Arm, micros: int, ok: bool = True) -> None:
        """An answer was served. The one call that lies on the request path."""
        answers = self._answers.get(arm)
        if answers is None:
            answers = self._answers[arm] = _Answers(0)
        answers.add(micros, ok)

    def errors_in_a_row(self, arm: Arm) -> int:
        """Answers that this process failed to give from an arm, one after the other, until now."""
        return self._answers[arm].in_a_row if arm in self._answers else 0

    def forget_errors(self) -> None:
        """Another phase begins: what failed before is not held against it."""
        for answers in list(self._answers.values()):  # called in a worker thread
            answers.in_a_row = 0

    def take(self, now: float) -> list[Row]:
        """What is not yet on the disk, for `write`; those that it fails to write are lost."""
        for arm, answers in self._answers.items():
            if answers.count:
                serve = Serve(arm=arm, count=answers.count, errors=answers.errors, micros=answers.micros)
                self.add(now, serve)
                self._answers[arm] = _Answers(answers.in_a_row)
        rows = list(self._pending)
        self._pending.clear()
        return rows

    def write(self, rows: Sequence[Row], now: float) -> None:
        """Append, and once an hour drop what is too old or too much."""
        due = now - self._pruned_at >= PRUNE_SECONDS
        if not rows and not (due and self._db.exists):
            return
        encode = msgspec.json.encode
        kind = {Sync: "sync", Pair: "pair", Serve: "serve", Entered: "phase"}
        values = [(row.at, self._flag, kind[type(row.seen)], row.seen.ok, encode(row.seen)) for row in rows]
        with self._db.write() as db:
            db.executemany("INSERT INTO observation (at, flag, kind, ok, data) VALUES (?, ?, ?, ?, ?)", values)
            if due:
                old = "DELETE FROM observation WHERE at < ? AND kind <> 'phase'"  # one may be in force for years
                db.execute(old, [int(now) - KEPT_SECONDS])
                for name in kind.values():
                    db.execute(
                        "DELETE FROM observation WHERE flag = ?1 AND kind = ?2 AND rowid <= (SELECT rowid FROM"
                        " observation WHERE flag = ?1 AND kind = ?2 ORDER BY rowid DESC LIMIT 1 OFFSET ?3)",
                        [self._flag, name, KEPT_ROWS],
                    )
        if due:
            self._pruned_at = int(now)

    def latest(self, kind: str, since: int = 0, limit: int = KEPT_ROWS) -> list[Row]:
        """The last observations of a kind made at `since` or later, newest first."""
        if not self._db.exists:
            return []
        with self._db.read() as db:
            rows = db.execute(
                "SELECT at, data FROM observation WHERE flag = ? AND kind = ? AND at >= ? ORDER BY rowid DESC LIMIT ?",
                [self._flag, kind, since, limit],
            ).fetchall()
        decode = msgspec.json.Decoder(Observation).decode
        return [Row(at, decode(data)) for at, data in rows]

    def run(self, kind: str, since: int) -> tuple[int, int, int]:
        """The good observations of a kind since the last bad one (and since `since`): how many, over how many seconds;
        and how many bad ones no good one has followed."""
        if not self._db.exists:
            return 0, 0, 0
        with self._db.read() as db:
            where = "flag = ?1 AND kind = ?2 AND at >= ?3"
            values: list[object] = [self._flag, kind, since]
            last_bad, last_good = (
                db.execute(
                    f"SELECT coalesce(max(rowid), 0) FROM observation WHERE {where} AND ok = {ok}", values
                ).fetchone()[0]
                for ok in (0, 1)
            )
            count, span = db.execute(
                f"SELECT count(*), coalesce(max(at) - min(at), 0) FROM observation WHERE {where} AND ok = 1"
                " AND rowid > ?4",
                [*values, last_bad],
            ).fetchone()
            bad = db.execute(
                f"SELECT count(*) FROM observation WHERE {where} AND ok = 0 AND rowid > ?4", [*values, last_good]
            ).fetchone()[0]
        return count, max(0, span), bad


def percentile(values: Sequence[int], percent: int) -> int:
    """The nearest-rank percentile; -1 of nothing."""
    if not values:
        return -1
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]
