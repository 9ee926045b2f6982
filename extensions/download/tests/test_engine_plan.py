"""Who fetches which pieces, and how many connections do."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jan_download.engine.pace import Pace
from jan_download.engine.pieces import PieceMap
from jan_download.engine.plan import REQUEST, Claim, Plan
from jan_download.source import Source
from jan_download.sources import SourceBook

from jan_core.types import DownloadSource

MIB = 1 << 20


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def sources(clock: Clock, count: int = 2, *, measured: bool = False) -> list[Source]:
    book = SourceBook([DownloadSource(f"http://host{n}/f") for n in range(count)], {}, clock)
    found: list[Source] = []
    for _ in range(count):
        source = book.pick([each.id for each in found])
        assert source is not None
        found.append(source)
        if measured:
            book.began(source)
            clock.now += 1
            book.received(source, 100 * MIB)
            book.ended(source)
    return found


def take(plan: Plan, source: Source, connections: int = 1, **how: bool) -> Claim:
    claim = plan.claim(source, connections, **how)
    assert claim is not None
    return claim


def bring(plan: Plan, claim: Claim, count: int, clock: Clock) -> None:
    plan.pieces.add(claim.index, count, claim.source.id)
    claim.hear(clock.now, count)


def test_requests_go_through_the_file_in_order_and_are_not_too_large(clock: Clock) -> None:
    plan = Plan(PieceMap(1000 * MIB, length=8 * MIB), clock)
    one, two = sources(clock)
    assert [(c.index, c.last) for c in (take(plan, one), take(plan, two))] == [(0, 7), (8, 15)]
    assert REQUEST == 8 * 8 * MIB


def test_an_unknown_source_is_not_trusted_with_much_beside_others(clock: Clock) -> None:
    plan = Plan(PieceMap(1000 * MIB, length=8 * MIB), clock)
    claim = take(plan, sources(clock)[0], 4, only=False)
    assert claim.index == claim.last


def test_near_the_end_each_connection_takes_less(clock: Clock) -> None:
    plan = Plan(PieceMap(80 * MIB, length=8 * MIB), clock)
    [one] = sources(clock, 1)
    spans = []
    while (claim := plan.claim(one, 4)) is not None:
        spans.append(claim.last - claim.index + 1)
    assert spans == [2, 1, 1, 1, 1, 1, 1, 1, 1]


def test_a_begun_piece_begins_a_request(clock: Clock) -> None:
    pieces = PieceMap(80, length=8)
    pieces.add(2, 3, "a")
    plan = Plan(pieces, clock)
    [one] = sources(clock, 1)
    assert [(c.index, c.last) for c in (take(plan, one), take(plan, one))] == [(0, 1), (2, 9)]


def test_half_of_a_large_claim_is_shared_with_an_idle_connection(clock: Clock) -> None:
    plan = Plan(PieceMap(64 * MIB, length=8 * MIB), clock)
    one, two = sources(clock)
    first = take(plan, one)
    assert plan.claim(two, 1) is None
    assert not plan.split()  # it has just begun
    clock.now += 2
    assert plan.split()
    second = take(plan, two)
    assert (first.index, first.last, second.index, second.last) == (0, 3, 4, 7)


def test_a_claim_that_is_nearly_done_is_not_shared(clock: Clock) -> None:
    plan = Plan(PieceMap(16 * MIB, length=8 * MIB), clock)
    claim = take(plan, sources(clock)[0])
    clock.now += 0.5
    bring(plan, claim, 8 * MIB, clock)
    assert not plan.split()


def test_a_silent_connection_loses_its_piece_to_any_other(clock: Clock) -> None:
    plan = Plan(PieceMap(8 * MIB, length=8 * MIB), clock)
    one, two = sources(clock)
    claim = take(plan, one)
    bring(plan, claim, MIB, clock)
    assert plan.laggard(two) is None
    clock.now += 2
    claim.writing = True
    assert plan.laggard(two) is None  # nobody takes away what is being written
    claim.writing = False
    assert plan.laggard(two) is claim
    plan.release(claim)
    assert claim.void
    assert take(plan, two).index == 0


def test_a_slow_connection_loses_its_last_piece_to_a_much_faster_source(clock: Clock) -> None:
    one, two = sources(clock, measured=True)
    plan = Plan(PieceMap(8 * MIB, length=8 * MIB), clock)
    claim = take(plan, one)
    for _ in range(4):
        clock.now += 0.5
        bring(plan, claim, MIB // 10, clock)
    assert plan.laggard(one) is None
    assert plan.laggard(two) is claim


def test_what_is_written_while_a_claim_is_taken_away_is_nobody_elses_yet(clock: Clock) -> None:
    plan = Plan(PieceMap(16, length=8), clock)
    [one] = sources(clock, 1)
    claim = take(plan, one)
    claim.writing = True
    plan.release(claim)
    assert plan.free() == 1
    claim.writing = False
    plan.release(claim)
    assert plan.free() == 0


def test_a_tenth_of_what_the_others_bring_is_slow(clock: Clock) -> None:
    plan = Plan(PieceMap(3000 * MIB, length=8 * MIB), clock)
    claims = [take(plan, source, 3) for source in sources(clock, 3)]
    for _ in range(12):
        clock.now += 0.5
        for claim, count in zip(claims, (MIB, MIB, 9000), strict=True):
            claim.hear(clock.now, count)
    assert list(plan.slow()) == [claims[2]]
    claims[2].paused = True
    assert list(plan.slow()) == []


def test_who_keeps_the_front_waiting_is_found(clock: Clock) -> None:
    pieces = PieceMap(1000 * MIB, length=8 * MIB)
    plan = Plan(pieces, clock)
    claim = take(plan, sources(clock)[0], 4, only=False)
    assert plan.straggler() is None
    for index in range(1, 40):
        pieces.add(index, 8 * MIB, "fast")
        pieces.finish(index, checked=False)
    assert plan.straggler() is claim


def test_a_source_without_ranges_goes_from_gap_to_gap(clock: Clock) -> None:
    pieces = PieceMap(50, length=10)
    plan = Plan(pieces, clock)
    one, two = sources(clock)
    pieces.add(1, 10, "x")
    pieces.finish(1, checked=False)
    claim = plan.sequential(one)
    assert claim is not None
    other = take(plan, two, 9, only=False)
    assert (claim.index, other.index) == (0, 2)
    pieces.add(0, 10, one.id)
    pieces.finish(0, checked=False)
    assert plan.advance(claim) == 3
    assert plan.free() == 4


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 6))
def test_whatever_happens_each_piece_is_brought_once_by_its_owner(seed: int, count: int, hands: int) -> None:
    chance, clock = random.Random(seed), Clock()
    pieces = PieceMap(count * 8 - 3, length=8)
    plan = Plan(pieces, clock)
    known = sources(clock, 3)
    claims: list[Claim] = []
    while not pieces.complete:
        clock.now += chance.random()
        claims = [claim for claim in claims if not claim.void]
        step = chance.randrange(6)
        if step == 0 and len(claims) < hands:
            source = chance.choice(known)
            claim = plan.sequential(source) if chance.random() < 0.2 else plan.claim(source, hands, only=False)
            claims += [claim] if claim is not None else []
        elif step == 1:
            plan.split()
        elif step == 2 and claims and chance.random() < 0.3:
            plan.release(chance.choice(claims))
        elif claims:
            claim = chance.choice(claims)
            first, end = pieces.span(claim.index)
            lack = end - first - pieces.have(claim.index)
            some = chance.randint(0, lack)
            bring(plan, claim, some, clock)
            if some == lack:
                pieces.finish(claim.index, checked=False)
                if plan.advance(claim) is None:
                    plan.release(claim)
        owned = [index for claim in plan.claims for index in range(claim.index, claim.last + 1)]
        assert len(owned) == len(set(owned))
    assert pieces.done == pieces.size


# -- how many ---------------------------------------------------------------------------------------------------------


def paced(pace: Pace, goodput: object, seconds: float, begin: float = 0.0, received: int = 0) -> tuple[float, int]:
    """Feed a Pace every 0.1 s with what `goodput(connections)` brings."""
    now = begin
    while now < begin + seconds:
        now += 0.1
        received += round(0.1 * goodput(pace.target))  # type: ignore[operator]
        pace.note(now, received, pace.target)
    return now, received


def test_connections_are_added_while_each_brings_more() -> None:
    pace = Pace(8)
    paced(pace, lambda n: 1e6 * min(n, 5), 30)
    assert pace.target == 5


def test_one_connection_is_enough_when_the_line_is_full() -> None:
    pace = Pace(8)
    paced(pace, lambda n: 1e7, 4)
    assert pace.target == 1


def test_the_most_is_never_exceeded() -> None:
    pace = Pace(3)
    paced(pace, lambda n: 1e6 * n, 60)
    assert pace.target == 3
    pace.limit(1)
    assert pace.target == 1


def test_a_line_that_became_slower_is_found_out_anew() -> None:
    pace = Pace(8)
    now, received = paced(pace, lambda n: 1e7, 4)
    paced(pace, lambda n: 1e6 * n, 30, now, received)
    assert pace.target == 8


def test_nothing_is_judged_before_what_was_asked_for_is_there() -> None:
    pace = Pace(8)
    for tick in range(100):
        pace.note(tick / 10, 0, 0)
    assert pace.target == 1
