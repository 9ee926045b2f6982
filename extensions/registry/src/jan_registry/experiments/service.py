"""Experiments of one generation: what is shown, what is noted of it, what it amounts to.

What is on the request path is in memory; what is written is written by tasks beside it. When the disk does not do,
nobody takes part, and what is recommended is what everybody sees.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import anyio
import anyio.to_thread

from jan_core import Context, InvalidParams, StorageError
from jan_core.types import ModelRecord

from ..collections import Experiment
from ..flags.identity import install_id
from ..sqlite import Database
from ..targeting import Facts
from ..usage import Usage
from .enrolment import Arm, Enrolment, Enrolments, arm_of, evolve, key_of
from .exposure import Exposures
from .shapes import Aggregate, ExperimentReport, ExperimentsQuery, ExperimentsReport, Kind

__all__ = ["Experiments", "Situation"]


@dataclass(frozen=True, slots=True)
class Situation:
    """What the signed list and this machine say now. `experiments`: the same object as long as the list is the same;
    `slots`: the ids of the featured slots in it; `facts`: of this machine; `enabled`: the person takes part at all."""

    experiments: Sequence[Experiment]
    slots: Collection[str]
    facts: Facts
    enabled: bool


class Experiments:
    """`situation` answers None while another list than a signed one is served: then nothing begins or ends."""

    def __init__(
        self,
        ctx: Context,
        db: Database,
        situation: Callable[[], Awaitable[Situation | None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ctx, self._db, self._situation, self._clock = ctx, db, situation, clock
        self.usage = Usage(db)
        self._enrolments = Enrolments(db)
        self._exposures = Exposures(db, os.urandom(8).hex())
        self._changing, self._noting = anyio.Lock(), anyio.Lock()
        self._known: tuple[Situation, Arm | None] | None = None
        self._unnoted: list[tuple[Arm, list[str], float]] = []

    async def choose(self) -> Arm | None:
        """What is to be shown to this machine in place of what everybody sees; None: that."""
        situation = await self._situation()
        if situation is None:
            return None
        if (known := self._known) is None or not _same(known[0], situation):
            async with self._changing:
                if (known := self._known) is None or not _same(known[0], situation):
                    known = self._known = situation, await anyio.to_thread.run_sync(self._update, situation)
        return known[1]

    def shown(self, arm: Arm | None, models: Iterable[ModelRecord]) -> None:
        """This was recommended just now. Noted once a session, by a task of its own."""
        if arm is None:
            return
        ids = [model.id for model in models]
        if self._exposures.is_new(arm, ids):
            self._unnoted.append((arm, ids, self._clock()))
            self._ctx.tasks.start_soon(self.flush)

    async def flush(self) -> None:
        """Note what was shown and is not noted yet. To be called before the database is closed: a process may end
        with the answer it was started for."""

        def write() -> None:
            for arm, ids, at in unnoted:
                self._exposures.shown(arm, ids, at)

        async with self._noting:
            unnoted, self._unnoted = self._unnoted, []
            if unnoted:
                await self._write(write)

    async def used(self, model: str, kind: Kind) -> None:
        """A model was downloaded, loaded or talked with."""

        def write() -> None:
            self._exposures.used(model, kind, self._clock())
            self.usage.add(model, kind, self._clock())

        await self._write(write)

    async def join(self, id: str, branch: str) -> None:
        """Take part in an experiment by choice, uncounted. Raises InvalidParams, StorageError."""
        experiment = await self._find(id)
        if experiment.state == "ended":
            raise InvalidParams(f"{id} has ended", path="$.experiment")
        if branch not in (known := [each.id for each in experiment.branches]):
            raise InvalidParams(f"{id} has no branch {branch!r}; it has: {', '.join(known)}", path="$.branch")
        async with self._changing:
            await anyio.to_thread.run_sync(self._enrolments.join, experiment, branch, int(self._clock()))
            self._forget()

    async def leave(self, id: str) -> None:
        """Leave an experiment for good. Raises InvalidParams, StorageError."""
        experiment = await self._find(id)
        async with self._changing:
            await anyio.to_thread.run_sync(self._enrolments.leave, key_of(experiment), int(self._clock()))
            self._forget()

    async def report(self, query: ExperimentsQuery) -> ExperimentsReport:
        """How experiments stand. Where the disk does not do, nothing is said of this machine's part. Raises
        InvalidParams."""
        from .report import Unfit

        situation = await self._situation()
        await self.choose()  # what has begun or ended since is part of it
        try:
            return await anyio.to_thread.run_sync(self._report, query, situation)
        except Unfit as error:
            raise InvalidParams(f"these counts cannot be: {error}", path=f"$.merge[{error.place}]") from None

    async def reconsider(self) -> None:
        """Settings are others now: whoever does not want to take part leaves at once."""
        self._known = None
        await self.choose()

    def _update(self, situation: Situation) -> Arm | None:
        if not situation.experiments and not self._db.exists:
            return None
        try:
            kept = self._enrolments.update(
                situation.experiments,
                unit=install_id(self._db),
                facts=situation.facts,
                enabled=situation.enabled,
                now=int(self._clock()),
            )
        except StorageError as error:
            self._ctx.log.warning("no experiments: %s", error.message)
            return None
        # An experiment one of whose slots is not in the list would compare something else than it says.
        whole = [
            each
            for each in situation.experiments
            if all(not branch.slot or branch.slot in situation.slots for branch in each.branches)
        ]
        self._exposures.forget()
        return arm_of(whole, kept)

    def _report(self, query: ExperimentsQuery, situation: Situation | None) -> ExperimentsReport:
        from .report import aggregate_of, assess, merged, metric_of

        known = {key_of(each): each for each in situation.experiments} if situation else {}
        now, unit, notes = self._clock(), "", list[str]()
        try:
            kept, evidence = self._enrolments.all(), self._exposures.evidence()
            unit = install_id(self._db) if known else ""
        except StorageError as error:
            kept = {key: Enrolment(key, "", "not_enrolled", "unusable", int(now)) for key in known}
            evidence = {}
            notes.append(f"this machine's part cannot be told: {error.message}")
        if situation is not None and not notes:
            kept = evolve(
                known.values(),
                kept,
                unit=unit,
                facts=situation.facts,
                enabled=situation.enabled,
                now=int(now),
            )
        own: list[Aggregate] = []
        for key, experiment in known.items():
            if found := aggregate_of(experiment, kept[key], evidence.get(key), now):
                own.append(found)
        # Others' first: a place in an error is then the place in what was given.
        sums = merged([*query.merge, *(own if query.here else [])])
        reports = {key: assess(aggregate) for key, aggregate in sums.items()}
        for key, enrolment in kept.items():
            report = reports.get(key) or ExperimentReport(experiment=key.partition("#")[0], key=key)
            report.status, report.reason, report.branch = enrolment.status, enrolment.reason, enrolment.branch
            report.sessions = evidence[key].sessions if key in evidence else 0
            if key in known:
                report.title, report.state, report.metric = known[key].title, known[key].state, metric_of(known[key])
            reports[key] = report
        enabled = situation.enabled if situation else False
        return ExperimentsReport(enabled, [reports[key] for key in sorted(reports)], own, notes)

    async def _find(self, id: str) -> Experiment:
        situation = await self._situation()
        if situation is None or not situation.enabled:
            raise InvalidParams("this machine takes part in no experiments now", path="$.experiment")
        experiments = situation.experiments
        for each in experiments:
            if each.id == id:
                return each
        known = ", ".join(each.id for each in experiments) or "none"
        raise InvalidParams(f"the list has no experiment {id!r}; it has: {known}", path="$.experiment")

    async def _write(self, work: Callable[[], None]) -> None:
        """What cannot be noted is not noted: that is no reason to fail."""
        try:
            await anyio.to_thread.run_sync(work)
        except StorageError as error:
            self._ctx.log.warning("not noted: %s", error.message)

    def _forget(self) -> None:
        self._known = None
        self._exposures.forget()


def _same(one: Situation, other: Situation) -> bool:
    """The list's own objects are compared by identity: they are made anew when it changes."""
    return one.experiments is other.experiments and (one.facts, one.enabled) == (other.facts, other.enabled)
