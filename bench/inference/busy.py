"""Other programs keep one core busy, or two: what is left of the speed, with threads chosen while running and with
fixed ones, beside llama-server as it comes and with a thread less.

The others are processes that never rest. They are there half a second before the requests.
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack

from kit import Kit, NotTakenError, say
from models import Shape
from report import Reach, Report, Table, ratio
from sides import Burst, Job, Side, WorkerSide
from spread import median, spread
from starting import N_SEQ, llama_server, worker

__all__ = ["measure"]

PROMPT, TOKENS = 64, 48
N_CTX = 256
COUNTS = (1, 4)
HOGS = (0, 1, 2)
CHOSEN = "ours, threads chosen while running"
DEFAULT, LESS = "llama-server, its default", "llama-server, a thread less"


Taken = dict[tuple[str, int, int], list[Burst]]
"""By side, requests at once, and busy cores."""


async def measure(kit: Kit) -> Report:
    """Take all figures, of the models that are larger than tiny."""
    report = Report()
    for shape in kit.larger:
        async with AsyncExitStack() as stack:
            sides: dict[str, Side] = {}
            for count in (None, *range(1, kit.threads + 1)):
                running = worker(kit, kit.model(shape), n_ctx=N_CTX, n_cells=N_CTX * N_SEQ, threads=count)
                name = CHOSEN if count is None else fixed(count)
                sides[name] = WorkerSide(await stack.enter_async_context(running))
            for name, count in ((DEFAULT, kit.threads), (LESS, max(1, kit.threads - 1))):
                try:
                    server = llama_server(kit, shape, N_CTX, threads=count)
                    sides[name] = await stack.enter_async_context(server)
                except NotTakenError as error:
                    report.notes.append(f"{shape.name}, {name}: {error}")
            taken = await rounds(kit, shape, sides, report)
        report.tables.append(table(shape.name, list(sides), taken))
        report.reaches += reaches(kit, shape.name, taken)
    report.notes.append(f"{PROMPT} tokens of prompt and {TOKENS} of answer; {kit.rounds} rounds; {kit.quiet()}")
    return report


async def rounds(kit: Kit, shape: Shape, sides: dict[str, Side], report: Report) -> Taken:
    taken: Taken = {}
    cases = [(hogs, requests) for hogs in HOGS for requests in COUNTS]
    source = random.Random()
    for number in range(kit.rounds):
        for hogs, requests in [(1, 1)] if kit.quick else cases:
            turn = number % len(sides)
            for name in [*sides][turn:] + [*sides][:turn]:
                texts = [shape.vocabulary.message(PROMPT, source) for _ in range(requests)]
                try:
                    burst = await one(kit, sides[name], Job(texts, PROMPT, 8 if kit.quick else TOKENS), hogs)
                except NotTakenError as error:
                    report.notes.append(f"{shape.name}, {hogs} busy, {requests} at once, {name}: {error}")
                    continue
                taken.setdefault((name, requests, hogs), []).append(burst)
                say(f"{shape.name}, {hogs} busy, {requests} requests: {name}: {burst.rate:.1f} tokens/s")
    return taken


async def one(kit: Kit, side: Side, job: Job, hogs: int) -> Burst:
    done: list[Burst] = []

    async def run() -> None:
        done.append(await side.burst(job))

    await kit.clean(run, pids=side.pids, hogs=hogs)
    return done[-1]


def fixed(threads: int) -> str:
    return f"ours, {threads} thread{'s' if threads > 1 else ''}"


def table(model: str, sides: list[str], taken: Taken) -> Table:
    cases = sorted({(requests, hogs) for _, requests, hogs in taken})
    heads = ["", *(f"{requests} at once, {hogs} busy" for requests, hogs in cases)]
    rows = [[side, *(spread([b.rate for b in taken.get((side, *case), [])]) for case in cases)] for side in sides]
    return Table(f"{model}: tokens/s while others keep cores busy, median (least to most)", heads, rows)


def reaches(kit: Kit, model: str, taken: Taken) -> list[Reach]:
    found = []
    for requests in sorted({requests for _, requests, hogs in taken if hogs == 1}):
        rates = {
            name: median([b.rate for b in bursts]) for (name, *case), bursts in taken.items() if case == [requests, 1]
        }
        tried = {count: rates.get(fixed(count)) or 0.0 for count in range(1, kit.threads + 1)}
        best = max(tried, key=lambda count: tried[count])
        at, ours = f"{model}, {requests} at once, 1 busy", rates.get(CHOSEN)
        found.append(Reach(f"{at}: over the best fixed number, {best}", ratio(ours, tried[best]), 0.9, at_least=True))
        found.append(Reach(f"{at}: over llama-server's default", ratio(ours, rates.get(DEFAULT)), 3, at_least=True))
    return found
