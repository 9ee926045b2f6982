"""A conversation goes on: the time to the first token of a second turn after a history of 2,000 tokens, and of a turn
after the process was started anew, beside the first turn's, which reads all of it.

Each round is a conversation of its own. llama-server keeps what it has read in its slot, too.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import Kit, NotTakenError, say
from models import Shape
from report import Reach, Report, Table, figure, ratio
from sides import follow
from spread import median, spread
from sse import Answer, ask
from starting import SERVER, llama_server, worker

__all__ = ["measure"]

HISTORY, QUESTION, TOKENS = 2000, 40, 48
N_CTX = 4096
N_SEQ = 4


@dataclass
class Talk:
    """A conversation as OpenAI's messages; `thread` names it."""

    shape: Shape
    thread: str
    messages: list[dict[str, str]]

    @classmethod
    def begin(cls, shape: Shape, source: random.Random) -> Talk:
        text = shape.vocabulary.message(HISTORY, source)
        return cls(shape, f"bench-{source.getrandbits(64):x}", [{"role": "user", "content": text}])

    def go_on(self, answer: Answer, source: random.Random) -> None:
        """Take the answer in, and ask again."""
        question = self.shape.vocabulary.message(QUESTION, source)
        self.messages += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": question}]


async def measure(kit: Kit) -> Report:
    """Take all figures, of the models that are larger than tiny."""
    report = Report()
    rows = []
    for shape in kit.larger:
        taken: dict[str, list[float]] = {}
        cached: list[int] = []
        source = random.Random()
        for number in range(kit.rounds):
            say(f"{shape.name}: conversation {number + 1} of {kit.rounds}")
            await ours(kit, shape, source, taken, cached)
            try:
                await theirs(kit, shape, source, taken)
            except NotTakenError as error:
                report.notes.append(f"{shape.name}, {SERVER}: {error}")
        for name, values in taken.items():
            share = ratio(
                median(values), median(taken[FIRST if name in (FIRST, SECOND, RESTART, BARE) else SERVER_FIRST])
            )
            rows.append([f"{shape.name}: {name}", spread([value * 1e3 for value in values]), figure(share)])
        first = median(taken.get(FIRST, []))
        report.reaches.append(Reach(f"{shape.name}: {SECOND}", percent(taken, SECOND, first), 5, "%"))
        report.reaches.append(Reach(f"{shape.name}: {RESTART}", percent(taken, RESTART, first), 15, "%"))
        report.notes.append(f"{shape.name}: prompt tokens that were there already after the restart: {cached}")
    report.tables.append(Table("The first token of a turn", ["", "ms, median (least to most)", "over the first"], rows))
    report.notes.append(f"{HISTORY} tokens of history, {QUESTION} of question, {TOKENS} of answer; {kit.quiet()}")
    return report


FIRST, SECOND = "ours, first turn", "ours, second turn"
BARE, RESTART = "ours, third turn after a restart, nothing kept", "ours, third turn after a restart, state kept"
SERVER_FIRST, SERVER_SECOND = f"{SERVER}, first turn", f"{SERVER}, second turn"


async def ours(kit: Kit, shape: Shape, source: random.Random, taken: dict[str, list[float]], cached: list[int]) -> None:
    talk = Talk.begin(shape, source)
    options: dict[str, Any] = {"n_ctx": N_CTX, "n_cells": N_CTX * N_SEQ, "n_seq": N_SEQ, "threads": kit.threads}
    with tempfile.TemporaryDirectory(dir=kit.cache) as folder:
        kept = {**options, "state_dir": folder}
        async with worker(kit, kit.model(shape), **kept) as running:
            await warm(running)
            for name in (FIRST, SECOND):
                answer = await turn(kit, running, talk)
                taken.setdefault(name, []).append(answer.first)
                talk.go_on(answer, source)
        say(f"{shape.name}: {size_of(Path(folder)) / 1e6:,.1f} MB kept")
        for name, chosen in ((RESTART, kept), (BARE, options)):
            async with worker(kit, kit.model(shape), **chosen) as running:
                await warm(running)
                answer = await turn(kit, running, talk)
                taken.setdefault(name, []).append(answer.first)
                if name == RESTART:
                    cached.append(answer.cached)


async def theirs(kit: Kit, shape: Shape, source: random.Random, taken: dict[str, list[float]]) -> None:
    talk = Talk.begin(shape, source)
    async with llama_server(kit, shape, N_CTX, n_seq=N_SEQ) as side:
        for name in (SERVER_FIRST, SERVER_SECOND):
            body = {"messages": talk.messages, "max_tokens": TOKENS, "temperature": 0, "stream": True}
            answer = await clean(kit, lambda body=body: ask(side.port, body), side.pids)  # type: ignore[misc]
            taken.setdefault(name, []).append(answer.first)
            talk.go_on(answer, source)


async def warm(running: Any) -> None:
    """Pages that are read, threads that are started: what only the first request of a process meets."""
    from jan_llamacpp.client import GenerateParams, Prompt, Sampling

    await follow(running, GenerateParams(Prompt(text="abc" * 100), Sampling(temperature=0), max_tokens=4))


async def turn(kit: Kit, running: Any, talk: Talk) -> Answer:
    from jan_llamacpp.client import GenerateParams, Prompt, Sampling

    prompt, greedy = Prompt(messages=list(talk.messages)), Sampling(temperature=0)
    params = GenerateParams(prompt, greedy, max_tokens=TOKENS, thread=talk.thread, speculate=False)
    return await clean(kit, lambda: follow(running, params), lambda: [running.pid])


async def clean(kit: Kit, ask_it: Callable[[], Any], pids: Callable[[], list[int]]) -> Answer:
    """Asked once: a second time it would be a second turn."""
    found: list[Answer] = []

    async def run() -> None:
        found.append(await ask_it())

    await kit.clean(run, pids=pids, attempts=1)
    return found[0]


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def percent(taken: dict[str, list[float]], name: str, first: float | None) -> float | None:
    share = ratio(median(taken.get(name, [])), first)
    return None if share is None else share * 100
