"""One machine's roll-out at work: what was served and synced goes in, and the phase follows from it.

It keeps observations, runs the shadow, asks the gate and obeys it; which list is served is decided by who asks
`PhaseKeeper` (`phase.py`). Nothing here waits on the request path, and a disk that fails costs observations, never an
answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from jan_core import JanError, StorageError

from ..flags.known import PHASE
from ..sqlite import Database
from .arm import Arm
from .decisions import Decisions
from .evidence import gather
from .gates import VERSION, Evidence, Inputs, Thresholds, Verdict, judge
from .observations import Entered, Observations, Pair, Row, Sync
from .shadow import Answer, ShadowRunner, Start

if TYPE_CHECKING:
    from ..signed.report import SyncReport
    from .phase import Effective, PhaseKeeper

__all__ = ["Rollout"]

Q = TypeVar("Q")

FLUSH_SECONDS = 60.0
CHECK_SECONDS = 900.0


class Rollout(Generic[Q]):
    """`builtin` and `dynamic` answer a question as it is answered when it is served; `usual` is the one that is asked
    when nobody did. `start`: `ctx.tasks.start_soon`. `clock`: seconds since the epoch; `monotonic` and `sleep` for the
    shadow. Run `serve` as a background task, and `flush` when it was cancelled."""

    def __init__(
        self,
        db: Database,
        keeper: PhaseKeeper,
        builtin: Callable[[Q], Awaitable[Answer]],
        dynamic: Callable[[Q], Awaitable[Answer]],
        usual: Q,
        start: Start,
        log: logging.Logger,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] | None = None,
    ) -> None:
        self.observations, self.decisions = Observations(db, PHASE), Decisions(db, PHASE)
        self.thresholds = Thresholds()
        self._keeper, self._usual, self._start, self._log = keeper, usual, start, log
        self._clock, self._sleep = clock, sleep
        self._shadow: ShadowRunner[Q] = ShadowRunner(
            builtin, dynamic, start, self._paired, suspicious=self._suspicious, clock=monotonic, sleep=sleep
        )
        self._judging, self._checking = threading.Lock(), False
        self._entered: tuple[str, str, int] | None = None

    def served(
        self, effective: Effective, arm: Arm, micros: int, question: Q, answer: Answer | None, error: str = ""
    ) -> None:
        """`arm` answered `question` in `micros` (from asking the list to having its answer), or failed with `error`.
        `effective`: the phase by which the arm was chosen. On the request path, and quick."""
        self.observations.served(arm, micros, answer is not None)
        if effective.shadow:
            self._shadow.served(arm, micros, question, answer, error)
        elif self._failed(effective) >= self.thresholds.errors:
            self._check_soon()

    def synced(self, effective: Effective, found: SyncReport | JanError) -> None:
        """The hub was asked, and this came of it. While there are two lists, they are compared anew."""
        self.observations.add(self._clock(), _sync(found))
        if not isinstance(found, JanError) and effective.phase != "dynamic":
            self._shadow.look(self._usual)

    async def serve(self) -> None:
        """Write what was seen now and then, and look whether the next step is due. Ends by being cancelled."""
        import anyio

        sleep = self._sleep or anyio.sleep
        checked = self._clock()
        while True:
            await sleep(FLUSH_SECONDS)
            if self._clock() - checked >= CHECK_SECONDS:
                checked = self._clock()
                await self.check()
            else:
                await self.flush()

    async def flush(self) -> None:
        """Bring what was seen to the disk."""
        await self._in_thread(self._flush)

    async def check(self) -> Verdict | None:
        """Ask the gate, and obey it. None when nothing was decided: the disk did not do, or no flag was read yet."""
        return await self._in_thread(self._check)

    async def _in_thread(self, work: Callable[[list[Row], float], Verdict | None]) -> Verdict | None:
        import anyio.to_thread

        now = self._clock()
        rows = self.observations.take(now)
        try:
            return await anyio.to_thread.run_sync(partial(work, rows, now))
        except StorageError as error:
            self._log.warning("observations of the roll-out are lost: %s", error.message)
            return None

    def _flush(self, rows: list[Row], now: float) -> None:
        with self._judging:
            self._written(rows, now)

    def _written(self, rows: list[Row], now: float) -> None:
        effective = self._keeper.effective(now)
        level = "demotion" if effective.cooling else effective.level
        percent = effective.percent if effective.phase == "mixed" else 0
        entered = (effective.phase, level, percent)
        if self._entered != entered and self._keeper.settled(now):
            last = self.observations.latest("phase", limit=1)
            before = last[0].seen if last else None
            if not isinstance(before, Entered) or (before.phase, before.level, before.percent) != entered:
                reason = effective.cause if effective.cooling else effective.reason
                seen = Entered(phase=effective.phase, level=level, percent=percent, reason=reason)
                rows = [*rows, Row(int(now), seen)]
            self._entered = entered
        self.observations.write(rows, now)

    def _check(self, rows: list[Row], now: float) -> Verdict | None:
        with self._judging:  # two checks of the same evidence would go two steps back
            self._written(rows, now)
            return self._judged(now) if self._keeper.settled(now) else None

    def _judged(self, now: float) -> Verdict:
        inputs = self.inputs(now)
        verdict = judge(inputs)
        if verdict.action == "demote":
            self._keeper.demote(verdict.reason, now)
        elif verdict.action == "promote":
            self._keeper.promote(now)
        if verdict.action != "stay":
            self.observations.forget_errors()
            self._log.info("registry: %s to %s: %s", verdict.action, verdict.phase, verdict.reason)
            self._written([], now)
        self.decisions.store(inputs, verdict)
        return verdict

    def inputs(self, now: float) -> Inputs:
        """What the gate would judge now. Blocks; raises StorageError."""
        effective = self._keeper.effective(now)
        since = effective.since + 1 if effective.since else 0  # what led to the phase is no evidence in it
        evidence = gather(self.observations, self.thresholds, since=since, errors=self._failed(effective))
        return msgspec.structs.replace(self.blind(now), evidence=evidence)

    def blind(self, now: float) -> Inputs:
        """The same as long as nothing was observed, or nothing can be read of it."""
        effective = self._keeper.effective(now)
        return Inputs(
            gate=VERSION,
            phase=effective.phase,
            now=int(now),
            pinned=effective.pinned,
            obstacle=self._keeper.obstacle(now),
            evidence=Evidence(),
            thresholds=self.thresholds,
        )

    def _failed(self, effective: Effective) -> int:
        """Answers in a row that the dynamic list failed to give. Where the shadow runs, its pairs say more: whether the
        other list could answer. In `fallback` the other list answers in its place."""
        if effective.shadow or effective.phase == "fallback":
            return 0
        return self.observations.errors_in_a_row("dynamic")

    async def _paired(self, pair: Pair) -> bool:
        """Whether to look again at once, where the pair is suspicious."""
        self.observations.add(self._clock(), pair)
        if not self._suspicious(pair):
            return False
        await self.check()
        effective = self._keeper.peek(self._clock())
        return effective is not None and effective.shadow and not effective.pinned

    def _suspicious(self, pair: Pair) -> bool:
        limit = max(self.thresholds.p95, pair.builtin_us * self.thresholds.slow_percent // 100)
        return pair.ok == 0 or (not pair.cold and pair.builtin_us >= 0 and pair.dynamic_us > limit)

    def _check_soon(self) -> None:
        if not self._checking:
            self._start(self._check_once, name="registry gate")
            self._checking = True

    async def _check_once(self) -> None:
        try:
            await self.check()
        finally:
            self._checking = False


def _sync(found: SyncReport | JanError) -> Sync:
    if isinstance(found, JanError):
        kind = str(found.data.get("kind", ""))
        return Sync(outcome="refused" if found.type == "registry_refused" else "unreachable", refused=kind)
    return Sync(outcome="ok", seq=max((one.seq for one in found.collections if one.name == "models"), default=0))
