"""The checkpointer under power cuts: what the journal says is on the disk is on the disk, whatever happened when.

The double keeps two images of the partial file: what the process sees, and what a power cut leaves. Only a sync brings
bytes from the first to the second, and only those that were written before it began; others may reach the disk by
chance, as they do. The journal is the real one.
"""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jan_download.errors import DiskFull
from jan_download.journal import Journal
from jan_download.records import Job, Piece
from jan_download.storage import checkpoint as module
from jan_download.storage.checkpoint import Checkpointer, Superseded
from jan_download.storage.partial import Partial
from jan_download.storage.store import Store

PIECE, COUNT = 40, 5
SIZE = PIECE * COUNT - 7
DATA = random.Random(11).randbytes(SIZE)


class Disk(Partial):
    """A partial file whose unsynced bytes a power cut takes away. `meanwhile` is called in the middle of a sync."""

    def __init__(self, durable: bytearray) -> None:
        self.durable, self.seen = durable, bytearray(durable)
        self.meanwhile: Callable[[], None] = lambda: None

    def write(self, data: memoryview | bytes, at: int) -> None:
        self.seen[at : at + len(data)] = data

    def sync(self) -> None:
        begun = bytes(self.seen)
        self.meanwhile()
        self.durable[:] = begun


class Engine:
    """Writers as the real one has them: a byte is counted once it is written, and counted pieces are collected."""

    def __init__(self, disk: Disk, pieces: list[Piece]) -> None:
        self.disk = disk
        self.lengths = {piece.index: piece.length for piece in pieces}
        self.changed: set[int] = set()

    def write(self, index: int, count: int) -> None:
        done = self.lengths.get(index, 0)
        at = index * PIECE + done
        data = DATA[at : min(at + count, (index + 1) * PIECE)]
        self.disk.write(data, at)
        self.lengths[index] = done + len(data)
        self.changed.add(index)

    def collect(self) -> tuple[list[Piece], dict[str, Any]]:
        pieces = [Piece(index, self.lengths[index]) for index in sorted(self.changed)]
        self.changed.clear()
        return pieces, {"offset": sum(self.lengths.values())} if pieces else {}


class House:
    def __init__(self, root: Path) -> None:
        self.store, self.path = Store(root), root / "j.db"
        self.durable = bytearray(SIZE)
        self.journal = Journal(self.path)
        self.journal.add(Job(id="dl-1", name="f", url="u", sha256="", size=SIZE, destination="f", partial="dl-1"))
        self.start()

    def start(self) -> None:
        """A process begins: it knows what journal and disk have, and nothing else."""
        self.disk = Disk(self.durable)
        self.engine = Engine(self.disk, self.journal.pieces("dl-1"))
        job = self.journal.get("dl-1")
        assert job is not None
        self.checkpointer = checkpointer(self, job)

    def cut(self, lucky: random.Random) -> None:
        """The power goes: of what was not synced, some bytes reached the disk and most did not."""
        for at in lucky.sample(range(SIZE), 20):
            self.durable[at] = self.disk.seen[at]
        self.journal.close()
        self.journal = Journal(self.path)
        self.check()
        self.start()

    def check(self) -> None:
        pieces, job = self.journal.pieces("dl-1"), self.journal.get("dl-1")
        assert job is not None
        assert job.offset == sum(piece.length for piece in pieces)
        for piece in pieces:
            begin = piece.index * PIECE
            assert self.durable[begin : begin + piece.length] == DATA[begin : begin + piece.length]


def checkpointer(house: House, job: Job, reserve: int = 0, **others: Any) -> Checkpointer:
    given: dict[str, Any] = {
        "collect": house.engine.collect, "report": lambda job: None, "failed": lambda: None, "reserve": reserve,
    }  # fmt: skip
    return Checkpointer(job, house.disk, journal=house.journal, store=house.store, **(given | others))


WRITE = st.tuples(st.integers(0, COUNT - 1), st.integers(1, PIECE))
STEP = st.one_of(
    st.tuples(st.just("write"), WRITE),
    st.tuples(st.just("checkpoint"), st.lists(WRITE, max_size=3)),
    st.tuples(st.just("cut"), st.integers(0, 1 << 30)),
    st.tuples(st.just("cut in a sync"), st.lists(WRITE, max_size=3), st.integers(0, 1 << 30)),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=25))
def test_the_journal_never_promises_what_a_power_cut_takes_away(
    tmp_path_factory: Any, steps: list[tuple[Any, ...]]
) -> None:
    house = House(tmp_path_factory.mktemp("power"))

    class Cut(BaseException):
        pass

    def writes(these: list[tuple[int, int]]) -> None:
        for index, count in these:
            house.engine.write(index, count)

    def cut_in_sync(these: list[tuple[int, int]], seed: int) -> None:
        def meanwhile() -> None:
            writes(these)
            raise Cut

        house.engine.changed.add(0)
        house.engine.lengths.setdefault(0, 0)
        house.disk.meanwhile = meanwhile
        with pytest.raises(Cut):
            house.checkpointer._attempt()
        house.cut(random.Random(seed))

    def checkpoint(these: list[tuple[int, int]]) -> None:
        house.disk.meanwhile = lambda: writes(these)
        assert house.checkpointer._attempt()
        house.check()

    actions: dict[str, Callable[..., None]] = {
        "write": lambda write: writes([write]),
        "checkpoint": checkpoint,
        "cut": lambda seed: house.cut(random.Random(seed)),
        "cut in a sync": cut_in_sync,
    }
    for kind, *values in steps:
        actions[kind](*values)
    for index in range(COUNT):
        house.engine.write(index, PIECE)
    checkpoint([])
    house.cut(random.Random(0))
    assert house.durable == DATA
    house.journal.close()


@pytest.fixture
def house(tmp_path: Path) -> Any:
    house = House(tmp_path)
    yield house
    house.journal.close()


def test_bytes_are_synced_before_they_are_promised_and_nothing_is_synced_for_nothing(house: House) -> None:
    order: list[str] = []
    house.disk.meanwhile = lambda: order.append("sync")
    collect, noted = house.engine.collect, house.journal.checkpoint

    def note(*args: Any, **changes: Any) -> Job | None:
        order.append("commit")
        return noted(*args, **changes)

    def collecting() -> tuple[list[Piece], dict[str, Any]]:
        order.append("collect")
        return collect()

    house.journal.checkpoint = note  # type: ignore[method-assign]
    checkpointer_ = checkpointer(house, house.checkpointer.job, collect=collecting)
    house.engine.write(0, 5)
    assert checkpointer_._attempt()
    assert order == ["collect", "sync", "commit"]
    assert checkpointer_._attempt()
    assert order == ["collect", "sync", "commit", "collect"]


def test_leaving_makes_a_last_checkpoint(house: House) -> None:
    with house.checkpointer:
        house.engine.write(0, 5)
        house.engine.write(3, 8)
    assert house.checkpointer.error is None
    assert house.checkpointer.job.offset == 13
    house.cut(random.Random(1))
    assert [(p.index, p.length) for p in house.journal.pieces("dl-1")] == [(0, 5), (3, 8)]


def test_it_checkpoints_by_itself(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.01)
    reported = threading.Event()

    def report(job: Job) -> None:
        if job.offset == 5:
            reported.set()

    own = checkpointer(house, house.checkpointer.job, report=report)
    with own:
        house.engine.write(0, 5)
        assert reported.wait(10)
    house.check()


def test_a_disk_that_fails_stops_the_transfer_and_promises_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.01)

    def fail() -> None:
        raise OSError(errno.EIO, "Input/output error")

    house.disk.meanwhile = fail
    failed = threading.Event()
    own = checkpointer(house, house.checkpointer.job, failed=failed.set)
    with own:
        house.engine.write(0, 5)
        assert failed.wait(10)
    assert isinstance(own.error, OSError)
    assert house.journal.pieces("dl-1") == []


def test_somebody_elses_change_ends_the_run_and_is_kept(house: House) -> None:
    house.journal.update("dl-1", state="paused", run=7)
    house.engine.write(0, 5)
    assert not house.checkpointer._attempt()
    assert isinstance(house.checkpointer.error, Superseded)
    assert house.journal.pieces("dl-1") == []


def test_a_disk_that_is_nearly_full_stops_the_transfer_with_what_it_has_kept(house: House) -> None:
    house.engine.write(0, 5)
    own = checkpointer(house, house.checkpointer.job, reserve=1 << 62)
    assert not own._attempt()
    assert isinstance(own.error, DiskFull)
    assert own.error.data["needed"] == 1 << 62
    assert [(p.index, p.length) for p in house.journal.pieces("dl-1")] == [(0, 5)]
