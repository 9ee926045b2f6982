"""Who takes part in which experiment, and in which branch: drawn once, then kept.

`evolve` is pure: from what is kept and what is known now follows what is to be kept. `Enrolments` is the table. What
was shown, and what came of it, is `exposure.py`'s.

* A machine is enrolled when the experiment runs, the machine matches its target and its bucket lies below the
  percentage. It stays so when the percentage falls or nobody new is enrolled (`paused`).
* It takes part in one experiment at a time: every experiment is about what is featured. Who takes part already goes on;
  of those that are new, the one with the smallest id comes first.
* Whoever leaves an experiment, by their own choice or because they are not meant any more, never comes back to it by
  lot: their later behaviour was shaped by what they had seen.
* An experiment with other branches, ratios or another salt is another experiment, whatever it is called.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from ..collections import Experiment, canonical, digest
from ..flags.bucket import EXPERIMENTS, branch, bucket, within
from ..sqlite import Database
from ..targeting import Facts, matches

__all__ = ["Arm", "Enrolment", "Enrolments", "Status", "arm_of", "evolve", "key_of"]

Status = Literal["enrolled", "not_enrolled", "disqualified", "ended"]
_PASSING = frozenset({"memory_free", "device_memory_free"})
"""Facts that change from one look to the next: they count when somebody is enrolled, and not again. So does a fact that
is not known later: a process started in another way may not be told the locale."""
_FORGOTTEN = 180 * 86400


class Enrolment(Struct, frozen=True):
    """Of this machine in one experiment, named by its `key` (`key_of`). `at`: seconds since the epoch.

    `reason`: of `enrolled`, `qualified` (drawn) or `opt-in` (chosen by the person, and not counted); of `not_enrolled`,
    `opt-out`, `paused`, `ended`, `unusable` (nothing can be drawn), `not-targeted`, `not-selected` or `another`
    (experiment has this machine); of `disqualified`, `opt-out`, `not-targeted` or `another`; of `ended`, `ended` or
    `gone` (from the list).
    """

    key: str
    branch: str
    status: Status
    reason: str
    at: int

    @property
    def counted(self) -> bool:
        """Whether it was drawn, and has not left."""
        return self.status in ("enrolled", "ended") and bool(self.branch) and self.reason != "opt-in"


class Arm(Struct, frozen=True):
    """What an enrolled machine is shown: the slot `slot`, "" for what everybody is shown. `counted`: as above."""

    experiment: str
    key: str
    branch: str
    slot: str
    counted: bool


def key_of(experiment: Experiment) -> str:
    """The experiment's id and what must not change while it runs."""
    fixed = [experiment.salt, *([each.id, each.slot, each.ratio] for each in experiment.branches)]
    return f"{experiment.id}#{digest(canonical(fixed))[:12]}"


def evolve(
    experiments: Iterable[Experiment],
    kept: Mapping[str, Enrolment],
    *,
    unit: str,
    facts: Facts,
    enabled: bool,
    now: int,
) -> dict[str, Enrolment]:
    """The enrolments that follow, by key. `experiments`: all that the list has; `unit`: whose bucket is drawn;
    `facts`: of this machine, not of one request; `enabled`: the person takes part in experiments at all."""
    known = {key_of(each): each for each in sorted(experiments, key=lambda each: each.id)}
    found = {
        key: _stays(known.get(key), enrolment, facts, enabled, now)
        for key, enrolment in kept.items()
        if enrolment.status != "not_enrolled"
    }
    active = [each for each in found.values() if each.status == "enrolled"]
    active.sort(key=lambda each: (each.reason != "opt-in", each.at, each.key))
    for other in active[1:]:
        found[other.key] = replace(other, status="disqualified", reason="another", at=now)
    taken = bool(active)
    for key, experiment in known.items():
        if key in found:
            continue
        reason = _unfit(experiment, unit, facts, enabled) or ("another" if taken else "")
        if reason:
            found[key] = Enrolment(key, "", "not_enrolled", reason, now)
        else:
            place = branch(EXPERIMENTS, _salt(experiment), unit, [each.ratio for each in experiment.branches])
            found[key] = Enrolment(key, experiment.branches[place].id, "enrolled", "qualified", now)
            taken = True
    return found


