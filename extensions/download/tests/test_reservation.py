"""Room on the disk: what is promised to others, and what never fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_download.errors import DiskFull
from jan_download.records import Job
from jan_download.reservation import check_capacity, gigabytes, lacking, reserve_of


def job(key: str, size: int, **fields: object) -> Job:
    return Job(id=f"dl-{key}", name="f", url="u", sha256="", size=size, destination="f", partial=key, **fields)  # type: ignore[arg-type]


def test_the_reserve_is_two_gibibytes_or_a_twentieth_of_the_disk_whichever_is_less() -> None:
    assert reserve_of(-1, 100 << 30) == 2 << 30
    assert reserve_of(-1, 10 << 30) == (10 << 30) // 20
    assert reserve_of(0, 100 << 30) == 0
    assert reserve_of(5, 100 << 30) == 5


def test_what_others_need_still_is_promised_to_them_and_what_they_have_is_not_asked_twice() -> None:
    first, second = job("a", 100), job("b", 50)
    assert lacking(second, [first], {"a": 0, "b": 0}, free=150, reserve=0) == 0
    assert lacking(second, [first], {"a": 0, "b": 0}, free=149, reserve=0) == 1
    assert lacking(second, [first], {"a": 100, "b": 0}, free=50, reserve=0) == 0, "a partial file that has its room"
    assert lacking(second, [first], {"a": 100, "b": 0}, free=50, reserve=7) == 7


def test_jobs_of_one_partial_file_need_its_room_once() -> None:
    one, same = job("a", 100), job("a", 100)
    assert lacking(same, [one], {"a": 0}, free=100, reserve=0) == 0


def test_a_job_of_unknown_size_or_with_all_its_room_lacks_none() -> None:
    assert lacking(job("a", 0), [job("b", 1000)], {"a": 0, "b": 0}, free=10, reserve=10) == 0
    assert lacking(job("a", 100), [job("b", 1000)], {"a": 100, "b": 0}, free=10, reserve=10) == 0


@given(
    sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=8),
    disk=st.integers(0, 4000),
    reserve=st.integers(0, 500),
)
def test_jobs_that_are_let_in_one_after_the_other_never_need_more_than_there_is(
    sizes: list[int], disk: int, reserve: int
) -> None:
    held: dict[str, int] = {str(n): 0 for n in range(len(sizes))}
    let_in: list[Job] = []
    for n, size in enumerate(sizes):
        asked = job(str(n), size)
        if lacking(asked, let_in, held, disk, reserve) <= 0:
            let_in.append(asked)
    assert not let_in or sum(each.size for each in let_in) + reserve <= disk


def test_a_file_larger_than_the_whole_disk_is_refused_at_once() -> None:
    check_capacity(90, 100, 10)
    with pytest.raises(DiskFull) as refused:
        check_capacity(91, 100, 10)
    assert refused.value.data == {"needed": 101, "free": 100}


def test_sizes_are_told_as_people_say_them() -> None:
    assert [gigabytes(n) for n in (999, 5_000_000, 3_200_000_000)] == ["999 bytes", "5.0 MB", "3.2 GB"]
