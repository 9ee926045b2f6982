"""Whose turn it is: which jobs begin, which make room for others, and what each of the rest waits for.

A function of figures that come in. `queue` acts on what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from urllib.parse import urlsplit

from .records import Job
from .reservation import gigabytes, lacking
from .schedule import Schedule

__all__ = ["LOOK_AGAIN", "Turns", "World", "order", "take_turns", "words"]

_LONGEST_WAIT = 3700.0
"""A job that says it waits longer than any job does was written under another clock: it is due."""
LOOK_AGAIN = 5.0
"""Seconds after which everything is looked at again without a reason: another process may have added a job."""
_OFFLINE_POLL, _DISK_POLL = 2.0, 3.0
_SAME_FILE, _ROOM = "another download of the same file", "room on the disk"
_MAY_BEGIN, _ALLOWED = ", when it may begin", ", when downloads are allowed"


@dataclass(frozen=True)
class World:
    """What decides beside the jobs. `now`: s since the epoch. `held`: see `reservation.lacking`."""

    now: float
    max_running: int
    schedule: Schedule
    online: bool
    free: int
    reserve: int
    held: Callable[[str], int]


@dataclass
class Turns:
    """`begin`: in this order. `halt`: back to the queue. `ready`: what they waited for is over, and they are only
    queued now. `reasons`: what each job that does not run waits for, in a person's words. `look_again`: seconds."""

    begin: list[Job] = field(default_factory=list)
    halt: list[Job] = field(default_factory=list)
    ready: list[Job] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    look_again: float = LOOK_AGAIN


def order(job: Job) -> tuple[int, float, int, str]:
    """The key that sorts jobs by when they are served: priority, age, and within a group the place in it."""
    return (-job.priority, job.created_at, job.position, job.id)


def take_turns(
    jobs: Iterable[Job], running: Collection[str], busy: Collection[str], world: World, written: Collection[str] = ()
) -> Turns:
    """Decide about live jobs. `running`: those with a run; `busy`: those that are being stopped or changed now.

    `written`: partial files that a run may still have open, be its job live or not.
    """
    turns, ranked = Turns(), sorted(jobs, key=order)
    due: list[Job] = []
    going: list[Job] = []
    taken = {*written, *(job.partial for job in ranked if job.id in running)}
    for place, job in enumerate(ranked):
        if job.state == "paused":
            continue
        reason = _closed(job, world)
        if not reason and job.id not in running:
            ahead = partial(_ahead, ranked, place, running)
            reason = _reason(job, ahead, world) or (_SAME_FILE if job.partial in taken else "")
        if reason:
            turns.reasons[job.id] = reason
            turns.look_again = min(turns.look_again, _again(job, world))
        if job.id in busy:
            continue
        if job.id in running:
            (turns.halt if reason else going).append(job)
        elif not reason:
            due.append(job)
            taken.add(job.partial)
    _share_places(turns, due, going, len(running), world)
    return turns


def _share_places(turns: Turns, due: Sequence[Job], going: list[Job], taken: int, world: World) -> None:
    """Give free places to those that are due; who has a higher priority than the last one running takes its place.

    A run that is told to stop keeps its place until it has ended.
    """
    freed = taken - len(going)

    def give_way(job: Job) -> None:
        nonlocal freed
        going.remove(job)
        turns.halt.append(job)
        turns.reasons[job.id] = "its turn"
        freed += 1

    while len(going) > world.max_running:
        give_way(going[-1])
    for job in due:
        if taken < world.max_running:
            turns.begin.append(job)
            taken += 1
            continue
        turns.reasons[job.id] = "its turn"
        if job.state != "queued":
            turns.ready.append(job)
        if freed > 0:
            freed -= 1  # one of the places that are about to be free is its own
        elif (
            going
            and going[-1].priority < job.priority
            and lacking(job, going, world.held, world.free, world.reserve) <= 0
        ):
            give_way(going[-1])
            freed -= 1


def _closed(job: Job, world: World) -> str:
    """Why a job may not run at this time of day, whether it does or not."""
    if world.now < job.not_before:
        return f"{_clock(job.not_before, world.now)}{_MAY_BEGIN}"
    if not world.schedule.open(world.now):
        return f"{_clock(world.schedule.opens(world.now), world.now)}{_ALLOWED}"
    return ""


def _ahead(ranked: Sequence[Job], place: int, running: Collection[str]) -> list[Job]:
    """Who is served before the job at a place: those that rank higher, and those that run."""
    return [*ranked[:place], *(other for other in ranked[place + 1 :] if other.id in running)]


def _reason(job: Job, ahead: Callable[[], Sequence[Job]], world: World) -> str:
    """What a job that does not run waits for, beside its turn; "" when it is due."""
    resting = world.now < job.retry_at <= world.now + _LONGEST_WAIT
    if job.state == "waiting" and resting:
        return _again_in(job, world.now)
    if job.state == "offline" and (resting or not world.online):
        return "the network"
    if job.state == "blocked_disk":
        if (missing := lacking(job, ahead(), world.held, world.free, world.reserve)) > 0:
            return f"{_ROOM}: {gigabytes(missing)} are missing"
        return _ROOM if resting else ""
    return ""


def _again(job: Job, world: World) -> float:
    if job.state == "waiting" and job.retry_at > world.now:
        return min(LOOK_AGAIN, job.retry_at - world.now)
    if job.state == "offline":
        return _OFFLINE_POLL
    if job.state == "blocked_disk":
        return _DISK_POLL
    return LOOK_AGAIN


def words(job: Job, reason: str, now: float) -> str:
    """What a job waits for, in a person's words, when `reason` is what was found a while ago; "" when for nothing."""
    if job.state == "waiting" and not reason.endswith((_MAY_BEGIN, _ALLOWED)):
        return _again_in(job, now)
    general = {"queued": "its turn", "offline": "the network", "blocked_disk": _ROOM}.get(job.state, "")
    return general and (reason or general)


def _again_in(job: Job, now: float) -> str:
    """Who is asked again, and when."""
    host = urlsplit(job.source or job.url).hostname or "a source"
    seconds = max(0.0, job.retry_at - now)
    return f"{host}, again in {round(seconds / 60)} min" if seconds >= 120 else f"{host}, again in {seconds:.0f} s"


def _clock(at: float, now: float) -> str:
    """A moment for people: the time of day, with the date unless it is within a day."""
    local = datetime.fromtimestamp(at)
    return local.strftime("%H:%M" if at - now < 86_400 else "%Y-%m-%d %H:%M")
