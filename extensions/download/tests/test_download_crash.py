"""Runs that find what a killed one left: what they trust, what they fetch again, and what they leave alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jan_download.errors import DownloadConflict
from jan_download.journal import Journal
from jan_download.records import Piece
from jan_download.storage.checkpoint import Superseded
from jan_download.storage.recovery import recover
from jan_download.storage.store import Store

from .desk import DATA, LENGTH, SHA256, SIZE, Desk, hashes_of
from .faultserver import FaultServer


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.journal.close()


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


class Killed(BaseException):
    pass


def before(function: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
    def dies(*args: Any, **kwargs: Any) -> Any:
        if when(**kwargs):
            raise Killed
        return function(*args, **kwargs)

    return dies


def after(function: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
    def dies(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if when(**kwargs):
            raise Killed
        return result

    return dies


@pytest.mark.parametrize("hashed", [True, False], ids=["hash known", "no hash known"])
@pytest.mark.parametrize("moment", [before, after])
@pytest.mark.parametrize("step", ["verifying", "publish", "name", "completed"])
def test_a_kill_at_the_end_of_a_run_costs_no_further_request(
    desk: Desk, server: FaultServer, monkeypatch: pytest.MonkeyPatch, hashed: bool, moment: Any, step: str
) -> None:
    url = server.serve("/f", DATA)
    desk.job(url, **({} if hashed else {"sha256": "", "size": 0}))
    with monkeypatch.context() as patch:
        if step in ("publish", "name"):
            patch.setattr(Store, step, moment(getattr(Store, step), lambda **changes: True))
        else:
            patch.setattr(Journal, "update", moment(Journal.update, lambda **changes: changes.get("state") == step))
        with pytest.raises(Killed):
            desk.run(url)
    asked = len(server.requests)
    assert recover(desk.journal, desk.store, resume=True, keep_partial_days=7).warnings == []
    job = desk.journal.get("dl-1")
    assert job is not None
    if job.state != "completed":
        job = desk.run(url)
    assert (job.state, job.actual, job.verified, job.high) == ("completed", SHA256, hashed, SIZE)
    assert desk.content() == DATA
    assert len(server.requests) == asked
    assert list(desk.store.partials.iterdir()) == []


def test_a_strange_file_under_the_final_name_is_left_alone(desk: Desk, server: FaultServer) -> None:
    url = server.serve("/f", DATA)
    desk.job(url)
    desk.store.files.mkdir(parents=True)
    desk.store.final("model.gguf").write_bytes(b"strange")
    with pytest.raises(DownloadConflict):
        desk.run(url)
    assert desk.content() == b"strange"
    desk.store.final("model.gguf").unlink()
    asked = len(server.requests)
    assert desk.run(url).state == "completed", "what was fetched is kept"
    assert len(server.requests) == asked


@pytest.mark.parametrize("hashed", [True, False], ids=["pieces' hashes known", "no hashes of pieces"])
def test_bytes_that_the_journal_does_not_know_of_are_not_trusted(desk: Desk, server: FaultServer, hashed: bool) -> None:
    url = server.serve("/f", DATA)
    desk.job(url, offset=LENGTH + 1000, high=3 * LENGTH)
    desk.journal.checkpoint("dl-1", 0, [Piece(0, LENGTH, "whole"), Piece(1, 1000)])
    if not hashed:  # the engine's own pieces are longer: this is one that was begun
        desk.journal.forget_pieces("dl-1")
        desk.journal.checkpoint("dl-1", 0, [Piece(0, LENGTH + 1000)])
    desk.store.partials.mkdir(parents=True)
    desk.store.partial(SHA256).write_bytes(DATA[: LENGTH + 1000] + b"\0" * LENGTH)
    job = desk.run(url, hashes=hashes_of(DATA) if hashed else None)
    assert desk.content() == DATA
    assert job.discarded == 0
    assert server.sent("/f") == SIZE - LENGTH - 1000


@pytest.mark.parametrize("hashed", [True, False], ids=["pieces' hashes known", "no hashes of pieces"])
def test_a_partial_file_that_is_gone_is_fetched_again_whatever_the_journal_says(
    desk: Desk, server: FaultServer, hashed: bool
) -> None:
    url = server.serve("/f", DATA)
    desk.job(url, offset=2 * LENGTH, high=2 * LENGTH)
    desk.journal.checkpoint("dl-1", 0, [Piece(0, LENGTH, "verified"), Piece(1, LENGTH, "verified")])
    job = desk.run(url, hashes=hashes_of(DATA) if hashed else None)
    assert desk.content() == DATA
    assert (job.offset, job.high) == (SIZE, SIZE)
    assert min(status.job.high for status in desk.told) >= 2 * LENGTH


def test_a_partial_file_that_is_shorter_costs_what_is_missing(desk: Desk, server: FaultServer) -> None:
    url = server.serve("/f", DATA)
    desk.job(url, offset=4 * LENGTH)
    desk.journal.checkpoint("dl-1", 0, [Piece(index, LENGTH, "verified") for index in range(4)])
    desk.store.partials.mkdir(parents=True)
    desk.store.partial(SHA256).write_bytes(DATA[: 2 * LENGTH + 5])
    desk.run(url, hashes=hashes_of(DATA))
    assert desk.content() == DATA
    assert server.sent("/f") == SIZE - 2 * LENGTH


def test_a_begun_piece_that_was_damaged_meanwhile_is_fetched_anew(desk: Desk, server: FaultServer) -> None:
    """Its own hash tells, before it is called whole: the rest of it is no reason to trust its beginning."""
    url = server.serve("/f", DATA)
    desk.job(url, offset=1000)
    desk.journal.checkpoint("dl-1", 0, [Piece(0, 1000)])
    desk.store.partials.mkdir(parents=True)
    desk.store.partial(SHA256).write_bytes(b"x" + DATA[1:1000])
    job = desk.run(url, hashes=hashes_of(DATA))
    assert desk.content() == DATA
    assert job.discarded == LENGTH
    assert job.state == "completed"


def test_a_run_whose_job_was_changed_by_somebody_else_ends_without_a_trace(desk: Desk, server: FaultServer) -> None:
    url = server.serve("/f", DATA)
    desk.job(url)
    update = desk.journal.update

    def changed(job_id: str, /, known: int | None = None, **changes: Any) -> Any:
        if known is not None:
            update(job_id, state="paused", run=7)
        return update(job_id, known, **changes)

    desk.journal.update = changed  # type: ignore[method-assign]
    with pytest.raises(Superseded):
        desk.run(url)
    job = desk.journal.get("dl-1")
    assert job is not None
    assert (job.state, job.offset) == ("paused", 0)
    assert not desk.store.files.exists()
    assert not desk.store.blobs.exists()


def test_a_full_disk_is_said_before_the_first_byte(
    desk: Desk, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from jan_download.errors import DiskFull

    if not hasattr(os, "posix_fallocate"):
        pytest.skip("room is taken as the file fills here")

    def full(fd: int, at: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    url = server.serve("/f", DATA)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskFull):
        desk.fetch(url)
    assert server.sent("/f") == 0
