"""One partial file under many hands: what is written is read, and its room is taken beforehand or not at all."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jan_download.storage.partial import Partial


def content(partial: Partial, size: int) -> bytes:
    data = bytearray(size)
    assert partial.readinto(memoryview(data), 0) == size
    return bytes(data)


@pytest.fixture(params=["at an offset", "by the position"])
def way(request: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Reading and writing as this platform does, and as Windows does, where a file has one position."""
    if request.param == "by the position":
        for name in ("pwrite", "preadv"):
            monkeypatch.delattr(os, name, raising=False)
    return request.param


def test_many_threads_write_and_read_one_file(tmp_path: Path, way: str) -> None:
    data, step = random.Random(1).randbytes(2_000_000), 50_000
    partial = Partial(tmp_path / "p.part", len(data))
    failures: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for at in range(first, len(data), 4 * step):
                partial.write(data[at : at + step], at)
                back = bytearray(step)
                assert partial.readinto(memoryview(back), at) == min(step, len(data) - at)
                assert back[: len(data) - at] == data[at : at + step]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i * step,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failures == []
    assert content(partial, len(data)) == data
    partial.sync()
    partial.close()
    assert (tmp_path / "p.part").read_bytes() == data


def test_reading_ends_at_the_end_of_the_file(tmp_path: Path, way: str) -> None:
    partial = Partial(tmp_path / "p.part")
    partial.write(b"abc", 0)
    view = memoryview(bytearray(10))
    assert partial.readinto(view, 1) == 2
    assert bytes(view[:2]) == b"bc"
    assert partial.readinto(view, 3) == 0
    partial.close()
    partial.close()


def test_a_file_is_as_large_as_it_will_be_from_the_beginning_and_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "p.part"
    first = Partial(path)
    first.write(b"abc", 0)
    first.close()
    again = Partial(path, 3_000_000)
    assert (first.found, again.found) == (0, 3)
    again.close()
    assert path.stat().st_size == 3_000_000
    assert path.read_bytes()[:4] == b"abc\0"


def test_a_file_that_is_too_long_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "p.part"
    path.write_bytes(b"x" * 100)
    partial = Partial(path, 10)
    assert partial.found == 100
    partial.close()
    assert path.stat().st_size == 10


def test_a_file_of_unknown_size_grows(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "p.part", 0)
    partial.write(b"abc", 1_000_000)
    partial.close()
    assert (tmp_path / "p.part").stat().st_size == 1_000_003


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this platform takes room as a file fills")
@pytest.mark.parametrize("found", [0, 3])
def test_a_full_disk_is_noticed_before_the_first_byte_and_the_file_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: int
) -> None:
    path = tmp_path / "p.part"
    path.write_bytes(b"abc"[:found])

    def full(fd: int, at: int, size: int) -> None:
        os.ftruncate(fd, at + size // 2)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    closed: list[int] = []
    close = os.close

    def note(fd: int) -> None:
        closed.append(fd)
        close(fd)

    monkeypatch.setattr(os, "close", note)
    with pytest.raises(OSError, match="No space left"):
        Partial(path, 1_000_000)
    assert path.read_bytes() == b"abc"[:found]
    assert len(closed) == 1


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this platform takes room as a file fills")
@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_where_room_cannot_be_taken_the_file_is_sparse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def cannot(fd: int, at: int, size: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    partial = Partial(tmp_path / "p.part", 50_000_000)
    partial.write(b"end", 49_999_997)
    partial.close()
    status = (tmp_path / "p.part").stat()
    assert status.st_size == 50_000_000
    assert status.st_blocks * 512 < 10_000_000


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this platform takes room as a file fills")
def test_room_that_is_taken_by_writing_zeros_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    clock = iter(range(0, 1000, 3))
    asked: list[int] = []
    monkeypatch.setattr(os, "posix_fallocate", lambda fd, at, size: asked.append(at))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    Partial(tmp_path / "p.part", 40 << 30).close()
    assert asked == [0]
    assert (tmp_path / "p.part").stat().st_size == 40 << 30


WRITE = st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=120))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=st.lists(WRITE, max_size=15), size=st.integers(0, 500), reopen=st.integers(0, 15))
def test_a_partial_file_is_an_array_of_bytes(
    tmp_path_factory: Any, writes: list[tuple[int, bytes]], size: int, reopen: int
) -> None:
    path = tmp_path_factory.mktemp("partial") / "p.part"
    model = bytearray(size)
    partial = Partial(path, size)
    for number, (at, data) in enumerate(writes):
        if number == reopen:
            partial.close()
            partial = Partial(path)
            assert partial.found == len(model)
        partial.write(data, at)
        model.extend(b"\0" * (at + len(data) - len(model)))
        model[at : at + len(data)] = data
    assert content(partial, len(model)) == model
    partial.close()
    assert path.read_bytes() == model
