"""What became of each download over time, kept for whoever asks later (`downloads.history`, and its page).

The manager shows every change to `observe`, on the event loop, where it is only put aside. A thread compares each with
the one before and writes what is worth keeping, about once a second, in one transaction. Nothing is decided by what
stands here: when it cannot be written, that is logged once, and downloads go on.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from jan_core import StorageError

from .journal import HistoryEntry, Journal
from .records import ENDED, Piece
from .shapes import Download
from .status import SourceFigures

__all__ = ["History", "Recorder"]

BATCH = 1.0
"""Seconds between two writes; what came meanwhile is one transaction."""
SAMPLES = 300
"""So many samples of progress while a download's age doubles or so: one a second at first, then ever fewer."""
LONGEST = 2000
"""Entries that are kept while they cannot be written."""

Entry = tuple[str, str, dict[str, Any], float]
"""A job's id, the kind of entry, its data, and when it was (seconds since the epoch)."""

_RUN = re.compile(r"(\d+)([a-z])")
_NUMBER = re.compile(r"\d+")


class History:
    """Writes the history of all downloads of a journal. `observe` is for the event loop, `close` for another thread."""

    def __init__(self, journal: Journal, log: logging.Logger, batch: float = BATCH) -> None:
        self._journal, self._log, self._batch = journal, log, batch
        self._seen: deque[tuple[float, Download]] = deque()
        self._due = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._recorders: dict[str, Recorder] = {}
        self._unwritten: list[Entry] = []
        self._writing = threading.Lock()
        self._complained = False

    def observe(self, download: Download) -> None:
        """Take note of a download as it stands now. Costs microseconds; never waits for the disk."""
        if self._closing.is_set():
            return
        self._seen.append((time.time(), download))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="download history", daemon=True)
            self._thread.start()
        self._due.set()

    def close(self, within: float = 1.0) -> None:
        """Write what is still to be written, and end. Waits `within` seconds at most."""
        self._closing.set()
        self._due.set()
        if self._thread is not None:
            self._thread.join(within)

    def _work(self) -> None:
        closing = False
        while not closing:
            self._due.wait()
            self._closing.wait(self._batch)
            self._due.clear()
            closing = self._closing.is_set()  # asked after the clearing: whoever closes sets both, this one first
            self._write()

    def of(self, job_id: str) -> list[HistoryEntry]:
        """What became of a job until now, oldest first; blocks. Raises StorageError."""
        if self._seen:
            self._write()
        return self._journal.history(job_id)

    def pieces(self, job_id: str) -> list[Piece]:
        """Who brought which piece of a job, as far as it was begun; blocks. Raises StorageError."""
        return self._journal.pieces(job_id)

    def _write(self) -> None:
        with self._writing:
            self._write_all()

    def _write_all(self) -> None:
        try:
            self._compare()
            with self._journal.transaction():
                for job_id, kind, data, at in self._unwritten:
                    self._journal.add_history(job_id, kind, data, at)
            self._unwritten.clear()
        except StorageError as error:
            del self._unwritten[:-LONGEST]
            while len(self._seen) > LONGEST:
                self._seen.popleft()
            if not self._complained:
                self._complained = True
                self._log.warning("the history of downloads has a gap: %s", error)

    def _compare(self) -> None:
        while self._seen:
            at, download = self._seen[0]
            recorder = self._recorders.get(download.id)
            if recorder is None:
                recorder = self._recorders[download.id] = Recorder(download, self._last_state(download.id))
            self._seen.popleft()  # only now: what could not be compared is compared later
            self._unwritten += ((download.id, kind, data, at) for kind, data in recorder.note(download, at))

    def _last_state(self, job_id: str) -> dict[str, Any]:
        """What was written last of a job's state, by this process or one before."""
        entries = self._journal.history(job_id)
        return next((entry.data for entry in reversed(entries) if entry.kind == "state"), {})


@dataclass
class _Known:
    """What was noted of a job."""

    state: dict[str, str]
    settings: tuple[int, int, str]
    sources: dict[str, SourceFigures] = field(default_factory=dict)
    standing: dict[str, tuple[str, str]] = field(default_factory=dict)
    wrong: frozenset[int] = frozenset()
    done: int = -1
    sampled: float = 0.0


