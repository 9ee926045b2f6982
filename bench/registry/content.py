"""What the other parts are measured with: catalogues, their records, and what it takes to publish them."""

from __future__ import annotations

import random
from statistics import median

import catalogues
from catalogues import Catalogue
from kit import Kit, Publication
from machine import Load
from report import Report, Table, figure

__all__ = ["measure"]

COLUMNS = ["models", "bytes a record", "median", "files a model", "list, kB", "gzip, kB"]
PUBLISHING = ["models", "all of it, ms", "one changed, ms", "the difference, bytes", "over the whole, %"]


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    load, shapes, publishing = Load(), [], []
    for size in kit.sizes:
        site = kit.site(size)
        first = kit.first[size]
        shapes.append([f"{size:,}", *_shape(site.catalogue, first.whole)])
        if size == kit.sizes[-1]:
            publishing.append(
                [f"{size:,}", figure(first.seconds * 1e3), "-", "-", "-"]
            )  # half a minute more for little
            continue
        rng = random.Random(2)
        changed = [site.publish(catalogues.touch(site.catalogue, rng)) for _ in range(kit.rounds)]
        publishing.append([f"{size:,}", *_publishing(first, changed)])
    if kit.data is not None:
        found = catalogues.real(kit.data)
        shapes.append([f"{len(found.models)} real ones", *_shape(found, None)])
    notes = [f"medians of {kit.rounds} changes; busy with other work: {figure(load.cores())} cores"]
    tables = [Table("Catalogues", COLUMNS, shapes), Table("Publishing", PUBLISHING, publishing)]
    return Report(tables, notes=notes)


def _shape(catalogue: Catalogue, packed: int | None) -> list[str]:
    records = list(catalogue.models.values())
    total = sum(map(len, records))
    files = sum(record.count(b'"role":"weights"') for record in records) / len(records)
    sizes = [total / len(records), median(map(len, records)), files, total / 1e3]
    return [*map(figure, sizes), figure(packed / 1e3 if packed else None)]


def _publishing(first: Publication, changed: list[Publication]) -> list[str]:
    delta = median(one.delta for one in changed)
    took = median(one.seconds for one in changed)
    return [*map(figure, (first.seconds * 1e3, took * 1e3, delta, delta / first.whole * 100))]
