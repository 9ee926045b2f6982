"""What a poll, a change of one model and a whole list cost, on the line and on the machine, beside two other ways.

Each round begins with clients that know nothing. One of each kind is timed; a second one, in the first round, goes
through a relay that counts bytes (`wiretap.py`), and a third is our whole host. Times are medians over the rounds, of
polls over all polls.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median

import catalogues
from hosts import computed, named, opened
from kit import Kit, NotTakenError, Site, say
from machine import Load
from report import Reach, Report, Table, figure, ratio
from ways import Client, NaiveWay, OurWay, RemoteSettingsWay, Way
from wiretap import tapped

__all__ = ["measure"]

POLLS = 20
HOST_POLLS, HOST_PAUSE = 15, 1.05
"""Of the whole host: seconds between them, for within one second the host takes a state for the same one."""
HOST = "ours, the whole host"
STEPS = ("poll", "one model", "whole")
TITLES = {"poll": "Nothing is new", "one model": "One model of {} is another", "whole": "All of {} models"}


@dataclass
class Cost:
    """Of one step: seconds, and seconds of computing, of each time; bytes that came and went once."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    received: int | None = None
    sent: int | None = None
    bodies: int | None = None

    def row(self) -> list[str]:
        counted = [figure(self.bodies), figure(self.received), figure(self.sent)]
        return [*counted, *(figure(_middle(of, 1e3)) for of in (self.wall, self.cpu))]


Costs = dict[str, dict[str, Cost]]


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    size, load = kit.sizes[1], Load()
    site = kit.site(size)
    ways: list[Way] = [OurWay(site), NaiveWay(kit), RemoteSettingsWay(kit)]
    costs: Costs = {step: {way.name: Cost() for way in ways} for step in STEPS}
    rng, notes = random.Random(3), []
    try:
        for way in ways[1:]:
            way.publish(site.catalogue)
        for number in range(kit.rounds):
            say(f"wire: round {number + 1} of {kit.rounds}")
            async with AsyncExitStack() as stack:
                clients = [(way.name, await _client(stack, kit, way, way.url)) for way in ways]
                await _timed(clients, costs["whole"], 1)
                await _timed(clients, costs["poll"], POLLS)
                counted = await _tapped(stack, kit, ways, costs) if number == 0 else None
                changed = catalogues.touch(site.catalogue, rng)
                for way in ways:
                    way.publish(changed)
                await _timed(clients, costs["one model"], 1)
                if counted is not None:
                    await counted("one model")
                _compare(site, clients)
        costs["poll"][HOST] = await _host(kit)
    finally:
        for way in ways:
            way.close()
    tables = [
        Table(TITLES[step].format(f"{size:,}"), COLUMNS, [[name, *cost.row()] for name, cost in costs[step].items()])
        for step in STEPS
    ]
    tables.append(_ratios(costs))
    notes.append(f"medians of {kit.rounds} rounds; busy with other work: {figure(load.cores())} cores")
    return Report(tables, _reaches(costs), notes)


COLUMNS = ["", "bodies, bytes", "came, with headers", "went", "ms", "computing, ms"]


async def _client(stack: AsyncExitStack, kit: Kit, way: Way, url: str) -> Client:
    client = way.client(url, kit.fresh("client"))
    stack.push_async_callback(client.close)
    return client


async def _timed(clients: list[tuple[str, Client]], costs: dict[str, Cost], times: int) -> None:
    for _ in range(times):
        for name, client in clients:
            began, computing = time.perf_counter(), time.process_time()
            await client.poll()
            costs[name].cpu.append(time.process_time() - computing)
            costs[name].wall.append(time.perf_counter() - began)


async def _tapped(stack: AsyncExitStack, kit: Kit, ways: list[Way], costs: Costs) -> Callable[[str], Awaitable[None]]:
    """Count the bytes of the first two steps, and return what counts those of a later one."""
    taps = [await stack.enter_async_context(tapped(way.url)) for way in ways]
    clients = [await _client(stack, kit, way, tap.url) for way, tap in zip(ways, taps, strict=True)]

    async def count(step: str) -> None:
        for way, tap, client in zip(ways, taps, clients, strict=True):
            tap.reset()
            before = client.received
            await client.poll()
            cost = costs[step][way.name]
            cost.received, cost.sent, cost.bodies = tap.received, tap.sent, client.received - before

    for step in ("whole", "poll"):
        await count(step)
    return count


def _compare(site: Site, clients: list[tuple[str, Client]]) -> None:
    """Raises NotTakenError when a client has not what was published."""
    wanted = {id: json.loads(record) for id, record in site.catalogue.models.items()}
    for name, client in clients:
        if client.models() != wanted:
            raise NotTakenError(f"{name} does not have what was published")


async def _host(kit: Kit) -> Cost:
    """`registry.refresh` when nothing is new: all that a user's machine does for it."""
    cost, times = Cost(), 3 if kit.quick else HOST_POLLS
    async with opened(named(kit, kit.site(kit.sizes[0]))) as house:
        for _ in range(3):
            await house.client.call("registry.refresh")
        for _ in range(times):
            await asyncio.sleep(HOST_PAUSE)
            began, computing = time.perf_counter(), computed(house)
            answer = await house.client.call("registry.refresh")
            cost.cpu.append(computed(house) - computing)
            cost.wall.append(time.perf_counter() - began)
            if answer["outcome"] != "unchanged":
                raise NotTakenError("a refresh found something new where there was nothing")
        cost.bodies = answer["bytes"]
    return cost


def _ratios(costs: Costs) -> Table:
    """How many times what ours takes the others take."""
    rows = []
    for step in STEPS:
        ours = costs[step][OurWay.name]
        for name in (NaiveWay.name, RemoteSettingsWay.name):
            theirs = costs[step][name]
            cells = [ratio(theirs.bodies, ours.bodies), ratio(theirs.received, ours.received)]
            cells += [ratio(_middle(theirs.wall), _middle(ours.wall)), ratio(_middle(theirs.cpu), _middle(ours.cpu))]
            rows.append([f"{step}: {name}", *map(figure, cells)])
    return Table("Times ours (above 1: ours is less)", ["", "bodies", "came", "ms", "computing"], rows)


def _reaches(costs: Costs) -> list[Reach]:
    poll, change, whole = (costs[step][OurWay.name] for step in STEPS)
    share, cpu = ratio(change.bodies, whole.bodies), _middle(costs["poll"][HOST].cpu)
    return [
        Reach("idle poll, bodies", poll.bodies, 500, "bytes"),
        Reach("idle poll, with headers", poll.received, 500, "bytes"),
        Reach("idle poll, computing of the signed client", _middle(poll.cpu, 1e3), 5, "ms"),
        Reach("idle poll, computing of the whole host", cpu * 1e3 if cpu is not None else None, 5, "ms"),
        Reach("one model of many, bodies, over the whole list's", share * 100 if share is not None else None, 1, "%"),
    ]


def _middle(values: list[float], scale: float = 1.0) -> float | None:
    return median(values) * scale if values else None