class Enrolments:
    """The table `enrollment`. Who is not enrolled is not kept: that is drawn anew each time. Blocks; raises
    StorageError."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def all(self) -> dict[str, Enrolment]:
        if not self._db.exists:
            return {}
        with self._db.read() as db:
            rows = db.execute("SELECT experiment, branch, status, reason, at FROM enrollment").fetchall()
        return {row[0]: Enrolment(*row) for row in rows}

    def update(
        self, experiments: Sequence[Experiment], *, unit: str, facts: Facts, enabled: bool, now: int
    ) -> dict[str, Enrolment]:
        """`evolve`, and what changed is kept. Evidence of experiments that the person left goes, and of those that
        ended half a year ago."""
        kept = self.all()
        if not experiments and not kept:
            return {}
        found = evolve(experiments, kept, unit=unit, facts=facts, enabled=enabled, now=now)
        changed = [each for each in found.values() if each.status != "not_enrolled" and kept.get(each.key) != each]
        left = [each.key for each in changed if each.status == "disqualified" and each.reason == "opt-out"]
        old = [each.key for each in found.values() if each.status == "ended" and each.at < now - _FORGOTTEN]
        if changed or old:
            self._write(changed, forget=[*left, *old], drop=old)
        return {key: each for key, each in found.items() if key not in old}

    def join(self, experiment: Experiment, branch_id: str, now: int) -> None:
        """Enrol this machine because the person says so. It leaves what it takes part in."""
        others = [
            replace(each, status="disqualified", reason="another", at=now)
            for each in self.all().values()
            if each.status == "enrolled"
        ]
        key = key_of(experiment)
        self._write([*others, Enrolment(key, branch_id, "enrolled", "opt-in", now)], forget=[key])

    def leave(self, key: str, now: int) -> None:
        """Take this machine out of an experiment for good, and forget what was seen of it."""
        there = self.all().get(key)
        self._write([Enrolment(key, there.branch if there else "", "disqualified", "opt-out", now)], forget=[key])

    def _write(self, changed: Sequence[Enrolment], *, forget: Collection[str], drop: Collection[str] = ()) -> None:
        rows = [(each.key, each.branch, each.status, each.reason, each.at) for each in changed]
        with self._db.write() as db:
            db.executemany("INSERT OR REPLACE INTO enrollment VALUES (?, ?, ?, ?, ?)", rows)
            for table in ("exposure", "shown", "outcome"):
                db.executemany(f"DELETE FROM {table} WHERE experiment = ?", [(key,) for key in forget])
            db.executemany("DELETE FROM enrollment WHERE experiment = ?", [(key,) for key in drop])


def arm_of(experiments: Iterable[Experiment], enrolments: Mapping[str, Enrolment]) -> Arm | None:
    """What this machine is to be shown; None: what everybody is."""
    for experiment in experiments:
        enrolment = enrolments.get(key_of(experiment))
        if enrolment is not None and enrolment.status == "enrolled":
            slot = next((each.slot for each in experiment.branches if each.id == enrolment.branch), "")
            return Arm(experiment.id, enrolment.key, enrolment.branch, slot, enrolment.counted)
    return None


def _stays(experiment: Experiment | None, enrolment: Enrolment, facts: Facts, enabled: bool, now: int) -> Enrolment:
    """What becomes of an enrolment, whatever other experiments there are."""
    if enrolment.status != "enrolled":
        return enrolment
    if not enabled:
        return replace(enrolment, status="disqualified", reason="opt-out", at=now)
    if experiment is None or experiment.state == "ended":
        # Who was not drawn was never counted, and must not be now: without a branch it is not.
        of = "" if enrolment.reason == "opt-in" else enrolment.branch
        return replace(enrolment, status="ended", branch=of, reason="ended" if experiment else "gone", at=now)
    lasting = [each for each in experiment.target if each.field in facts.keys() - _PASSING]
    if enrolment.reason != "opt-in" and not matches(lasting, facts):
        return replace(enrolment, status="disqualified", reason="not-targeted", at=now)
    return enrolment


def _unfit(experiment: Experiment, unit: str, facts: Facts, enabled: bool) -> str:
    """Why a machine is not enrolled; "": it is."""
    if not enabled:
        return "opt-out"
    if experiment.state != "running":  # a state that this program does not know enrols nobody either
        return "paused" if experiment.state == "paused" else "ended"
    if len(experiment.branches) < 2 or min(each.ratio for each in experiment.branches) < 1:
        return "unusable"
    if not matches(experiment.target, facts):
        return "not-targeted"
    if not within(bucket(EXPERIMENTS, _salt(experiment), unit), experiment.percent):
        return "not-selected"
    return ""


def _salt(experiment: Experiment) -> str:
    return experiment.salt or experiment.id
