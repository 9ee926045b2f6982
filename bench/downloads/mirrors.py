"""Several sources of one file: one that dies in the middle, and three bad ones beside a good one.

Each server sends at a steady rate, of all its connections together, as a line has one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from content import Content
from host import Host, running
from kit import MIB, Kit, NotTakenError, say
from machine import Load
from report import Reach, Report, Table, figure, ratio
from sides import OURS
from spread import median
from timeline import Timeline

from extensions.download.tests.faults import Fault, Flip, Hold
from extensions.download.tests.faultserver import FaultServer, Seen
from jan_core import RpcError

__all__ = ["measure"]

PATH = "/model.bin"
SECONDS, QUICK_SECONDS = 6.0, 1.5
"""How long the file takes from one source."""
POLL = 0.005
PATIENCE = 10
"""How many times as long a download may take before it is given up."""


@dataclass
class Run:
    """What came of one download: seconds in all and when it ended, what was written when, and the bytes of each server.
    Where one died: when, and who was left."""

    seconds: float
    ended: float
    timeline: Timeline
    bytes: list[int]
    done: dict[str, Any]
    died: float
    survivor: FaultServer


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    report, load = Report(), Load()
    rate = round(kit.content.size / _seconds(kit))
    await _dying(kit, rate, report)
    await _four(kit, rate, report)
    size, speed = kit.content.size / MIB, rate / 1e6
    report.notes.append(f"{size:,.0f} MiB, each server {speed:.0f} MB/s over all its connections; {kit.busy(load)}")
    return report


def _seconds(kit: Kit) -> float:
    return QUICK_SECONDS if kit.quick else SECONDS


# -- one dies ---------------------------------------------------------------------------------------------------------


async def _dying(kit: Kit, rate: int, report: Report) -> None:
    """One of two stops answering when a quarter is there: it refuses connections, or it just sends no more. With one
    connection at a time, what the other brings anyway cannot hide how long it takes to turn to it."""
    alone = await _run(kit, [_server(rate)], pieces=False)
    rows = [["one source", figure(alone.seconds), "-", "-", "-"]]
    for name, connections, kill in WAYS[:2] if kit.quick else WAYS:
        say(f"mirrors: one {name}")
        try:
            run = await _run(kit, [_server(rate)] * 2, pieces=False, dies=kill, max_connections=connections)
        except NotTakenError as error:
            report.notes.append(f"one {name}: {error}")
            continue
        pause = run.timeline.longest_pause(run.died, run.ended)
        asked = _first_after(run.survivor.seen(PATH), run.died)
        back = _back(run, rate)
        rows.append([f"one of two {name}", *map(figure, [run.seconds, pause, asked, back])])
        report.reaches.append(Reach(f"one of two {name}: until half the other's rate is reached", back, 5, "s"))
    columns = ["", "s in all", "longest pause, s", "the other is asked after, s", "half its rate after, s"]
    report.tables.append(Table("A source dies when a quarter of the file is there", columns, rows))


def _silence(server: FaultServer) -> None:
    """It accepts, it takes requests, and sends no byte any more."""
    server.pace.rate = 1
    server.pace.spend(1_000_000)


def _trickle(server: FaultServer) -> None:
    """It sends a byte a second on each connection, so that nothing ever times out."""
    server.pace.rate = 1


WAYS: list[tuple[str, int, Callable[[FaultServer], None]]] = [
    ("refuses", 8, FaultServer.refuse),
    ("falls silent, one connection at a time", 1, _silence),
    ("falls silent", 8, _silence),
    ("refuses, one connection at a time", 1, FaultServer.refuse),
    ("trickles, one connection at a time", 1, _trickle),
]


def _first_after(seen: Sequence[Seen], died: float) -> float | None:
    """Seconds from then to the first request."""
    monotonic = died - time.time() + time.monotonic()
    return min((each.at - monotonic for each in seen if each.at >= monotonic), default=None)


def _back(run: Run, rate: int) -> float | None:
    """Seconds from its death until, over 200 ms, bytes come at half the other's rate."""
    window, moments = 0.2, [moment for moment in run.timeline.moments if moment.at >= run.died]
    first = 0
    for moment in moments:
        while moment.at - moments[first].at > window:
            first += 1
        if moment.written - moments[first].written >= rate * window / 2:
            return moment.at - run.died
    return None


# -- three of four are bad --------------------------------------------------------------------------------------------


