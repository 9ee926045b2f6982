"""Tokens a second, time to the first token and time between pieces of text, with 1 to 16 requests at once.

All sides run at the same time and are asked one after the other, in an order that rotates; every message is new, so
that nothing can be reused. Nobody speculates: random weights at temperature 0 soon go round in circles, which would
flatter it.
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from kit import Kit, NotTakenError, Ran, say
from models import Shape
from report import Reach, Report, Table, figure, ratio
from sides import Burst, Job, Side
from spread import median, percentile, spread
from starting import BATCHED, BATCHED_ONE, LIMITS, LLAMA_CPP, ONE, SERVER, WORKER, start

__all__ = ["measure"]

PROMPT, TOKENS = 128, 128
WARM = 8
N_CTX = 512
SLOW_ROUNDS = 2
"""Rounds that llama_cpp.server takes part in: it answers one request after the other, and is soon known."""


@dataclass
class Taken:
    """All bursts of one model at one temperature, by side and number of requests."""

    shape: Shape
    temperature: float
    bursts: dict[tuple[str, int], list[Burst]] = field(default_factory=dict)
    thrift: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    """Tokens for each second of computing, of server and client together."""

    def rate(self, side: str, count: int) -> float | None:
        """Tokens a second of all requests together, the median of the rounds."""
        return median([burst.rate for burst in self.bursts.get((side, count), [])])

    def first(self, side: str, count: int, share: float = 0.5) -> float | None:
        """Seconds to the first token, of all requests of all rounds."""
        return percentile([first for burst in self.bursts.get((side, count), []) for first in burst.firsts], share)

    def gap(self, side: str, count: int, share: float = 0.5) -> float | None:
        return percentile([gap for burst in self.bursts.get((side, count), []) for gap in burst.gaps], share)

    def better(self, sides: tuple[str, ...], count: int) -> float | None:
        """The highest rate of these sides."""
        return max((rate for side in sides if (rate := self.rate(side, count))), default=None)


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    report = Report()
    for shape in kit.shapes:
        async with AsyncExitStack() as stack:
            sides: dict[str, Side] = {}
            for name in kit.sides:
                say(f"{shape.name}: starting {name}")
                try:
                    sides[name] = await stack.enter_async_context(start(name, kit, shape, N_CTX))
                except NotTakenError as error:
                    report.notes.append(f"{shape.name}, {name}: {error}")
            for temperature in kit.temperatures:
                taken = Taken(shape, temperature)
                await rounds(kit, taken, sides, report)
                report.tables += tables(kit, taken, list(sides))
                report.reaches += reaches(kit, taken)
    report.notes.append(f"{PROMPT} tokens of prompt and {tokens(kit)} of answer; {kit.rounds} rounds; {kit.quiet()}")
    return report


async def rounds(kit: Kit, taken: Taken, sides: dict[str, Side], report: Report) -> None:
    source, broken = random.Random(), set()
    for number in range(kit.rounds + 1):  # the first warms up
        for count in kit.concurrency if number else {1, max(kit.concurrency)}:
            turn = number % len(sides) if sides else 0
            for name in [*sides][turn:] + [*sides][:turn]:
                if name in broken or (number > SLOW_ROUNDS and name == LLAMA_CPP):
                    continue
                if taken.temperature and name in LIMITS:
                    continue  # it does not sample
                try:
                    burst, ran = await one(kit, taken, sides[name], count, tokens(kit) if number else WARM, source)
                except NotTakenError as error:
                    broken.add(name)
                    report.notes.append(f"{taken.shape.name}, {name}, {count} requests: {error}")
                    continue
                if number:
                    taken.bursts.setdefault((name, count), []).append(burst)
                    first = f", first {median(burst.firsts) or 0:.3f} s" if burst.answers else ""
                    taken.thrift.setdefault((name, count), []).append(burst.tokens / ran.cpu if ran.cpu else 0.0)
                    mark = "" if ran.clean else " (disturbed)"
                    said = f"{burst.rate:.1f} tokens/s{first}{mark}"
                    say(f"{taken.shape.name} at {taken.temperature:g}, round {number}, {count}: {name}: {said}")


async def one(kit: Kit, taken: Taken, side: Side, count: int, length: int, source: random.Random) -> tuple[Burst, Ran]:
    """One burst, and how it ran. Raises NotTakenError."""
    done: list[Burst] = []

    async def run() -> None:
        texts = [taken.shape.vocabulary.message(PROMPT, source) for _ in range(count)]
        done.append(await side.burst(Job(texts, PROMPT, length, taken.temperature)))

    ran = await kit.clean(run, pids=side.pids)
    return done[-1], ran


def tokens(kit: Kit) -> int:
    return 16 if kit.quick else TOKENS


def tables(kit: Kit, taken: Taken, sides: list[str]) -> list[Table]:
    what = f"{taken.shape.name}, temperature {taken.temperature:g}"
    counts = kit.concurrency
    heads = ["", *(f"{count} at once" for count in counts)]
    shown = [side for side in sides if any((side, count) in taken.bursts for count in counts)]
    answering = [side for side in shown if side not in LIMITS]
    rates = [
        [side, *(spread([burst.rate for burst in taken.bursts.get((side, count), [])]) for count in counts)]
        for side in shown
    ]
    found = [Table(f"{what}: tokens/s, median (least to most)", heads, rates)]
    if WORKER in shown:
        compared = [
            [side, *(figure(ratio(taken.rate(WORKER, count), taken.rate(side, count))) for count in counts)]
            for side in shown
            if side != WORKER
        ]
        found.append(Table(f"{what}: tokens/s, how many times better `{WORKER}` is", heads, compared))
    firsts = [[side, *(pair(taken.first, side, count) for count in counts)] for side in answering]
    gaps = [[side, *(pair(taken.gap, side, count) for count in counts)] for side in answering]
    thrift = [[side, *(figure(median(taken.thrift.get((side, count), []))) for count in counts)] for side in answering]
    found.append(Table(f"{what}: ms to the first token, p50 / p95", heads, firsts))
    found.append(Table(f"{what}: ms between pieces of text, p50 / p95", heads, gaps))
    found.append(Table(f"{what}: tokens for a second of computing, client included", heads, thrift))
    return found


def pair(of: object, side: str, count: int) -> str:
    values = [of(side, count, share) for share in (0.5, 0.95)]  # type: ignore[operator]
    return " / ".join(figure(value * 1e3 if value is not None else None) for value in values)


def reaches(kit: Kit, taken: Taken) -> list[Reach]:
    """The aims are judged from 0.1 billion parameters on; the tiny model's figures are shown for what they are."""
    if taken.shape not in kit.larger:
        return []
    name = f"{taken.shape.name} at {taken.temperature:g}"
    found = []
    for count in kit.concurrency:
        ours, at = taken.rate(WORKER, count), f"{name}, {count} at once"
        server = taken.better((SERVER, ONE), count)
        found.append(Reach(f"{at}: tokens/s over the better llama-server", ratio(ours, server), 1.05, at_least=True))
        if not taken.temperature:
            limit = taken.better((BATCHED, BATCHED_ONE), count)
            found.append(Reach(f"{at}: over the better llama-batched-bench", ratio(ours, limit), 0.95, at_least=True))
        if count >= 8:
            slow = taken.rate(LLAMA_CPP, count)
            found.append(Reach(f"{at}: over llama_cpp.server", ratio(ours, slow), 2, at_least=True))
        if count in (1, 8, 16):
            theirs = min((first for side in (SERVER, ONE) if (first := taken.first(side, count))), default=None)
            bound = 1.0 if count == 1 else 0.7
            found.append(Reach(f"{at}: TTFT p50 over llama-server's", ratio(taken.first(WORKER, count), theirs), bound))
    return found
