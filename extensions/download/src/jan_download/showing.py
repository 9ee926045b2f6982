"""How a job is shown: what the journal knows of it and what its run tells, as one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

import msgspec

from .journal import Journal
from .progress import Meter
from .records import Job
from .shapes import Download, Mover
from .status import SourceFigures, SourceState, Status

__all__ = ["piece_maps", "show"]

_RUN = re.compile(r"(\d+)([a-z])")


def show(
    job: Job, path: str, status: Status | None, meter: Meter | None, waiting_for: str, mover: Mover = ""
) -> Download:
    """A job as callers see it. `status`: of its run, or of the last one; `meter` while it runs here.

    It has its `path` once it may be used, which a member of a group may only together with all others.
    """
    if meter is None and status is not None:
        status = _at_rest(status)
    return Download.of(
        job,
        path if job.completed_at else "",
        speed=meter.speed if meter is not None else 0.0,
        eta=_left(job, status, meter),
        status=status,
        waiting_for=waiting_for,
        mover=mover,
    )


def _left(job: Job, status: Status | None, meter: Meter | None) -> float | None:
    done = status.written if status is not None else job.offset
    return meter.eta(job.expected - done) if meter is not None and job.expected else None


def _at_rest(status: Status) -> Status:
    """How a run stood that has ended: nothing of it is under way any more."""
    sources = tuple(_source_at_rest(each) for each in status.sources)
    return replace(status, connections=0, sources=sources, pieces=_map_at_rest(status.pieces))


def _map_at_rest(pieces: str) -> str:
    """A piece map in which what was under way is only begun. By its runs: there may be very many pieces."""
    runs = ((int(count), "p" if letter == "a" else letter) for count, letter in _RUN.findall(pieces))
    alike = groupby(runs, key=lambda run: run[1])
    return "".join(f"{sum(count for count, _ in group)}{letter}" for letter, group in alike)


def _source_at_rest(figures: SourceFigures) -> SourceFigures:
    state: SourceState = "idle" if figures.state == "active" else figures.state
    return msgspec.structs.replace(figures, connections=0, speed=0, state=state)


def piece_maps(jobs: Iterable[Job], journal: Journal) -> dict[str, Status]:
    """What is known of the pieces of jobs that do not run, by job; blocks. Raises StorageError."""
    from .engine.pieces import PieceMap

    found: dict[str, Status] = {}
    for job in jobs:
        pieces = journal.pieces(job.id) if job.expected else []
        if pieces:
            map_ = PieceMap(job.expected, pieces, job.piece_length)
            found[job.id] = Status(job, written=map_.done, verified=map_.verified, pieces=map_.map())
    return found