class Recorder:
    """Compares a job with what was noted of it before. Kinds of entries, and what each holds:

    `state`: `state`, `done` and `total` (bytes), and where they say something `error`, `waiting_for`, `retry_at`,
    `verified`, `warning`, `origin`. `sample`: `done`, `verified`, `discarded` (bytes), `speed` (bytes/s),
    `connections`. `source`: a `SourceFigures` that is used for the first time, or no longer, or again. `sources`: the
    `figures` of all of them, when a run ends. `piece`: the `index` of one that was wrong. `settings`: `priority`,
    `limit`, `not_before`, when somebody changed one.
    """

    def __init__(self, download: Download, last_state: dict[str, Any]) -> None:
        self._began = _epoch(download.created_at)
        settings = (download.priority, download.limit, download.not_before)
        last = {name: _NUMBER.sub("", str(last_state.get(name, ""))) for name in _TELLING}
        self._known = _Known(last, settings, done=int(last_state.get("done", -1)))

    def note(self, download: Download, at: float) -> list[tuple[str, dict[str, Any]]]:
        """What is worth keeping of `download` as it stood at `at`, oldest first."""
        entries: list[tuple[str, dict[str, Any]]] = []
        known = self._known
        if (settings := (download.priority, download.limit, download.not_before)) != known.settings:
            known.settings = settings
            names = ("priority", "limit", "not_before")
            entries.append(("settings", dict(zip(names, settings, strict=True))))
        entries += (("piece", {"index": index}) for index in self._newly_wrong(download.pieces))
        if download.state not in ENDED:
            entries += (("source", msgspec.to_builtins(source)) for source in self._changed_sources(download.sources))
        state = _state(download)
        telling = {name: _NUMBER.sub("", str(state.get(name, ""))) for name in _TELLING}
        changed = telling != known.state and not self._tries_again(download)
        if changed and known.sources and known.state.get("state") == "running":
            # What comes after a run no longer has the figures of its sources.
            figures = [msgspec.to_builtins(source) for source in known.sources.values()]
            entries.append(("sources", {"figures": figures}))
            known.sources.clear()
        if changed:
            known.state, known.done = telling, download.bytes_done
            entries.append(("state", state))
        elif download.state == known.state["state"] == "running" and at - known.sampled >= max(
            1.0, (at - self._began) / SAMPLES
        ):
            known.sampled = at
            entries.append(("sample", _sample(download)))
        return entries

    def _tries_again(self, download: Download) -> bool:
        """Whether a source that failed is only asked again: nothing has come of it yet."""
        failed = self._known.state["state"] in ("waiting", "offline", "blocked_disk")
        return failed and download.state in ("running", "queued") and download.bytes_done == self._known.done

    def _newly_wrong(self, pieces: str) -> list[int]:
        if "x" not in pieces:
            if pieces:
                self._known.wrong = frozenset()
            return []
        wrong: set[int] = set()
        first = 0
        for count, letter in _RUN.findall(pieces):
            if letter == "x":
                wrong.update(range(first, first + int(count)))
            first += int(count)
        new = wrong - self._known.wrong
        self._known.wrong = frozenset(wrong)
        return sorted(new)

    def _changed_sources(self, sources: list[SourceFigures]) -> Iterator[SourceFigures]:
        """Those that were put to use, set aside, or taken up again. Being idle for a moment is no news."""
        for source in sources:
            best = max(source.speed, before.speed) if (before := self._known.sources.get(source.id)) else source.speed
            self._known.sources[source.id] = replace(source, speed=best)
            if source.state == "unused":
                continue
            used = source.state in ("active", "idle")
            standing = ("used", "") if used else (str(source.state), source.reason)
            if self._known.standing.get(source.id) != standing:
                self._known.standing[source.id] = standing
                yield source


_TELLING = ("state", "error", "waiting_for")
"""A job whose state differs in one of these, other numbers aside, has come to something new."""


def _state(download: Download) -> dict[str, Any]:
    """A job's state as it is kept: what says nothing is left out."""
    shown: dict[str, Any] = {
        "state": download.state,
        "done": download.bytes_done,
        "total": download.bytes_total,
        "error": download.error.message if download.error else "",
        "waiting_for": download.waiting_for,
        "retry_at": download.retry_at,
        "verified": download.verified,
        "origin": download.origin,
    }
    if download.state == "completed":
        shown["warning"] = download.warning
    return {name: value for name, value in shown.items() if value or name == "done"}


def _sample(download: Download) -> dict[str, Any]:
    return {
        "done": download.bytes_done,
        "verified": download.bytes_verified,
        "discarded": download.bytes_discarded,
        "speed": download.speed,
        "connections": download.connections,
    }


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() if text else time.time()
