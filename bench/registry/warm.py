"""What a running host takes for the list, for one model and for a search: from a client's question to its answer over
stdio, beside a `ping`, which is what a question costs that needs no list."""

from __future__ import annotations

import random
import time
from typing import Any

from catalogues import Catalogue
from hosts import opened, synced
from kit import Kit, NotTakenError, say
from machine import Load
from quantiles import PERCENTILES, percentile, percentiles
from queries import LIMIT, queries
from report import Reach, Report, Table, figure

from jan_core.rpc.client import WireClient

__all__ = ["measure"]

Question = tuple[str, dict[str, Any]]


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    rows, reaches, load = [], [], Load()
    times = 40 if kit.quick else 200 * kit.rounds
    for size in kit.sizes:
        say(f"warm: {size:,} models")
        having = await synced(kit, size)
        async with opened(having.data) as house:
            first = await timed(house.client, [("registry.featured", {})])
            rows.append([f"{size:,}: the first list of a host that is up", *percentiles(first)])
            for name, questions in _questions(having.catalogue, times).items():
                taken = await timed(house.client, questions)
                rows.append([f"{size:,}: {name}", *percentiles(taken)])
                if name == "list":
                    late = percentile(taken, 0.95)
                    reaches.append(Reach(f"list, {size:,} models, p95", late * 1e3 if late else None, 5, "ms"))
                if name.startswith("search") and size == kit.sizes[-1]:
                    late = percentile(taken, 0.95)
                    reaches.append(Reach(f"{name}, {size:,} models, p95", late * 1e3 if late else None, 5, "ms"))
    notes = [f"busy with other work: {figure(load.cores())} cores"]
    return Report([Table("Questions to `jan-sidecar`", ["", *PERCENTILES], rows)], reaches, notes)


def _questions(catalogue: Catalogue, times: int) -> dict[str, list[Question]]:
    rng = random.Random(5)
    ids = list(catalogue.models)
    asked = [query for kind in queries(catalogue, times // 10).values() for query in kind]
    rng.shuffle(asked)
    return {
        "ping": [("ping", {})] * times,
        "list": [("registry.featured", {})] * times,
        "one featured model": [("registry.get", {"id": rng.choice(catalogue.featured)}) for _ in range(times)],
        "one model of all": [("registry.get", {"id": rng.choice(ids)}) for _ in range(times)],
        f"search, {LIMIT} at a time": [
            ("registry.search", {"text": text, "offset": offset, "limit": LIMIT}) for text, offset in asked
        ],
    }


async def timed(client: WireClient, questions: list[Question]) -> list[float]:
    """Seconds each. Raises NotTakenError for a list without models, or another model than was asked for."""
    found = []
    for method, params in questions:
        began = time.perf_counter()
        answer = await client.call(method, params)
        found.append(time.perf_counter() - began)
        if method == "registry.featured" and not answer["models"]:
            raise NotTakenError("the list is empty")
        if method == "registry.get" and answer["model"]["id"] != params["id"]:
            raise NotTakenError("another model came than was asked for")
    return found
