"""The hash that follows the writers: right whatever the order of the writes, ready with the last byte, flat."""

from __future__ import annotations

import hashlib
import random
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jan_download.storage.partial import Partial
from jan_download.storage.watermark import Watermark


class Writers:
    """A partial file, and how far it has no gap; under a lock, as the engine's plan is."""

    def __init__(self, path: Path, data: bytes, piece: int) -> None:
        self.data, self.piece = data, piece
        self.partial = Partial(path, len(data))
        self.lock = threading.Lock()
        self.there: set[int] = set()
        self.asked = 0

    @property
    def pieces(self) -> int:
        return -(-len(self.data) // self.piece)

    def ready(self) -> int:
        with self.lock:
            self.asked += 1
            number = 0
            while number in self.there:
                number += 1
            return min(number * self.piece, len(self.data))

    def write(self, number: int) -> None:
        at = number * self.piece
        self.partial.write(self.data[at : at + self.piece], at)
        with self.lock:
            self.there.add(number)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        threading.Event().wait(0.002)


@pytest.fixture
def writers(tmp_path: Path) -> Any:
    made = Writers(tmp_path / "p.part", random.Random(3).randbytes(5_000_001), 300_000)
    yield made
    made.partial.close()


def test_the_hash_follows_several_writers_in_any_order(writers: Writers) -> None:
    numbers = list(range(writers.pieces))
    random.Random(5).shuffle(numbers)
    with Watermark(writers.partial, len(writers.data), writers.ready) as watermark:

        def work(mine: list[int]) -> None:
            for number in mine:
                writers.write(number)
                watermark.wake()

        threads = [threading.Thread(target=work, args=(numbers[i::3],)) for i in range(3)]
        for thread in threads:
            thread.start()
        assert watermark.digest() == hashlib.sha256(writers.data).hexdigest()
        assert watermark.hashed == len(writers.data)
        for thread in threads:
            thread.join(10)


def test_a_waker_may_hold_the_lock_that_ready_takes(writers: Writers) -> None:
    """As the engine does: it would come to a standstill if `ready` were asked under a lock of the watermark."""
    with Watermark(writers.partial, len(writers.data), writers.ready) as watermark:
        for number in range(writers.pieces):
            writers.write(number)
            with writers.lock:
                for _ in range(50):
                    watermark.wake()
        assert watermark.digest() == hashlib.sha256(writers.data).hexdigest()


def test_what_was_there_before_a_restart_is_hashed_meanwhile(writers: Writers) -> None:
    for number in range(10):
        writers.write(number)
    with Watermark(writers.partial, len(writers.data), writers.ready) as watermark:
        until(lambda: watermark.hashed == 3_000_000)
        for number in range(10, writers.pieces):
            writers.write(number)
        assert watermark.digest() == hashlib.sha256(writers.data).hexdigest()


def test_it_sleeps_while_there_is_nothing_to_do(writers: Writers) -> None:
    with Watermark(writers.partial, len(writers.data), writers.ready) as watermark:
        writers.write(0)
        watermark.wake()
        until(lambda: watermark.hashed == 300_000)
        until(lambda: watermark._asleep)
        asked = writers.asked
        threading.Event().wait(0.1)
        assert writers.asked == asked


def test_a_size_that_is_known_only_at_the_end_is_told_then(tmp_path: Path) -> None:
    data = random.Random(4).randbytes(1_234_567)
    partial, there = Partial(tmp_path / "p.part"), 0
    with Watermark(partial, 0, lambda: there) as watermark:
        for at in range(0, len(data), 100_000):
            partial.write(data[at : at + 100_000], at)
            there = min(len(data), at + 100_000)
            watermark.wake()
        assert watermark.digest(size=len(data)) == hashlib.sha256(data).hexdigest()
    partial.close()


def test_an_empty_file_has_a_hash_too(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "p.part")
    with Watermark(partial, 0, lambda: 0) as watermark:
        assert watermark.digest() == hashlib.sha256(b"").hexdigest()
    partial.close()


def test_whoever_waits_for_the_hash_can_be_stopped(writers: Writers) -> None:
    stopped = threading.Event()
    with Watermark(writers.partial, len(writers.data), writers.ready) as watermark:
        threading.Timer(0.05, stopped.set).start()
        begun = time.monotonic()
        assert watermark.digest(stopped.is_set) == ""
        assert time.monotonic() - begun < 2
    assert watermark.digest() == "", "closed before the end"


def test_closing_ends_the_thread_whatever_it_does(writers: Writers) -> None:
    for _ in range(50):
        watermark = Watermark(writers.partial, len(writers.data), writers.ready)
        watermark.start()
        watermark.close()
        assert not watermark._thread.is_alive()


def test_a_file_that_cannot_be_read_is_said(writers: Writers) -> None:
    for number in range(writers.pieces):
        writers.write(number)
    writers.partial.truncate(1_000_000)
    with (
        Watermark(writers.partial, len(writers.data), writers.ready) as watermark,
        pytest.raises(OSError, match="ends at 1000000 bytes"),
    ):
        watermark.digest()


def test_memory_is_one_block_however_large_the_file(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "p.part")
    partial.truncate(64 << 20)
    tracemalloc.start()
    try:
        with Watermark(partial, 64 << 20, lambda: 64 << 20) as watermark:
            watermark.digest()
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
        partial.close()


def test_the_hash_is_ready_with_the_last_bytes(tmp_path: Path) -> None:
    """Only what came last is still to be hashed when the last byte is written, not the file."""
    data = bytes(64 << 20)
    partial, there = Partial(tmp_path / "p.part", len(data)), 0
    with Watermark(partial, len(data), lambda: there) as watermark:
        partial.write(data[: 63 << 20], 0)
        there = 63 << 20
        watermark.wake()
        until(lambda: watermark.hashed == 63 << 20)
        partial.write(data[63 << 20 :], 63 << 20)
        there = len(data)
        watermark.wake()
        begun = time.monotonic()
        assert watermark.digest() == hashlib.sha256(data).hexdigest()
        took = time.monotonic() - begun
    begun = time.monotonic()
    hashlib.sha256(data).hexdigest()
    assert took < max(0.25, time.monotonic() - begun)
    partial.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1 << 30), size=st.integers(1, 900_000), piece=st.sampled_from([1_000, 70_000, 262_144, 500_000])
)
def test_any_file_in_any_order_has_its_own_hash(tmp_path_factory: Any, seed: int, size: int, piece: int) -> None:
    rng = random.Random(seed)
    writers = Writers(tmp_path_factory.mktemp("watermark") / "p.part", rng.randbytes(size), piece)
    numbers = list(range(writers.pieces))
    rng.shuffle(numbers)
    with Watermark(writers.partial, size, writers.ready) as watermark:
        for number in numbers:
            writers.write(number)
            watermark.wake()
        assert watermark.digest() == hashlib.sha256(writers.data).hexdigest()
    writers.partial.close()
