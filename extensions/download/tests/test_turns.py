"""Whose turn it is, for any jobs and any world; and what each of the others is told."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_download.records import Job
from jan_download.schedule import Schedule
from jan_download.turns import World, order, take_turns, words

NOW = 1_800_000_000.0
WORLD = World(now=NOW, max_running=2, schedule=Schedule(), online=True, free=10**12, reserve=0, held=lambda partial: 0)


def job(name: str, **fields: Any) -> Job:
    url, partial = f"https://host-{name}/f", fields.pop("partial", name)
    age = float(ord(name[0]))
    return Job(
        id=name, name=name, url=url, sha256="", size=100, destination=name, partial=partial, created_at=age, **fields
    )


def names(jobs: list[Job]) -> list[str]:
    return [each.id for each in jobs]


def test_the_oldest_go_first_and_the_others_wait_for_their_turn() -> None:
    turns = take_turns([job("c"), job("a"), job("b")], set(), set(), WORLD)
    assert names(turns.begin) == ["a", "b"]
    assert turns.reasons == {"c": "its turn"}


def test_a_higher_priority_goes_first_then_age_then_the_place_in_the_group() -> None:
    late = job("z", priority=1)
    members = [job("g", group="dg", position=n) for n in (2, 0, 1)]
    assert [each.position for each in sorted([*members, late], key=order)] == [0, 0, 1, 2]
    assert names(sorted([*members, late], key=order))[0] == "z"


def test_a_higher_priority_takes_the_place_of_the_lowest_running_one() -> None:
    jobs = [job("a", state="running"), job("b", state="running"), job("c", priority=1)]
    turns = take_turns(jobs, {"a", "b"}, set(), WORLD)
    assert (names(turns.begin), names(turns.halt)) == ([], ["b"])
    assert turns.reasons == {"b": "its turn", "c": "its turn"}
    again = take_turns(jobs, {"a", "b"}, {"b"}, WORLD)
    assert names(again.halt) == [], "the place that is being freed is its own already"
    jobs[1].state = "queued"
    assert names(take_turns(jobs, {"a"}, set(), WORLD).begin) == ["c"]


def test_the_same_priority_takes_no_place_and_neither_does_one_without_room() -> None:
    running = [job("a", state="running"), job("b", state="running")]
    assert not take_turns([*running, job("c")], {"a", "b"}, set(), WORLD).halt
    full = replace(WORLD, free=50, held=lambda partial: 100 if partial in "ab" else 0)
    assert not take_turns([*running, job("c", priority=9)], {"a", "b"}, set(), full).halt


def test_fewer_places_than_run_send_the_last_back_to_the_queue() -> None:
    jobs = [job("a", state="running"), job("b", state="running", priority=1)]
    turns = take_turns(jobs, {"a", "b"}, set(), replace(WORLD, max_running=1))
    assert names(turns.halt) == ["a"]


def test_outside_its_hours_nothing_runs_and_everybody_is_told_when_it_will() -> None:
    local = time.localtime(NOW)
    later = f"{(local.tm_hour + 2) % 24:02}:00"
    world = replace(WORLD, schedule=Schedule.parse(f"{later}-{(local.tm_hour + 3) % 24:02}:00"))
    turns = take_turns([job("a", state="running"), job("b")], {"a"}, set(), world)
    assert (names(turns.begin), names(turns.halt)) == ([], ["a"])
    assert turns.reasons == dict.fromkeys("ab", f"{later}, when downloads are allowed")


def test_a_job_that_may_begin_later_waits_also_when_it_runs_already() -> None:
    at = NOW + 5 * 86400
    turns = take_turns([job("a", state="running", not_before=at), job("b", not_before=at)], {"a"}, set(), WORLD)
    assert names(turns.halt) == ["a"]
    assert turns.reasons["b"] == time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) + ", when it may begin"


def test_a_source_that_fails_is_asked_again_at_its_time_and_not_never() -> None:
    waiting = job("a", state="waiting", retry_at=NOW + 20)
    turns = take_turns([waiting], set(), set(), WORLD)
    assert turns.reasons == {"a": "host-a, again in 20 s"}
    assert turns.look_again == 5.0
    assert words(waiting, turns.reasons["a"], NOW + 12) == "host-a, again in 8 s"
    assert words(job("a", state="waiting", retry_at=NOW + 1800), "", NOW) == "host-a, again in 30 min"
    jumped = job("a", state="waiting", retry_at=NOW + 10**7)
    assert names(take_turns([jumped], set(), set(), WORLD).begin) == ["a"], "written under another clock"


def test_what_waits_for_the_network_goes_on_when_there_is_one() -> None:
    offline = job("a", state="offline")
    turns = take_turns([offline], set(), set(), replace(WORLD, online=False))
    assert turns.reasons == {"a": "the network"}
    assert turns.look_again <= 2.0
    assert names(take_turns([offline], set(), set(), WORLD).begin) == ["a"]


def test_what_waits_for_room_is_told_how_much_and_goes_on_when_there_is() -> None:
    blocked = job("a", state="blocked_disk")
    blocked.size = 4_200_000_000
    turns = take_turns([blocked], set(), set(), replace(WORLD, free=1_000_000_000))
    assert turns.reasons == {"a": "room on the disk: 3.2 GB are missing"}
    assert turns.look_again <= 5.0
    assert names(take_turns([blocked], set(), set(), WORLD).begin) == ["a"]


def test_the_same_file_is_fetched_by_one_at_a_time() -> None:
    first, second = job("a", partial="k"), job("b", partial="k")
    turns = take_turns([first, second], set(), set(), WORLD)
    assert names(turns.begin) == ["a"]
    assert turns.reasons == {"b": "another download of the same file"}
    first.state = "paused"
    assert names(take_turns([first, second], set(), set(), WORLD).begin) == ["b"]
    turns = take_turns([second], {"gone"}, {"gone"}, WORLD, {"k"})
    assert turns.reasons == {"b": "another download of the same file"}, "a cancelled one has not let go of it"


def test_what_became_due_without_a_place_is_queued() -> None:
    jobs = [job("a", state="running"), job("b", state="waiting", retry_at=NOW - 1)]
    turns = take_turns(jobs, {"a"}, set(), replace(WORLD, max_running=1))
    assert names(turns.ready) == ["b"]
    assert turns.reasons == {"b": "its turn"}


@pytest.mark.parametrize("state", ["running", "verifying", "paused", "completed", "failed", "cancelled"])
def test_what_waits_for_nothing_is_not_said_to(state: Any) -> None:
    assert words(job("a", state=state), "its turn", NOW) == ""


jobs_of_any_kind = st.lists(
    st.builds(
        lambda name, state, priority, partial, retry, before: (name, state, priority, partial, retry, before),
        st.sampled_from("abcdefghij"),
        st.sampled_from(["queued", "running", "verifying", "waiting", "offline", "blocked_disk", "paused"]),
        st.integers(-2, 2),
        st.sampled_from(["", "k", "l"]),
        st.sampled_from([0.0, NOW - 5, NOW + 5]),
        st.sampled_from([0.0, NOW + 60]),
    ),
    unique_by=lambda each: each[0],
)


@given(jobs_of_any_kind, st.integers(1, 4), st.integers(0, 500), st.booleans(), st.data())
def test_never_more_run_than_may_nor_two_of_a_file_and_nobody_waits_without_a_reason(
    kinds: list[Any], most: int, free: int, online: bool, data: st.DataObject
) -> None:
    jobs = [
        job(name, state=state, priority=priority, partial=partial or name, retry_at=retry, not_before=before)
        for name, state, priority, partial, retry, before in kinds
    ]
    moving = [each.id for each in jobs if each.state in ("running", "verifying")]
    running = set(data.draw(st.lists(st.sampled_from(moving), max_size=most, unique=True)) if moving else [])
    busy = set(data.draw(st.lists(st.sampled_from(sorted(running)), unique=True)) if running else [])
    world = replace(WORLD, max_running=most, free=free, online=online)
    turns = take_turns(jobs, running, busy, world)
    begun, halted = set(names(turns.begin)), set(names(turns.halt))
    assert len(running | begun) <= max(most, len(running))
    assert halted <= running - busy
    assert not begun & running
    partials = [each.partial for each in jobs if each.id in begun | running]
    files_running = [each.partial for each in jobs if each.id in running]
    assert len(partials) - len(set(partials)) == len(files_running) - len(set(files_running))
    for each in jobs:
        if each.state != "paused" and each.id not in running | begun | busy:
            assert turns.reasons.get(each.id), each
