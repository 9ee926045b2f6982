"""The pieces of a file, and the map that shows them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_download.engine.pieces import LETTERS, PieceMap, decode, encode
from jan_download.records import Piece

PIECES = st.builds(
    Piece,
    index=st.integers(-2, 12),
    length=st.integers(-2, 12),
    state=st.sampled_from(["begun", "whole", "verified"]),
    source=st.sampled_from(["", "one", "two"]),
    tries=st.integers(-1, 3),
)


@given(st.text(LETTERS, max_size=300))
def test_a_map_is_read_as_it_was_written(letters: str) -> None:
    assert decode(encode(letters)) == letters


@given(st.text("0123456789vwapxm -", max_size=30))
def test_a_map_of_any_other_form_is_refused(text: str) -> None:
    try:
        letters = decode(text)
    except ValueError:
        return
    assert len(letters) <= 1 << 22


def test_a_map_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="more pieces"):
        decode("99999999m")


def test_runs_are_counted() -> None:
    assert encode("vvvam") == "3v1a1m"
    assert encode("") == decode("") == ""


@given(st.integers(0, 100), st.integers(1, 12), st.lists(PIECES, max_size=20))
def test_what_a_journal_says_never_leads_outside_the_file(size: int, length: int, pieces: list[Piece]) -> None:
    there = PieceMap(size, pieces, length)
    assert there.count == -(-size // length)
    assert sum(end - first for first, end in map(there.span, range(there.count))) == size
    assert there.done == sum(map(there.have, range(there.count))) <= size
    assert there.verified <= there.done
    assert there.ready <= size
    assert len(decode(there.map())) == there.count
    assert PieceMap(size, [there.piece(i) for i in range(there.count)], length).map() == there.map()


@given(st.integers(1, 60), st.integers(1, 9), st.lists(st.tuples(st.integers(0, 99), st.integers(0, 4)), max_size=80))
def test_the_sums_follow_whatever_happens_to_pieces(size: int, length: int, steps: list[tuple[int, int]]) -> None:
    there = PieceMap(size, length=length)
    told: dict[int, Piece] = {}
    for pick, step in steps:
        index = pick % there.count
        first, end = there.span(index)
        lack = end - first - there.have(index)
        if step == 0 and not there.finished(index):
            there.add(index, min(lack, 1 + pick % 3), "host")
        elif step == 1 and not there.finished(index):
            there.add(index, lack, "host")
            there.finish(index, checked=bool(pick % 2))
        elif step == 2:
            there.drop(index, wrong=bool(pick % 2))
        elif step == 3:
            there.doubt()
        else:
            told |= {piece.index: piece for piece in there.changes()}
        whole = [there.have(i) for i in range(there.count) if there.finished(i)]
        assert there.done == sum(there.have(i) for i in range(there.count))
        assert there.verified == sum(there.have(i) for i in range(there.count) if there.checked(i))
        assert there.ready == sum(whole[: there.front])
        assert there.complete == (len(whole) == there.count)
    told |= {piece.index: piece for piece in there.changes()}
    assert PieceMap(size, told.values(), length).map() == there.map()


def test_a_map_shows_what_is_under_way_and_what_was_wrong() -> None:
    there = PieceMap(50, length=10)
    there.add(0, 10, "a")
    there.finish(0, checked=True)
    there.add(1, 10, "a")
    there.finish(1, checked=False)
    there.add(2, 4, "a")
    there.add(3, 4, "b")
    assert there.drop(3, wrong=True) == 4
    assert there.map(active={4}) == "1v1w1p1x1a"
    assert [p.index for p in there.changes()] == [0, 1, 2, 3]
    assert there.changes() == []


def test_who_brought_a_piece_is_remembered() -> None:
    there = PieceMap(10, length=10)
    there.add(0, 1, "a")
    there.add(0, 1, "b")
    there.add(0, 1, "a")
    assert there.source(0) == "a b"


def test_a_piece_cannot_be_overfilled() -> None:
    there = PieceMap(10, length=4)
    with pytest.raises(ValueError, match="does not lack"):
        there.add(2, 3, "a")
    with pytest.raises(ValueError, match="not whole"):
        there.finish(2, checked=False)
