"""The phase this machine is in: decided from flags, from what other extensions choose and from what was seen here, and
remembered, so that it is the same after a restart.

It judges nothing: `gates.py` says when to go a step on or back, and the operator's side when a share grows. Only a
defect of the list itself takes a step back; that a hub was unreachable or was refused does not, or whoever sits on the
network could choose the phase (docs/decisions/0015).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from jan_core import StorageError
from jan_core.types import Evidence, Flags, Phase, PhaseChoice

from ..flags.bucket import FLAGS, bucket
from ..flags.known import CEILING, PERCENT, PHASE, PHASES, SHADOW
from ..flags.precedence import FlagAnswer, FlagBoard, FlagState
from ..shapes import rfc3339
from ..sqlite import Database
from .arm import Arm, arm
from .inforce import InForce, Level, Seen, in_force, lower, one_down, one_up
from .shapes import PhaseAnswer

if TYPE_CHECKING:
    from jan_core.hooks import Outcome

__all__ = ["COOL_DOWN", "Effective", "PhaseKeeper"]

COOL_DOWN = 24 * 3600.0
_TRY_AGAIN = 30.0
"""Seconds until a database that could not be read is tried again."""
_ARM_SALT = f"{PERCENT}:arm"
"""Another salt than that of the flag's own rules, or who gets a share would be who is within it."""


class PhaseHook(Protocol):
    async def rollout_phase(self, flags: Flags, evidence: Evidence) -> Outcome[PhaseChoice] | None: ...


@dataclass(frozen=True, slots=True)
class Row:
    """What is remembered. Times in whole seconds since the epoch. `since`: when `phase` began, 0: it was never another.
    `until`: when the demotion to `cap` ends."""

    phase: Phase = "fallback"
    since: int = 0
    fresh: Phase = "fallback"
    earned: Phase = "fallback"
    cap: Phase | None = None
    until: int = 0
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Effective:
    """The phase in force and all that goes with it. `until`: when the demotion that holds ends, 0 for none."""

    phase: Phase
    level: Level
    reason: str
    pinned: bool
    floor: FlagAnswer
    ceiling: FlagAnswer
    since: int
    percent: int
    shadow: bool
    bucket: int | None
    cap: Phase | None
    until: int
    cause: str
    notes: tuple[str, ...] = ()

    @property
    def cooling(self) -> bool:
        """A local demotion holds."""
        return self.cap is not None

    def arm(self, *, listed: bool) -> Arm:
        """Which list is served; `listed`: there is one that was verified or shipped."""
        return arm(self.phase, self.bucket, self.percent, listed=listed, cooling=self.cooling)


class Known(NamedTuple):
    """What was decided, from `since` until `until`, while the flags stood at `state`."""

    state: FlagState
    since: float
    until: float
    effective: Effective


