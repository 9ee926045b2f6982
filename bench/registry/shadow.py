"""What the shadow costs those who are served: `registry.featured` in `mixed`, with the shadow and without it.

    python bench/registry/shadow.py [--models 10000] [--rounds 40] [--requests 400] [--every 30]

Two whole hosts in one process, each with the same signed hub in a folder, take turns: a round of requests at the one
while the other stands still, then the other way round, so that a busy machine is busy for both. The order within a
pair of rounds is drawn. A request counts from the call of the method to its answer.

On a machine that others use too, two measurements of the same thing differ by more than a percent. So there is a bound
that does not compare two of them: which requests met a pair under way, and what the 95th percentile would be if each of
these had taken forever.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from jan_registry.plugin import RegistryExtension

from jan_core.host import Host
from jan_core.testing import InlineSource

sys.path.insert(0, str(Path(__file__).parents[2]))
from extensions.registry.tests.hubmaker import Hub

PACE = 0.002
"""Seconds between two requests, so that what runs beside them has a chance to be in their way."""


def publish(folder: Path, models: int) -> Hub:
    """A hub that asks for `mixed` with every machine on the dynamic list."""
    ids = [f"org/model-{number}:8b" for number in range(models)]
    values = {"registry.phase": "mixed", "registry.mixed.percent": 100}
    hub = Hub(folder).models("jan-tiny", *ids)
    hub.set("featured", [{"id": "default", "models": ids[:100]}])
    hub.set("flags", [{"kind": "flag", "id": name, "value": value} for name, value in values.items()])
    hub.publish()
    return hub


class Watched:
    """A shadow of which is known when it works."""

    def __init__(self, runner: Any, every: float) -> None:
        self.busy, self.count, self._pair = False, 0, runner._pair
        runner._every, runner._pair = every, self._watched

    async def _watched(self, *given: Any) -> Any:
        self.busy = True
        self.count += 1
        try:
            return await self._pair(*given)
        finally:
            self.busy = False


async def house(stack: AsyncExitStack, folder: Path, hub: Hub, *, shadow: bool, every: float) -> tuple[Any, Watched]:
    """A client of a host in `mixed`, and its shadow."""
    made: list[RegistryExtension] = []

    class Kept(RegistryExtension):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    os.environ["JAN_REGISTRY_SHADOW_ENABLED"] = str(shadow).lower()
    folder.mkdir()  # noqa: ASYNC240  (nothing is measured yet)
    host = await stack.enter_async_context(Host(folder, sources=[InlineSource("registry", Kept, ["registry."])]))
    await host.activate_startup()
    client = host.client()
    (folder / "root.json").write_bytes(hub.root)
    values = {"url": hub.url, "root": str(folder / "root.json"), "refresh_seconds": 0}
    await client.call("settings.set", {"extension": "registry", "values": values})
    await client.call("registry.refresh")
    phase = await client.call("registry.phase")
    assert (phase["phase"], phase["arm"], phase["shadow"]) == ("mixed", "dynamic", shadow), phase
    return client, Watched(made[-1]._services.featuring.rollout._shadow, every)


async def round_of(client: Any, shadow: Watched, requests: int) -> tuple[list[int], int]:
    """Microseconds of each request, and during how many of them a pair was under way."""
    taken, met = [], 0
    for _ in range(requests):
        busy, count = shadow.busy, shadow.count
        began = time.perf_counter_ns()
        await client.call("registry.featured")
        taken.append((time.perf_counter_ns() - began) // 1000)
        met += busy or shadow.count > count
        await asyncio.sleep(PACE)
    return taken, met


def rank(values: list[int], percent: float) -> int:
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


async def measure(options: argparse.Namespace, folder: Path) -> None:
    hub = publish(folder, options.models)
    taken: dict[bool, list[int]] = {False: [], True: []}
    differences, met = [], 0
    async with AsyncExitStack() as stack:
        clients = {}
        for shadow in taken:
            name = folder / f"data-{shadow}"
            clients[shadow] = await house(stack, name, hub, shadow=shadow, every=options.every)
        for one in clients.values():
            await round_of(*one, 100)
        rng = random.Random(1)
        for _ in range(options.rounds):
            both = {}
            for shadow in rng.sample([False, True], 2):
                both[shadow], overlapped = await round_of(*clients[shadow], options.requests)
                taken[shadow] += both[shadow]
                met += overlapped
            differences.append(rank(both[True], 95) / rank(both[False], 95) - 1)
        report = await clients[True][0].call("registry.report")
    print(f"{options.models:,} models, {len(taken[True]):,} requests each, a pair at most every {options.every:g} s:")
    print(f"{report['pairs']['pairs']} pairs ran, {report['pairs']['dynamic_errors']} of them failed")
    print("| shadow | p50 µs | p95 µs | p99 µs |\n|---|---|---|---|")
    for shadow, values in taken.items():
        print(f"| {'on' if shadow else 'off'} | {rank(values, 50)} | {rank(values, 95)} | {rank(values, 99)} |")
    differences.sort()
    quarter = len(differences) // 4
    middle, spread = differences[len(differences) // 2], (differences[quarter], differences[-1 - quarter])
    whole = rank(taken[True], 95) / rank(taken[False], 95) - 1
    told = f"median {middle:+.2%}, the middle half {spread[0]:+.2%} to {spread[1]:+.2%}"
    print(f"p95 of all: {whole:+.2%}; of rounds, {told}")
    share = 100 * met / len(taken[True])
    bound = rank(taken[False], 95 + share) / rank(taken[False], 95) - 1
    print(f"{met} requests ({share:.3f} %) met a pair; if each had taken forever, p95 would be {bound:+.2%}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--every", type=float, default=30.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(options, Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
