"""What is kept of a download's history: every change of what it is at, and ever fewer samples of how fast it went."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jan_download.engine.pieces import encode
from jan_download.history import History, Recorder
from jan_download.history_methods import HistoryMethods, HistoryQuery
from jan_download.journal import HISTORY_ROWS, HistoryEntry, Journal
from jan_download.records import PIECE, Job, Piece
from jan_download.shapes import Download, JobError, rfc3339
from jan_download.status import SourceFigures

from jan_core import StorageError

BEGAN = 1_795_361_600.0
LOG = logging.getLogger("test")


def download(state: str = "running", **changes: Any) -> Download:
    given = {"id": "dl-1", "name": "model.gguf", "url": "https://hub.example/x", "destination": "model.gguf"}
    return Download(**{**given, "state": state, "created_at": rfc3339(BEGAN), **changes})


def noted(*observed: tuple[float, Download]) -> list[tuple[str, dict[str, Any]]]:
    recorder = Recorder(observed[0][1], {})
    return [entry for at, shown in observed for entry in recorder.note(shown, BEGAN + at)]


def kinds(*observed: tuple[float, Download]) -> list[str]:
    return [kind for kind, _ in noted(*observed)]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "downloads.db")
    journal.add(Job(id="dl-1", name="x", url="", sha256="", size=3 * PIECE, destination="x", partial="dl-1"))
    yield journal
    journal.close()


def recorded(journal: Journal, *observed: Download) -> list[HistoryEntry]:
    """What a process that lives for these changes leaves."""
    history = History(journal, LOG)
    for shown in observed:
        history.observe(shown)
    history.close(10)
    return journal.history("dl-1")


def test_a_state_is_noted_once_and_again_when_it_comes_to_something_else() -> None:
    waiting = {"error": JobError(1, "source_unreachable", "the source answers 503", True)}
    observed = [
        (0.0, download("queued")),
        (0.1, download("queued")),
        (0.2, download("running")),
        (9.0, download("waiting", **waiting)),
        (9.1, download("waiting", **waiting)),
        (9.2, download("waiting", error=JobError(1, "source_unreachable", "the connection was refused", True))),
    ]
    states = [(data["state"], data.get("error", "")) for kind, data in noted(*observed) if kind == "state"]
    assert states == [
        ("queued", ""),
        ("running", ""),
        ("waiting", "the source answers 503"),
        ("waiting", "the connection was refused"),
    ]


def test_a_source_that_is_asked_again_in_vain_is_no_news() -> None:
    def waiting(seconds: int) -> Download:
        error = JobError(1, "source_unreachable", "hub.example answers 503", True)
        return download("waiting", error=error, waiting_for=f"hub.example, again in {seconds} s", bytes_done=7)

    again = [waiting(1), download(bytes_done=7), waiting(2), download("queued", bytes_done=7), download(bytes_done=7)]
    observed = [download(bytes_done=7), *again * 3, download(bytes_done=8)]
    entries = noted(*((float(at), shown) for at, shown in enumerate(observed)))
    assert [data["state"] for kind, data in entries if kind == "state"] == ["running", "waiting", "running"]


def test_samples_become_rarer_with_the_age_of_a_download() -> None:
    four_a_second = [(quarter / 4, download(bytes_done=quarter, speed=100)) for quarter in range(4 * 60)]
    samples = [data for kind, data in noted(*four_a_second) if kind == "sample"]
    assert 55 <= len(samples) <= 60
    assert samples[-1]["speed"] == 100
    days = [(float(second), download(bytes_done=second)) for second in range(0, 3 * 86_400, 10)]
    assert len([kind for kind in kinds(*days) if kind == "sample"]) < HISTORY_ROWS


def test_a_source_is_noted_when_it_is_used_set_aside_or_taken_up_again() -> None:
    def at(state: Any, reason: str = "", **more: Any) -> Download:
        return download(sources=[SourceFigures(id="hub.example", state=state, reason=reason, **more)])

    observed = [
        (0, at("unused")),
        (1, at("active")),
        (2, at("idle")),
        (3, at("active")),
        (4, at("waiting", "503")),
        (5, at("active")),
        (6, at("quarantined", "piece 4 is wrong", bytes=PIECE, errors=1)),
    ]
    told = [(data["state"], data["reason"]) for kind, data in noted(*observed) if kind == "source"]
    assert told == [("active", ""), ("waiting", "503"), ("active", ""), ("quarantined", "piece 4 is wrong")]


def test_the_figures_of_the_sources_are_kept_when_a_run_ends() -> None:
    fast = SourceFigures(id="hub.example", state="active", bytes=PIECE, speed=5000)
    figures = SourceFigures(id="hub.example", state="active", bytes=7 * PIECE, speed=1000)
    entries = noted(
        (0, download(sources=[fast])),
        (1, download(sources=[figures])),
        (2, download("paused")),
    )
    [kept] = [data for kind, data in entries if kind == "sources"]
    assert (kept["figures"][0]["bytes"], kept["figures"][0]["speed"]) == (7 * PIECE, 5000), "the best it did"
    assert [kind for kind, _ in entries][-2:] == ["sources", "state"]


def test_each_wrong_piece_is_noted_each_time_it_is_wrong() -> None:
    maps = ["vvam", "vxam", "vxxm", "vaxm", "vvvm", "vxvm"]
    observed = [(float(at), download(pieces=encode(letters))) for at, letters in enumerate(maps)]
    assert [data["index"] for kind, data in noted(*observed) if kind == "piece"] == [1, 2, 1]


def test_a_change_of_limit_or_priority_is_noted() -> None:
    observed = [(0.0, download()), (1.0, download(limit=5_000_000)), (2.0, download(limit=5_000_000, priority=3))]
    told = [data for kind, data in noted(*observed) if kind == "settings"]
    assert [(data["limit"], data["priority"]) for data in told] == [(5_000_000, 0), (5_000_000, 3)]


def test_nothing_is_lost_when_the_extension_ends_right_after_a_change(journal: Journal) -> None:
    entries = recorded(journal, download("queued"), download("running"), download("paused", bytes_done=5))
    assert [entry.data["state"] for entry in entries if entry.kind == "state"] == ["queued", "running", "paused"]
    assert entries[-1].data["done"] == 5


def test_what_is_told_twice_is_kept_once(journal: Journal) -> None:
    done = download("completed", verified=True, sources=[SourceFigures(id="hub.example", state="idle", bytes=9)])
    running = download(sources=[SourceFigures(id="hub.example", state="active", bytes=9, speed=7)])
    kept = [entry.kind for entry in recorded(journal, running, done, done, done)]
    assert kept == ["source", "state", "sources", "state"]


def test_a_later_process_repeats_nothing_that_is_noted(journal: Journal) -> None:
    recorded(journal, download("running"), download("completed", verified=True, bytes_done=9))
    entries = recorded(journal, download("completed", verified=True, bytes_done=9))
    assert [entry.data["state"] for entry in entries if entry.kind == "state"] == ["running", "completed"]


class Unwritable(Journal):
    """Refuses to be read or written as often as it is told."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.refusals = 0
        self.refused = threading.Event()

    def _refuse(self) -> None:
        if self.refusals:
            self.refusals -= 1
            if not self.refusals:
                self.refused.set()
            raise StorageError("the disk is full")

    def history(self, job_id: str) -> list[HistoryEntry]:
        self._refuse()
        return super().history(job_id)

    def transaction(self) -> Any:
        self._refuse()
        return super().transaction()


