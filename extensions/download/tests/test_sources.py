"""The book of sources: who gets the next connection, who waits, who is out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from jan_download.errors import BadSource, SourceNotFound
from jan_download.network.errors import Unreachable
from jan_download.source import Source
from jan_download.sources import SourceBook

from jan_core.types import DownloadSource

MB = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def url(name: str) -> str:
    return f"https://{name}.example/f"


def book(clock: Clock, *names: str, speeds: dict[str, float] | None = None, chance: float = 1.0) -> SourceBook:
    return SourceBook([DownloadSource(url(name)) for name in names], speeds or {}, clock, chance=lambda: chance)


def picked(book: SourceBook, *avoid: str) -> Source:
    source = book.pick(avoid)
    assert source is not None
    return source


STEP = 0.02


@dataclass(eq=False)
class Request:
    source: Source
    left: float


def transfer(
    book: SourceBook, clock: Clock, rates: dict[str, float], seconds: float, connections: int
) -> dict[str, int]:
    """So many connections, each asking for 32 MB at a time (1 MB of who was not measured) from whom the book picks.

    `rates`: bytes/s of each host, shared by its connections. Returns bytes by host.
    """
    brought = dict.fromkeys(rates, 0)
    busy: list[Request] = []
    until = clock.now + seconds
    while clock.now < until:
        while len(busy) < connections and (source := book.pick()) is not None:
            book.began(source)
            busy.append(Request(source, (32 if source.measured else 1) * MB))
        clock.now += STEP
        shares = {each.source: rates[each.source.host] / each.source.connections * STEP for each in busy}
        for each in list(busy):
            count = int(min(each.left, shares[each.source]) + 1)
            each.left -= count
            brought[each.source.host] += count
            book.received(each.source, count)
            if each.left < 1:
                book.ended(each.source)
                busy.remove(each)
    for each in busy:
        book.ended(each.source)
    return brought


def test_each_source_gets_a_connection_before_any_gets_a_second(clock: Clock) -> None:
    sources = book(clock, "a", "b", "c")
    order = []
    for _ in range(3):
        source = picked(sources)
        sources.began(source)
        order.append(source.id)
    assert order == ["a.example", "b.example", "c.example"]


def test_what_earlier_jobs_saw_and_priority_decide_who_is_first(clock: Clock) -> None:
    given_ = [DownloadSource(url("a"), priority=1), DownloadSource(url("b")), DownloadSource(url("c"))]
    sources = SourceBook(given_, {"c.example": 8e6, "a.example": 9e6}, clock)
    order = []
    for _ in range(3):
        source = picked(sources)
        sources.began(source)
        order.append(source.host[0])
    assert order == ["c", "b", "a"]


def test_the_fast_source_carries_nearly_everything_and_the_slow_one_is_left(clock: Clock) -> None:
    sources = book(clock, "fast", "slow")
    brought = transfer(sources, clock, {"fast.example": 50 * MB, "slow.example": 0.5 * MB}, 20, 2)
    assert brought["fast.example"] > 0.9 * 50 * MB * 20
    assert brought["slow.example"] < 4 * MB


def test_sources_whose_lines_are_full_share_the_work(clock: Clock) -> None:
    sources = book(clock, "a", "b")
    brought = transfer(sources, clock, {"a.example": 10 * MB, "b.example": 10 * MB}, 20, 4)
    assert min(brought.values()) > 0.7 * 10 * MB * 20


def test_a_source_that_was_slow_in_earlier_jobs_is_not_tried_just_to_see(clock: Clock) -> None:
    sources = book(clock, "slow", "fast", "new", speeds={"slow.example": 1 * MB, "fast.example": 50 * MB})
    rates = {"slow.example": 1.0 * MB, "fast.example": 50.0 * MB, "new.example": 2.0 * MB}
    brought = transfer(sources, clock, rates, 10, 2)
    assert brought["slow.example"] == 0
    assert brought["new.example"] > 0
    assert brought["fast.example"] > 0.9 * 50 * MB * 10


def test_with_many_sources_few_are_tried_at_the_same_time(clock: Clock) -> None:
    rates = {f"s{i}.example": (40.0 if i == 0 else 0.2) * MB for i in range(12)}
    sources = book(clock, *(name.partition(".")[0] for name in rates))
    source = picked(sources)
    sources.began(source)
    clock.now += 0.1
    sources.received(source, 4 * MB)
    for _ in range(2):
        probe = picked(sources)
        assert not probe.measured
        sources.began(probe)
    assert picked(sources) is source


def test_a_source_that_others_outdid_gets_another_chance_after_a_while(clock: Clock) -> None:
    sources = book(clock, "a", "b")
    transfer(sources, clock, {"a.example": 20 * MB, "b.example": 1 * MB}, 30, 1)
    brought = transfer(sources, clock, {"a.example": 20 * MB, "b.example": 80 * MB}, 120, 1)
    assert brought["b.example"] > 20 * 80 * MB


def test_alike_sources_are_taken_by_priority(clock: Clock) -> None:
    sources = SourceBook([DownloadSource(url("a"), priority=5), DownloadSource(url("b"))], {}, clock)
    first, second = picked(sources), None
    sources.began(first)
    second = picked(sources)
    sources.began(second)
    clock.now += 1
    sources.received(first, 10 * MB)
    sources.received(second, 11 * MB)
    sources.ended(first)
    sources.ended(second)
    assert picked(sources).host == "b.example"


def test_failures_in_a_row_wait_longer_and_longer_up_to_a_bound(clock: Clock) -> None:
    sources = book(clock, "a")
    source, waits = picked(sources), []
    for _ in range(10):
        sources.began(source)
        sources.failed(source, Unreachable("no"))
        sources.ended(source)
        assert sources.pick() is None
        wait = sources.wait()
        assert wait is not None
        waits.append(round(wait, 6))
        clock.now += wait
        assert sources.pick() is source
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    sources.received(source, MB)
    sources.failed(source, Unreachable("no"))
    assert sources.wait() == pytest.approx(1)


def test_what_the_server_asks_for_wins_when_it_is_longer(clock: Clock) -> None:
    sources = book(clock, "a", chance=0.0)
    sources.failed(picked(sources), Unreachable("busy", delay=300))
    assert sources.wait() == 300
    assert sources.figures()[0].state == "waiting"
    assert sources.figures()[0].reason == "busy"


def test_a_connection_that_breaks_after_it_brought_something_is_no_reason_to_wait(clock: Clock) -> None:
    sources = book(clock, "a")
    for _ in range(50):
        source = picked(sources)
        sources.began(source)
        sources.received(source, MB)
        sources.failed(source, Unreachable("broke", brought=MB))
        sources.ended(source)
    assert sources.wait() == 0
    assert sources.figures()[0].errors == 50


def test_a_line_that_is_cut_again_and_again_never_waits_longer_than_the_first_time(clock: Clock) -> None:
    sources = book(clock, "a")
    for _ in range(50):
        source = picked(sources)
        sources.began(source)
        sources.received(source, MB // 10)
        sources.failed(source, Unreachable("broke", brought=MB // 10))
        sources.ended(source)
        assert sources.wait() == pytest.approx(1)
        clock.now += 1
    source = picked(sources)
    sources.failed(source, Unreachable("broke", brought=100))  # so little is no use
    clock.now += sources.wait() or 0
    sources.failed(source, Unreachable("broke", brought=100))
    assert sources.wait() == pytest.approx(4)


def test_one_trouble_seen_by_many_connections_is_one_failure(clock: Clock) -> None:
    sources = book(clock, "a")
    source = picked(sources)
    for _ in range(8):
        sources.began(source)
    for _ in range(8):
        sources.failed(source, Unreachable("broke"))
        sources.ended(source)
    assert sources.wait() == pytest.approx(1)


def test_a_source_that_bears_only_so_many_connections_gets_no_more_for_a_while(clock: Clock) -> None:
    sources = book(clock, "a", chance=0.0)
    source = picked(sources)
    for _ in range(3):
        sources.began(source)
        sources.received(source, MB)
    sources.failed(source, Unreachable("too many", status=503))
    sources.ended(source)
    assert source.connections == 2
    assert sources.pick() is None
    sources.ended(source)
    assert sources.pick() is source
    clock.now += 61
    sources.began(source)
    assert sources.pick() is source


def test_who_is_out_stays_out_and_when_all_are_nobody_waits(clock: Clock) -> None:
    sources = book(clock, "a", "b", "c")
    a, b, c = (picked(sources, *avoid) for avoid in ((), ("a.example",), ("a.example", "b.example")))
    sources.quarantine(a, "sends wrong bytes")
    sources.failed(b, SourceNotFound("404"))
    assert [each.state for each in sources.figures()] == ["quarantined", "gone", "unused"]
    assert sources.pick(["c.example"]) is None
    assert sources.wait() == 0
    sources.gone(c, "other size")
    sources.gone(a, "again")
    assert sources.wait() is None
    assert sources.pick() is None
    assert [each.reason for each in sources.figures()] == ["sends wrong bytes", "404", "other size"]
    assert sources.add([DownloadSource(url("a")), DownloadSource(url("d"))]) == 1
    assert picked(sources).id == "d.example"


def test_ids_are_hosts_and_tell_sources_of_one_host_apart(clock: Clock) -> None:
    addresses = ["https://h/1?secret", "https://h:443/2", "http://h:8080/3", "http://[::1]:80/4", "https://H./5"]
    sources = SourceBook([DownloadSource(each) for each in addresses], {}, clock)
    assert [each.id for each in sources.figures()] == ["h", "h#2", "h:8080", "[::1]", "h#3"]
    assert picked(sources, "h").id == "h#2"


def test_speeds_are_told_for_the_next_job_by_host_and_only_of_those_that_were_measured(clock: Clock) -> None:
    sources = book(clock, "a", "b", "c")
    for rate in (4 * MB, 1000, 9 * MB):
        source = picked(sources)
        sources.began(source)
        clock.now += 1
        sources.received(source, rate)
        sources.ended(source)
        clock.now += 100  # idle time does not count
    sources.quarantine(source, "wrong")
    assert sources.speeds() == {"a.example": pytest.approx(4 * MB, rel=0.01)}
    assert sources.figures()[0].speed == pytest.approx(4 * MB, rel=0.01)


class AnyBook(RuleBasedStateMachine):
    """Whatever happens in whatever order, the book stays right."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.book = book(self.clock, "a", "b", "c", speeds={"b.example": 1e6})
        self.open: list[Source] = []
        self.out: dict[str, str] = {}
        self.bytes: dict[str, int] = {}

    @rule(avoid=st.sets(st.sampled_from(["a.example", "b.example", "c.example"])))
    def begin(self, avoid: set[str]) -> None:
        source = self.book.pick(avoid)
        if source is None:
            return
        assert source.id not in avoid
        assert source.id not in self.out
        assert source.retry_at <= self.clock.now
        self.book.began(source)
        self.open.append(source)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), count=st.integers(0, 10 * MB))
    def receive(self, data: Any, count: int) -> None:
        source = data.draw(st.sampled_from(self.open))
        self.book.received(source, count)
        self.bytes[source.id] = self.bytes.get(source.id, 0) + count

    @precondition(lambda self: self.open)
    @rule(data=st.data(), how=st.sampled_from(["ended", "failed", "busy", "gone", "wrong"]))
    def end(self, data: Any, how: str) -> None:
        source = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        if how == "failed":
            self.book.failed(source, Unreachable("no", brought=data.draw(st.sampled_from([0, MB]))))
        elif how == "busy":
            self.book.failed(source, Unreachable("busy", delay=data.draw(st.floats(0, 3600)), status=503))
        elif how == "gone":
            self.book.failed(source, BadSource("bad"))
            self.out.setdefault(source.id, "gone")
        elif how == "wrong":
            self.book.quarantine(source, "wrong")
            self.out[source.id] = "quarantined"
        self.book.ended(source)

    @rule(seconds=st.floats(0, 500))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def figures_add_up(self) -> None:
        figures = self.book.figures()
        assert [each.id for each in figures] == ["a.example", "b.example", "c.example"]
        for each in figures:
            assert each.connections == sum(source.id == each.id for source in self.open)
            assert each.bytes == self.bytes.get(each.id, 0)
            assert each.speed >= 0
            assert (each.state if each.id in self.out else "") == self.out.get(each.id, "")
        assert all(speed > 0 for speed in self.book.speeds().values())

    @invariant()
    def somebody_can_be_asked_when_the_wait_is_over(self) -> None:
        wait = self.book.wait()
        assert (wait is None) == (len(self.out) == 3)
        if wait is not None and not self.open:
            self.clock.now += wait
            assert self.book.pick() is not None


TestAnyBook = AnyBook.TestCase
TestAnyBook.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.floats(0.1 * MB, 100 * MB), min_size=2, max_size=5), st.integers(1, 6))
@settings(max_examples=12, deadline=None)
def test_whatever_the_sources_are_worth_two_thirds_of_the_best_are_had_at_least(rates: list[float], many: int) -> None:
    clock = Clock()
    hosts = {f"s{number}.example": rate for number, rate in enumerate(rates)}
    sources = book(clock, *(host.partition(".")[0] for host in hosts))
    transfer(sources, clock, hosts, 45, many)
    brought = transfer(sources, clock, hosts, 10, many)
    assert sum(brought.values()) >= 10 * max(rates) * 2 / 3
