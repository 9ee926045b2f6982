"""Texts turned into vectors, a second: the worker and llama-server's endpoint, asked for many at once in one request.

A model that generates is used, with the mean of its last layer, by both. Vectors are compared, too.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kit import Kit, NotTakenError, child_pids, say, spawned
from models import Shape
from report import Report, Table, figure, ratio
from spread import median, spread
from starting import START_SECONDS, free_port, server_command, worker

__all__ = ["measure"]

SIZES = {"short": 16, "long": 128}
"""Tokens of a text."""
TEXTS = 64
N_CTX = 512
OURS, SERVER = "ours, worker", "llama-server"


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    report, rows = Report(), []
    for shape in kit.shapes:
        async with our_side(kit, shape) as ours, their_side(kit, shape) as theirs:
            sides = {OURS: ours, SERVER: theirs}
            for size, tokens in SIZES.items():
                rates, worst = await compared(kit, shape, tokens, sides)
                for name, found in sorted(rates.items(), key=lambda each: each[0] == SERVER):
                    over = figure(ratio(median(found), median(rates[SERVER])))
                    rows.append([f"{shape.name}, {size}: {name}", spread(found), over])
                report.notes.append(f"{shape.name}, {size}: cosine of both sides' vectors at least {worst:.5f}")
    report.tables.append(Table(f"{TEXTS} texts in one request", ["", "texts/s", f"over {SERVER}'s"], rows))
    lengths = ", ".join(f"{size}: {tokens} tokens" for size, tokens in SIZES.items())
    report.notes.append(f"{lengths}; medians of {kit.rounds} rounds; {kit.quiet()}")
    return report


@dataclass(frozen=True)
class VectorSide:
    """`embed` takes texts and gives their vectors; `pid` is the process that works for it."""

    embed: Callable[[list[str]], Awaitable[list[list[float]]]]
    pid: int


@asynccontextmanager
async def our_side(kit: Kit, shape: Shape) -> AsyncIterator[VectorSide]:
    from jan_llamacpp.client import Prompt
    from jan_llamacpp.embedding import vectors

    async with worker(
        kit, kit.model(shape), n_ctx=N_CTX, threads=kit.threads, embeddings=True, pooling="mean"
    ) as running:

        async def embed(texts: list[str]) -> list[list[float]]:
            return [list(vector.values) async for vector in vectors(running, [Prompt(text=text) for text in texts])]

        yield VectorSide(embed, running.pid)


@asynccontextmanager
async def their_side(kit: Kit, shape: Shape) -> AsyncIterator[VectorSide]:
    port = free_port()
    command = server_command(kit, shape, N_CTX, port, "--embedding", "--pooling", "mean")
    async with spawned(command, kit.cache / "logs" / "llama-server.log") as process:

        async def embed(texts: list[str]) -> list[list[float]]:
            return await asyncio.to_thread(post, port, texts)

        async with asyncio.timeout(START_SECONDS):
            while process.returncode is None:
                try:
                    await embed(["abc"])
                    break
                except OSError:
                    await asyncio.sleep(0.1)
        if process.returncode is not None:
            raise NotTakenError(f"{SERVER} ended with {process.returncode}")
        yield VectorSide(embed, process.pid)


def post(port: int, texts: list[str]) -> list[list[float]]:
    """Ask OpenAI's endpoint. Raises OSError."""
    body, kind = json.dumps({"input": texts}).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/embeddings", body, kind)
    with urllib.request.urlopen(request, timeout=600) as answer:
        return [item["embedding"] for item in json.load(answer)["data"]]


async def compared(
    kit: Kit, shape: Shape, tokens: int, sides: dict[str, VectorSide]
) -> tuple[dict[str, list[float]], float]:
    """Texts a second of each side, and the least cosine between their vectors."""
    source, rates, worst = random.Random(), dict[str, list[float]](), 1.0
    for number in range(kit.rounds + 1):  # the first warms up
        texts = [shape.vocabulary.text(source.choices(shape.vocabulary.words, k=tokens)) for _ in range(TEXTS)]
        vectors: dict[str, list[list[float]]] = {}
        for name in list(sides)[:: -1 if number % 2 else 1]:
            spent, vectors[name] = await timed(kit, sides[name], texts)
            if number:
                rates.setdefault(name, []).append(TEXTS / spent)
        worst = min(worst, *(cosine(a, b) for a, b in zip(vectors[OURS], vectors[SERVER], strict=True)))
    say(f"{shape.name}, {tokens} tokens: " + ", ".join(f"{name} {spread(found)}" for name, found in rates.items()))
    return rates, worst


async def timed(kit: Kit, side: VectorSide, texts: list[str]) -> tuple[float, list[list[float]]]:
    found: list[tuple[float, list[list[float]]]] = []

    async def run() -> None:
        began = time.perf_counter()
        vectors = await side.embed(texts)
        found.append((time.perf_counter() - began, vectors))

    await kit.clean(run, pids=lambda: child_pids(side.pid))
    return found[-1]


def cosine(a: list[float], b: list[float]) -> float:
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths
