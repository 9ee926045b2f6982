"""Ids sort by time and never repeat."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st
from jan_conversational.ids import Ids

NANOSECONDS = st.integers(0, 2**47 * 1_000_000)
"""Until the year 6429; the format's 48 bits of milliseconds end in 10889."""


@given(st.lists(NANOSECONDS, min_size=1, max_size=50))
def test_ids_increase_whatever_the_clock_does(times: list[int]) -> None:
    clock = iter(times)
    ids = Ids(lambda: next(clock))
    made = [ids.new() for _ in times]
    assert sorted(made) == made
    assert len(set(made)) == len(made)


@given(NANOSECONDS)
def test_an_id_is_a_version_7_uuid_of_its_millisecond(time: int) -> None:
    id = uuid.UUID(Ids(lambda: time).new())
    assert (id.version, id.variant) == (7, uuid.RFC_4122)
    assert id.int >> 80 == time // 1_000_000


def test_two_processes_at_the_same_instant_make_different_ids() -> None:
    assert len({Ids(lambda: 1_700_000_000_000_000_000).new() for _ in range(100)}) == 100
