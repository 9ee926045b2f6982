"""Guessing tokens that repeat the text: how much faster a text gets that repeats its prompt, how much slower one that
does not, and whether the answers stay the same at temperature 0.

Random weights cannot copy. So the text is made to measure, with the `copier`: a model of 0.1 billion parameters that is
computed in full, but in which each word leads to one other. What it answers is known, and the prompt is chosen to fit:

* it repeats its prompt: the prompt holds the words that will be answered, in their order, as when code is edited;
* nothing repeats: no word of the answer was there before;
* misleading: the prompt holds the answer's words in phrases of three to eight; each goes on differently there.

Beside it a model that was trained: jan-tiny, asked to repeat words and asked questions. Its answers are short, and it
is so small that a step is hardly more than its overhead.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

from kit import Kit, say
from models import COPIER
from report import Reach, Report, Table, figure, ratio
from sides import follow
from spread import median
from sse import Answer
from starting import worker

if TYPE_CHECKING:
    from jan_llamacpp.client import Prompt, WorkerProcess

__all__ = ["measure"]

TOKENS = 256
REPEATS, NOTHING, MISLEADING = "it repeats its prompt", "nothing repeats", "misleading"
ASKED, QUESTIONS = "jan-tiny, asked to repeat", "jan-tiny, asked questions"
COUNTS = (1, 4)
WORDS = ["river", "amber", "stone", "window", "seven", "garden", "silver", "letter", "orange", "bridge", "candle"]


@dataclass
class Case:
    """`groups`: prompts that are asked at once, group after group. `on` and `off`: tokens a second with and without."""

    name: str
    groups: Sequence[Sequence[Prompt]]
    tokens: int
    on: list[float] = field(default_factory=list)
    off: list[float] = field(default_factory=list)
    drafted: int = 0
    accepted: int = 0
    same: int = 0
    asked: int = 0

    @property
    def gain(self) -> float | None:
        return ratio(median(self.on), median(self.off))

    @property
    def guesses(self) -> tuple[int, int]:
        return self.drafted, self.accepted

    @property
    def kept(self) -> str:
        return f"{self.same} of {self.asked}"


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    import jan_llamacpp

    report, cases = Report(), []
    jan_tiny = Path(jan_llamacpp.__file__).parent / "models" / "jan-tiny.gguf"
    for model, chosen in ((kit.model(COPIER), copied(kit)), (jan_tiny, trained())):
        options = {"n_ctx": None if model == jan_tiny else 2048, "n_seq": max(COUNTS), "threads": kit.threads}
        async with worker(kit, model, **options, speculate=True) as running:
            for case in chosen:
                await take(kit, running, case)
        cases += chosen
    rows = [
        [case.name, *map(figure, (median(case.off), median(case.on), case.gain)), *map(figure, case.guesses), case.kept]
        for case in cases
    ]
    heads = ["", "tokens/s without", "with", "ratio", "guessed", "right", "the same answers"]
    report.tables.append(Table("Tokens a second from the first on, with guesses and without", heads, rows))
    gains = {case.name: case.gain for case in cases}
    repeating = [gain for name, gain in gains.items() if name.startswith(REPEATS) and gain]
    others = [gain for name, gain in gains.items() if name.startswith((NOTHING, MISLEADING)) and gain]
    report.reaches = [
        Reach("a text that repeats its prompt, the worst case", min(repeating, default=None), 1.5, at_least=True),
        Reach("a text that does not, the worst case", min(others, default=None), 0.98, at_least=True),
        Reach("answers that are others with guesses", sum(case.asked - case.same for case in cases), 0, ""),
    ]
    report.notes.append(f"medians of {kit.rounds} rounds, each with and without; {kit.quiet()}")
    return report


def copied(kit: Kit) -> list[Case]:
    from jan_llamacpp.client import Prompt

    source = random.Random(0)
    words = list(COPIER.vocabulary.words)
    circle, rest = words[: COPIER.chain], words[COPIER.chain :]
    length = 32 if kit.quick else TOKENS

    def prompt(kind: str) -> Prompt:
        if kind == REPEATS:
            at = source.randrange(len(circle))
            turned = circle[at:] + circle[:at]
            return Prompt(tokens=turned + turned[:8])
        at = source.randrange(len(rest) // 2)
        coming, elsewhere = rest[at : at + length + 1], rest[len(rest) // 2 + TOKENS :]
        if kind == NOTHING:
            return Prompt(tokens=[*source.choices(elsewhere, k=len(circle)), coming[0]])
        tokens, sizes = [], cycle((3, 4, 5, 6, 7, 8))
        left = iter(coming)
        while phrase := list(islice(left, next(sizes))):
            tokens += [*phrase, source.choice(elsewhere)]
        return Prompt(tokens=[*tokens, coming[0]])

    kinds = [(kind, count) for kind in (REPEATS, NOTHING, MISLEADING) for count in COUNTS]
    return [Case(f"{kind}, {count} at once", [[prompt(kind) for _ in range(count)]], length) for kind, count in kinds]


def trained() -> list[Case]:
    from jan_llamacpp.client import Prompt

    source = random.Random(0)
    repeat = [f"Repeat after me: {' '.join(source.sample(WORDS, 6))}" for _ in range(12)]
    questions = ["What is an extension?", "Who are you?", "How do I install a model?", "What is a hook?"]
    questions += ["Count to 20.", "What happens when a plugin crashes?"]

    def ask(text: str) -> list[Prompt]:
        return [Prompt(messages=[{"role": "user", "content": text}])]

    return [
        Case(ASKED, [ask(text) for text in repeat], TOKENS),
        Case(QUESTIONS, [ask(text) for text in questions], TOKENS),
    ]


async def take(kit: Kit, running: WorkerProcess, case: Case) -> None:
    """All rounds of a case; the first warms up."""
    for number in range(kit.rounds + 1):
        texts: dict[bool, list[str]] = {}
        for guess in (True, False) if number % 2 else (False, True):
            answers = await asked(kit, running, case, guess)
            texts[guess] = [answer.text for group in answers for answer in group]
            if number:
                (case.on if guess else case.off).append(rate(answers))
            if number and guess:
                case.drafted += sum(answer.drafted for group in answers for answer in group)
                case.accepted += sum(answer.accepted for group in answers for answer in group)
        if number:
            case.asked += len(texts[True])
            case.same += sum(a == b for a, b in zip(texts[True], texts[False], strict=True))
    say(f"{case.name}: {figure(median(case.off))} tokens/s, with guesses {figure(median(case.on))}")


async def asked(kit: Kit, running: WorkerProcess, case: Case, guess: bool) -> list[list[Answer]]:
    from jan_llamacpp.client import GenerateParams, Sampling

    answers: list[list[Answer]] = []

    async def run() -> None:
        answers.clear()
        for group in case.groups:
            params = [
                GenerateParams(p, Sampling(temperature=0), max_tokens=case.tokens, speculate=guess) for p in group
            ]
            answers.append(await asyncio.gather(*(follow(running, each) for each in params)))

    await kit.clean(run, pids=lambda: [running.pid])
    return answers


def rate(answers: list[list[Answer]]) -> float:
    """Tokens a second after the first of each group came; reading the prompt is not what guessing makes faster."""
    tokens = sum(answer.completion - 1 for group in answers for answer in group)
    seconds = sum(max(a.ended for a in group) - min(a.arrivals[0] for a in group) for group in answers)
    return tokens / seconds
