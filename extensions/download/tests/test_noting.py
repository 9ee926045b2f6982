"""Hashes of pieces that are noted while a file goes by."""

from __future__ import annotations

import hashlib
import itertools

from hypothesis import given
from hypothesis import strategies as st
from jan_download.integrity.noting import Noting

CONTENT = bytes(range(256)) * 40


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@given(st.lists(st.integers(0, len(CONTENT)), max_size=12), st.integers(1, 4096), st.integers(0, len(CONTENT)))
def test_pieces_are_hashed_whatever_parts_the_file_comes_in(cuts: list[int], length: int, size: int) -> None:
    noting = Noting(length, clock=lambda: 0.0, busy=lambda: 0.0)
    edges = sorted({0, size, *(cut for cut in cuts if cut < size)})
    for first, end in itertools.pairwise(edges):
        noting.update(memoryview(CONTENT)[first:end])
    hashes = noting.hashes()
    expected = b"".join(digest(CONTENT[at : min(at + length, size)]) for at in range(0, size, length))
    assert (hashes.hashes if hashes else b"") == expected


def test_a_piece_is_passed_over_while_the_thread_has_no_time_to_spare() -> None:
    now = iter([(0.0, 0.0), (1.0, 0.9), (2.0, 0.9), (4.0, 1.05)])
    moment = (0.0, 0.0)

    def clock() -> float:
        nonlocal moment
        moment = next(now)
        return moment[0]

    noting = Noting(1024, clock=clock, busy=lambda: moment[1])
    noting.update(memoryview(CONTENT)[:4000])
    hashes = noting.hashes()
    assert hashes is not None
    assert [hashes.of(index) for index in range(4)] == [
        digest(CONTENT[:1024]),
        bytes(32),
        bytes(32),
        digest(CONTENT[3072:4000]),
    ]


def test_a_file_that_went_by_too_fast_throughout_has_no_hashes() -> None:
    times = iter(range(100))
    noting = Noting(1024, clock=lambda: 0.0, busy=lambda: float(next(times)))
    noting.update(memoryview(CONTENT)[:1024])
    assert noting.hashes() is not None  # the first piece: nobody knows yet how fast it is
    assert Noting(1024).hashes() is None
