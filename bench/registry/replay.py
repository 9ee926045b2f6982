"""What a half year of versions costs who follows them: each is published, fetched, and held against what was published.

Versions are 24 hours apart on a clock of their own, which publisher and client are given: metadata expire and old
differences are thrown away as they would. Every body is counted as it came from nginx.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

import catalogues
from catalogues import Catalogue
from kit import Kit, NotTakenError, say
from machine import Load
from quantiles import percentile
from report import Reach, Report, Table, figure
from ways import Ours

from extensions.registry.tests.hubmaker import Hub

__all__ = ["measure"]

VERSIONS = 180
DAY = 86_400
BEGAN = 1_790_000_000.0
COLUMNS = ["", "syncs", "median, bytes", "p90", "most", "of it differences", "whole list, bytes", "times less", "ms"]
COLUMNS += ["deltas", "wholes"]


@dataclass
class Followed:
    """Of each sync but the first: bytes, seconds, and how its collections came. `differences`: bytes of those, the rest
    are signed metadata; `whole`: bytes of the whole list."""

    received: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    how: list[str] = field(default_factory=list)
    differences: list[int] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)

    def row(self, name: str) -> list[str]:
        middle, whole = median(self.received), median(self.whole)
        most = [middle, percentile(self.received, 0.9), max(self.received), median(self.differences), whole]
        counts = [str(self.how.count(how)) for how in ("delta", "full")]
        return [name, str(len(self.received)), *map(figure, [*most, whole / middle, self._middle_ms()]), *counts]

    def _middle_ms(self) -> float:
        return median(self.seconds) * 1e3


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    load, versions = Load(), 6 if kit.quick else VERSIONS
    begun = catalogues.real(kit.data) if kit.data is not None else catalogues.made_up(kit.sizes[0])
    what = f"{len(begun.models)} {'real' if kit.data is not None else 'made up'} models"
    rows, reaches = [], []
    for name, numbers, count in (
        ("list alone", False, versions),
        ("and download counts each day", True, versions // 3),
    ):
        say(f"replay: {count} versions, {name}")
        found = await _followed(kit, _versions(begun, count, numbers))
        rows.append(found.row(f"{what}, {name}"))
        if not numbers:
            reaches += [
                Reach("a sync, median", median(found.received), 4000, "bytes"),
                Reach("a whole list over that", median(found.whole) / median(found.received), 30, at_least=True),
            ]
    notes = [
        "the client's records were exactly the published ones after each version",
        f"busy with other work: {figure(load.cores())} cores",
    ]
    return Report([Table("Following a list", COLUMNS, rows)], reaches, notes)


def _versions(begun: Catalogue, count: int, numbers: bool) -> list[Catalogue]:
    """Most days bring one to four edits, one in ten a dozen or two."""
    rng, found = random.Random(11), [begun]
    for _ in range(count):
        edits = rng.randrange(8, 25) if rng.random() < 0.1 else rng.randrange(1, 5)
        found.append(catalogues.edit(found[-1], rng, count=edits, numbers=numbers))
    return found


async def _followed(kit: Kit, versions: Sequence[Catalogue]) -> Followed:
    """Publish and fetch one after the other. Raises NotTakenError when the client has anything else than that."""
    hub = Hub(kit.fresh("replay"), now=BEGAN)
    client = Ours(kit.serve(hub.tree).url, hub.root, kit.fresh("client"))
    found = Followed()
    try:
        for number, version in enumerate(versions):
            now = BEGAN + number * DAY
            hub.collections = version.records()
            published = hub.publish(now=now)
            before, began = client.received, time.perf_counter()
            await client.poll(now)
            if number:
                found.seconds.append(time.perf_counter() - began)
                found.received.append(client.received - before)
                found.how += client.how
                found.differences.append(sum(one.delta_bytes for one in published.collections))
                found.whole += [one.full_bytes for one in published.collections if one.name == "models"]
            for name, records in hub.collections.items():
                if client.records(name) != sorted(records, key=_id):
                    raise NotTakenError(f"after version {number} {name} is not what was published")
    finally:
        await client.close()
    return found


def _id(record: bytes) -> str:
    found: str = json.loads(record)["id"]
    return found