class PhaseKeeper:
    """Knows the phase. May be called in any thread.

    `unit`: what buckets are drawn from; may raise StorageError, which makes the bucket unknown. A database that cannot
    be written keeps nothing from working: what was decided then holds until the process ends, and the answers say so.
    """

    def __init__(self, flags: FlagBoard, db: Database, unit: Callable[[], str]) -> None:
        self._flags, self._db, self._unit = flags, db, unit
        self._lock = threading.RLock()
        self._row: Row | None = None
        self._unread = self._unwritten = ""
        self._extension: tuple[Phase, str] | None = None
        self._known: Known | None = None

    def peek(self, now: float) -> Effective | None:
        """The phase in force if nothing has changed since it was last decided; never touches the database."""
        known = self._known
        if known is None:
            return None
        return known.effective if known.since <= now < known.until and self._flags.state(now) == known.state else None

    def effective(self, now: float) -> Effective:
        """The phase in force. The first time, and when something has changed, it reads the database and may write."""
        if (known := self.peek(now)) is not None:
            return known
        with self._lock:
            state = self._flags.state(now)
            effective = self._decide(now, looked=state.looked)
            until = effective.until if effective.cooling else math.inf
            self._known = Known(state, now, min(until, now + _TRY_AGAIN) if self._unread else until, effective)
            return effective

    def settled(self, now: float) -> bool:
        """Whether the flags behind the phase have been read; until then it is the one that is remembered."""
        return self._flags.state(now).looked

    def demote(self, cause: str, now: float, cool_down: float = COOL_DOWN) -> Effective:
        """One step down at once, for `cool_down` seconds (a day at most), after which what the operator asks for holds
        again; what was earned here must be earned anew. In `fallback` the built-in list is served for as long. Where
        somebody at this machine has chosen a phase, it stays, and this holds when they take it back."""
        with self._lock:
            below = one_down(self.effective(now).phase)
            row = self._load(now)
            cause = " ".join(cause.split())[:500] or "not said"
            until = int(now + min(max(0.0, cool_down), COOL_DOWN))
            self._store(replace(row, earned=lower(row.earned, below), cap=below, until=until, cause=cause))
            return self.effective(now)

    def obstacle(self, now: float) -> str:
        """Why evidence of this machine may not promote it now; "" when it may."""
        effective = self.effective(now)
        ceiling = cast(Phase, effective.ceiling.value)
        if effective.pinned:
            return effective.reason
        if effective.cooling:
            return f"demoted until {rfc3339(effective.until)}: {effective.cause}"
        if not self._flags.state(now).looked:
            return "the operator's flags have not been read yet"
        if effective.floor.stale or effective.ceiling.stale:
            return "the operator's flags have expired"
        if effective.phase == PHASES[-1]:
            return "it is the last phase"
        if lower(one_up(effective.phase), ceiling) != one_up(effective.phase):
            return f"evidence may promote to {ceiling} at most (`{CEILING}`, {effective.ceiling.level})"
        return ""

    def promote(self, now: float) -> Effective:
        """One step up, on evidence; nothing changes where there is an `obstacle`."""
        with self._lock:
            if not self.obstacle(now):
                self._store(replace(self._load(now), earned=one_up(self.effective(now).phase)))
            return self.effective(now)

    async def consult(self, hooks: PhaseHook, evidence: Evidence, now: float) -> None:
        """Ask other extensions (`jan_rollout_phase`); their choice holds until they are asked again. To be called at
        start, and when flags or evidence have changed."""
        import anyio.to_thread

        flags = await anyio.to_thread.run_sync(self._flags.all, now)
        outcome = await hooks.rollout_phase({name: answer.value for name, answer in flags.items()}, evidence)
        chosen = None
        if outcome is not None and outcome.value is not None:
            chosen = outcome.value.phase, f"{outcome.extension}: {outcome.value.reason}"
        if chosen != self._extension:
            await anyio.to_thread.run_sync(self._choose, chosen)  # whoever decides just now may be at the disk

    def answer(self, now: float, *, listed: bool) -> PhaseAnswer:
        """What `registry.phase` answers, but for the criteria of the next step."""
        effective = self.effective(now)
        return PhaseAnswer(
            phase=effective.phase,
            level=effective.level,
            reason=effective.reason,
            asked=cast(Phase, effective.floor.value),
            asked_level=effective.floor.level,
            ceiling=cast(Phase, effective.ceiling.value),
            since=rfc3339(effective.since),
            arm=effective.arm(listed=listed),
            bucket=effective.bucket,
            percent=effective.percent,
            shadow=effective.shadow,
            demoted_to=effective.cap,
            demoted_until=rfc3339(effective.until),
            cause=effective.cause,
            stale=effective.floor.stale or effective.ceiling.stale,
            notes=list(dict.fromkeys((*self._flags.notes(now), *effective.notes))),
        )

    def _choose(self, chosen: tuple[Phase, str] | None) -> None:
        with self._lock:
            self._extension, self._known = chosen, None

    def _decide(self, now: float, *, looked: bool) -> Effective:
        row = self._load(now)
        floor, ceiling = self._flags.answer(PHASE, now), self._flags.answer(CEILING, now)
        found = in_force(floor, ceiling, self._extension, Seen(row.earned, row.fresh, row.cap, row.cause))
        if looked or found.pinned:
            row = self._remember(row, found, now)
        else:  # as if nobody asked for anything: that must not be taken for the operator's word, and remembered
            found = InForce(row.phase, "default", "the operator's flags have not been read yet", row.phase)
        notes = [self._unread or self._unwritten, floor.note, ceiling.note]
        drawn = None
        if found.phase == "mixed":
            try:
                drawn = bucket(FLAGS, _ARM_SALT, self._unit())
            except StorageError as error:
                notes.append(f"the bucket of this machine cannot be told: {error.message}")
        return Effective(
            phase=found.phase,
            level=found.level,
            reason=found.reason,
            pinned=found.pinned,
            floor=floor,
            ceiling=ceiling,
            since=row.since,
            percent=cast(int, self._flags.answer(PERCENT, now).value),
            shadow=found.phase == "mixed" and bool(self._flags.answer(SHADOW, now).value),
            bucket=drawn,
            cap=row.cap,
            until=row.until,
            cause=row.cause,
            notes=tuple(note for note in notes if note),
        )

    def _remember(self, row: Row, found: InForce, now: float) -> Row:
        new = row
        if found.phase != row.phase:
            new = replace(new, phase=found.phase, since=int(now))
        if not found.pinned:  # where flags have expired this is no higher than it was
            new = replace(new, fresh=found.undemoted)
        if new != row and not self._unread:  # what is there and could not be read must not be lost
            self._store(new)
        return new

    def _load(self, now: float) -> Row:
        """The row as it holds now: without a demotion that has ended."""
        row = self._read()
        if row.cap is not None and row.until > now + COOL_DOWN:  # the clock was ahead when it was written
            row = replace(row, until=int(now + COOL_DOWN))
            self._store(row)
        return row if row.cap is None or now < row.until else replace(row, cap=None, until=0, cause="")

    def _read(self) -> Row:
        self._unread = ""
        if (self._row is not None and self._unwritten) or not self._db.exists:
            return self._row or Row()
        try:
            with self._db.read() as db:
                found = db.execute(
                    "SELECT phase, since, fresh, earned, cap, until, cause FROM rollout WHERE flag = ?", [PHASE]
                ).fetchone()
        except StorageError as error:
            self._unread = f"what is remembered of the phase cannot be read: {error.message}"
            return self._row or Row()
        if found is None or not {found[0], found[2], found[3], found[4] or PHASES[0]} <= set(PHASES):
            return Row()
        phase, since, fresh, earned, cap, until, cause = found
        return Row(phase, since, fresh, earned, cap or None, until, cause)

    def _store(self, row: Row) -> None:
        self._row, self._known = row, None
        try:
            with self._db.write() as db:
                db.execute(
                    "INSERT OR REPLACE INTO rollout (flag, phase, since, fresh, earned, cap, until, cause)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [PHASE, row.phase, row.since, row.fresh, row.earned, row.cap or "", row.until, row.cause],
                )
        except StorageError as error:
            self._unwritten = f"the phase is not remembered: {error.message}"
        else:
            self._unwritten = ""
