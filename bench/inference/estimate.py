"""The memory that `models.estimate` foretells beside what the worker then holds, over models, contexts and options.

Every cell of the cache is filled before the worker is looked at: memory that was promised and never touched is not
held.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from kit import Kit, NotTakenError, say
from memory import resident
from models import Shape
from report import Reach, Report, Table, figure
from starting import host, house

if TYPE_CHECKING:
    from jan_core.rpc.client import WireClient

__all__ = ["measure"]

PARALLEL = 4
CASES: dict[str, dict[str, Any]] = {
    "1,024 tokens": {"n_ctx": 1024},
    "4,096 tokens": {"n_ctx": 4096},
    "4,096 tokens, cache of 8 bit": {"n_ctx": 4096, "kv_type": "q8_0"},
    "4,096 tokens, not repacked": {"n_ctx": 4096, "repack": False},
    "16,384 tokens": {"n_ctx": 16_384},
}
SPARE = 40
"""Tokens of a request's share of the cache that stay empty: its answer, and what does not fit a message."""


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    from jan_core.errors import RpcError

    report, rows, worst = Report(), [], 0.0
    async with host(kit) as (client, _):
        for shape in kit.shapes:
            await house(client, kit, shape, 1024)
            for name, options in list(CASES.items())[: 1 if kit.quick else None]:
                try:
                    foretold, held = await compared(client, shape, {"parallel": PARALLEL, **options})
                except RpcError as error:
                    raise NotTakenError(f"{shape.name}, {name}: {error}") from error
                off = (foretold - held) / held * 100
                worst = max(worst, abs(off))
                say(f"{shape.name}, {name}: {off:+.1f} %")
                rows.append([f"{shape.name}, {name}", figure(foretold / 2**20), figure(held / 2**20), f"{off:+.1f}"])
    report.tables.append(Table("Memory of a worker", ["", "foretold, MiB", "held, MiB", "off by, %"], rows))
    report.reaches.append(Reach("the estimate that is off most", worst, 10, "%"))
    return report


async def compared(client: WireClient, shape: Shape, options: dict[str, Any]) -> tuple[int, int]:
    """Bytes foretold and bytes held. Raises RpcError."""
    estimate = await client.call("models.estimate", {"id": shape.name, **options})
    loaded = await client.call("models.load", {"id": shape.name, **options})
    share = min(estimate["n_ctx"], estimate["cells"] // PARALLEL)
    source = random.Random()

    def request() -> dict[str, Any]:
        text = shape.vocabulary.message(share - SPARE, source)
        return {"model": shape.name, "messages": [{"role": "user", "content": text}], "max_tokens": 8}

    await asyncio.gather(*(client.call("chat.complete", request()) for _ in range(PARALLEL)))
    held = resident(loaded["info"]["pid"])
    await client.call("models.unload", {"id": shape.name})
    return sum(place["needed"] for place in estimate["memory"] if place["device"] == "cpu"), held
