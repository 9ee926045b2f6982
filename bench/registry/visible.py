"""From the end of a publication until a running host shows the new model, when the host asks at once.

A user's host asks every so often; how long the wait for that is was worked out, and is not measured.
"""

from __future__ import annotations

import json
import time
from statistics import median
from typing import Any

from catalogues import Catalogue
from hosts import named, opened
from jan_registry.collections import canonical
from kit import Kit, NotTakenError, Site, say
from machine import Load
from report import Report, Table, figure

from jan_core.rpc.client import WireClient

__all__ = ["measure", "waits"]

COLUMNS = ["models", "publishing, ms", "refresh, ms", "until it is found, ms", "until it is featured, ms", "most"]
WATCHED, BACKGROUND, JITTER = 900.0, 4 * 3600.0, 0.2
"""Seconds between questions while somebody looks at the list, and otherwise; give or take a share of that."""


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    rows, load = [], Load()
    for size in kit.sizes[:2]:
        site, found = kit.site(size), []
        async with opened(named(kit, site)) as house:
            await house.client.call("registry.refresh")
            for number in range(kit.rounds):
                say(f"visible: {size:,} models, {number + 1} of {kit.rounds}")
                found.append(await _once(house.client, site, f"janhq/newcomer-{number}"))
        columns = list(zip(*found, strict=True))
        rows.append([f"{size:,}", *(figure(median(of) * 1e3) for of in columns), figure(max(columns[-1]) * 1e3)])
    notes = [
        f"medians of {kit.rounds} publications; busy with other work: {figure(load.cores())} cores",
        *(f"worked out: {line}" for line in waits()),
    ]
    return Report([Table("From published to shown", COLUMNS, rows)], notes=notes)


async def _once(client: WireClient, site: Site, id: str) -> tuple[float, float, float, float]:
    """Publish a new model that everybody downloads. Seconds: of publishing, of the refresh, until it can be found, and
    until it is featured; the last three since the end of the publication, the refresh included."""
    before = site.catalogue
    model = json.loads(next(iter(before.models.values()))) | {"id": id, "name": "Newcomer"}
    most = max(before.downloads.values()) + 1
    published = site.publish(Catalogue({**before.models, id: canonical(model)}, {**before.downloads, id: most}))
    await client.call("registry.refresh")
    refreshed = time.perf_counter() - published.ended
    await _shows(client, id, "registry.search", {"text": id, "limit": 20})
    searched = time.perf_counter() - published.ended
    await _shows(client, id, "registry.featured", {})
    return published.seconds, refreshed, searched, time.perf_counter() - published.ended


async def _shows(client: WireClient, id: str, method: str, params: dict[str, Any]) -> None:
    """Raises NotTakenError when the answer does not have the model: whoever is told that all is new may count on it."""
    answer = await client.call(method, params)
    if id not in [model["id"] for model in answer["models"]]:
        raise NotTakenError(f"{method} does not show {id} right after the refresh")


def waits() -> list[str]:
    """How long a host's next question is away, for each of its intervals."""
    lines = []
    for name, interval in (("while the list is looked at", WATCHED), ("in the background", BACKGROUND)):
        # Of an interval that varies by ±j, a moment falls into a long one more often: E[T²] / 2 E[T].
        mean = interval * (1 + JITTER**2 / 3) / 2
        lines.append(
            f"{name}, a hub is asked every {interval / 60:g} min ±{JITTER:.0%}, so that a publication waits "
            f"{mean / 60:.1f} min on average and at most {interval * (1 + JITTER) / 60:g}"
        )
    return lines