@pytest.mark.parametrize("refusals", [1, 2, 3])
def test_what_cannot_be_written_for_a_while_is_written_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, refusals: int
) -> None:
    journal = Unwritable(tmp_path / "downloads.db")
    history = History(journal, LOG, batch=0.01)
    journal.refusals = refusals
    for state in ("queued", "running", "paused", "running"):
        history.observe(download(state))
    for _ in range(refusals):  # each makes it try once more, at least
        history.observe(download("running"))
        journal.refused.wait(0.1)
    assert journal.refused.wait(10)
    history.observe(download("completed"))
    history.close(10)
    states = [entry.data["state"] for entry in journal.history("dl-1") if entry.kind == "state"]
    assert states == ["queued", "running", "paused", "running", "completed"]
    assert len([record for record in caplog.records if "has a gap" in record.message]) == 1, "it is said once"
    journal.close()


def test_observing_never_waits_for_the_disk(journal: Journal) -> None:
    journal.jobs()
    history = History(journal, LOG)
    blocker = sqlite3.connect(journal.path, isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    observed = threading.Event()

    def observe() -> None:
        for number in range(1000):
            history.observe(download("running", bytes_done=number))
        observed.set()

    threading.Thread(target=observe, daemon=True).start()
    assert observed.wait(2), "another process had the database locked meanwhile"
    blocker.execute("ROLLBACK")
    blocker.close()
    history.close(10)
    assert journal.history("dl-1")


def test_no_thread_runs_before_there_is_something_to_keep_nor_after_the_end(journal: Journal) -> None:
    history = History(journal, LOG)
    history.close()
    assert "download history" not in {thread.name for thread in threading.enumerate()}
    history = History(journal, LOG)
    history.observe(download())
    history.close(10)
    assert "download history" not in {thread.name for thread in threading.enumerate()}


async def test_the_method_answers_with_runs_of_pieces_and_with_the_page_when_asked(journal: Journal) -> None:
    pieces = [Piece(index, PIECE, "verified", "a.example") for index in (0, 1, 3)]
    pieces.append(Piece(4, 5, "begun", "b.example", tries=1))
    journal.checkpoint("dl-1", 0, pieces)
    history = History(journal, LOG)
    history.observe(download("running"))

    async def get(job_id: str) -> Download:
        return download(bytes_total=5 * PIECE, group="dg-1")

    async def members(group_id: str) -> list[Download]:
        return [await get("dl-1"), download(name="of " + group_id)]

    methods = HistoryMethods()
    methods.start(lambda: history, get, members)
    answer = await methods.history(HistoryQuery("dl-1"))
    assert [(run.first, run.count, run.bytes, run.source) for run in answer.pieces] == [
        (0, 2, 2 * PIECE, "a.example"),
        (3, 1, PIECE, "a.example"),
        (4, 1, 5, "b.example"),
    ]
    assert [entry.kind for entry in answer.entries] == ["state"], "also what was seen a moment ago"
    assert answer.entries[0].at.endswith("Z")
    assert answer.html == ""
    page = (await methods.history(HistoryQuery("dl-1", html=True))).html
    assert page.startswith("<!doctype html>")
    assert "a.example" in page
    assert "of dg-1" not in page
    page = (await methods.history(HistoryQuery("dl-1", html=True, group=True))).html
    assert "a.example" in page
    assert "of dg-1" in page
    history.close(10)