async def _four(kit: Kit, rate: int, report: Report) -> None:
    """A corrupt one, one that stalls, one that is ten times slower beside the healthy one: as fast as that alone?"""
    bad: list[Callable[[], tuple[FaultServer, tuple[Fault, ...]]]] = [
        _server(rate, Flip(rate=4 / (8 * MIB))),
        _server(rate, Hold(after=MIB)),
        _server(rate // 10),
    ]
    rows = []
    for side in OURS[:1] if kit.quick else OURS:
        alone, four = [], []
        runs = kit.runs if side == OURS[0] else 1  # without a list it takes long to find out who lies
        for number in range(runs):
            say(f"mirrors: {number + 1} of {runs}, four sources, {side}")
            try:
                alone.append(await _run(kit, [_server(rate)], pieces=side == OURS[0]))
                four.append(await _run(kit, [*bad, _server(rate)], pieces=side == OURS[0]))
            except NotTakenError as error:
                report.notes.append(f"four sources, {side}: {error}")
                break
        one, all_four = (median([run.seconds for run in taken]) for taken in (alone, four))
        share = ratio(one, all_four)
        sent = [median([run.bytes[n] / MIB for run in four]) for n in range(4)]
        discarded = median([run.done["bytes_discarded"] / MIB for run in four])
        rows.append([side, *map(figure, [one, all_four, share and share * 100, *sent, discarded])])
        if side == OURS[0]:
            report.reaches.append(
                Reach("four sources, three bad: of the healthy one's bandwidth", share and share * 100, 90, "%", True)
            )
    columns = ["", "healthy alone, s", "four, s", "of its bandwidth, %"]
    columns += ["corrupt sent, MiB", "stalling", "slow", "healthy", "discarded, MiB"]
    report.tables.append(Table("Four sources, three of them bad", columns, rows))


# -- both -------------------------------------------------------------------------------------------------------------


def _server(rate: int, *faults: Fault) -> Callable[[], tuple[FaultServer, tuple[Fault, ...]]]:
    return lambda: (FaultServer(rate=rate), faults)


async def _run(
    kit: Kit,
    makers: Sequence[Callable[[], tuple[FaultServer, tuple[Fault, ...]]]],
    *,
    pieces: bool,
    dies: Callable[[FaultServer], None] | None = None,
    **settings: Any,
) -> Run:
    """One download from all of them, the first with the highest rank; `dies` is done to it after a quarter."""
    with ExitStack() as stack:
        servers = []
        for make in makers:
            server, faults = make()
            stack.enter_context(server)
            server.serve(PATH, kit.content.path, *faults)
            servers.append(server)
        async with _hosted(kit, servers, settings) as host:
            listed = kit.web.pieces if pieces else ""
            with Timeline(host.pid) as timeline:
                began = time.time()
                ended = asyncio.create_task(host.fetch(kit.content.file(servers[0].url(PATH), pieces=listed)))
                died, survivor = await _kill(servers, dies, timeline, kit.content, ended) if dies else (0.0, servers[0])
                try:
                    async with asyncio.timeout(PATIENCE * _seconds(kit)):
                        done = await ended
                except TimeoutError:
                    raise NotTakenError(f"no end within {PATIENCE * _seconds(kit):g} s") from None
                except RpcError as error:
                    raise NotTakenError(str(error)) from error
                now = time.time()
        sent = [server.sent(PATH) for server in servers]
    return Run(now - began, now, timeline, sent, done, died, survivor)


@asynccontextmanager
async def _hosted(kit: Kit, servers: Sequence[FaultServer], settings: dict[str, Any]) -> AsyncIterator[Host]:
    async with running(kit.fresh("mirrors"), **settings) as host:
        await host.mirrors(kit.content.sha256, [server.url(PATH) for server in servers[1:]])
        await host.fetch(kit.content.small(kit.web.endpoint))
        yield host


async def _kill(
    servers: Sequence[FaultServer],
    dies: Callable[[FaultServer], None],
    timeline: Timeline,
    expected: Content,
    ended: asyncio.Task[dict[str, Any]],
) -> tuple[float, FaultServer]:
    """Do it to one of two that is sending; when it was done, and the other."""
    while timeline.written < expected.size // 4 and not ended.done():  # noqa: ASYNC110 - it happens in another process
        await asyncio.sleep(POLL)
    victim, survivor = sorted(servers, key=lambda server: all(seen.how != "open" for seen in server.seen(PATH)))
    died = time.time()
    await asyncio.to_thread(dies, victim)
    return died, survivor
