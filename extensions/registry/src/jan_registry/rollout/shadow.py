"""The other list's answer to a question that was answered already: measured, compared, and thrown away.

It runs off the request path, one at a time and now and then; whatever goes wrong in it is data. It does not know where
lists come from, what the phase is, or what becomes of what it saw. When it sees a defect it looks again at once, with
or without further questions, so that a decision does not wait for traffic.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from jan_core.types import ModelRecord

from .arm import Arm
from .compare import Comparison, compare
from .observations import Pair

__all__ = ["Answer", "ShadowRunner", "Start"]

Q = TypeVar("Q")


Start = Callable[..., object]
"""Starts a background task that ends with the extension (`ctx.tasks.start_soon`)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a list answers. `ranked`: what is shown, best first; `get` finds any model of the list by its id, and may
    read a disk. `models`: all of them, of the built-in list; `seq` and `age` (seconds since the hub confirmed it, -1
    when nobody knows) of the dynamic one. `micros`: how long it took, where that is less than from call to return
    because something was done first that is not part of answering; -1: measure it."""

    ranked: Sequence[ModelRecord]
    get: Callable[[str], ModelRecord | None]
    models: Sequence[ModelRecord] = ()
    seq: int = 0
    age: int = -1
    micros: int = -1


Ask = Callable[[Q], Awaitable[Answer]]
_Answered = tuple[Answer | None, int, str]
"""An answer, the microseconds it took, and what went wrong: either the first or the last."""


class ShadowRunner(Generic[Q]):
    """`builtin` and `dynamic` answer a question; `record` takes a pair and says whether to look again.

    At most one pair in `every` seconds; after a defect one in `soon` seconds until it is gone or nobody wants to know.
    It begins `after` seconds, when whoever was served has their answer: on one event loop, what begins at once is in
    the way of the very answer that it follows. An answer may take `budget` seconds, and `hurried` in the pairs that
    follow a defect. An arm that blocks in a worker thread is waited for beyond that, and counts as late.
    """

    def __init__(
        self,
        builtin: Ask[Q],
        dynamic: Ask[Q],
        start: Start,
        record: Callable[[Pair], Awaitable[bool]],
        *,
        suspicious: Callable[[Pair], bool] = lambda pair: pair.ok == 0,
        every: float = 30.0,
        soon: float = 2.0,
        after: float = 0.1,
        budget: float = 3.0,
        hurried: float = 2.5,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] | None = None,
    ) -> None:
        self._asks: dict[Arm, Ask[Q]] = {"builtin": builtin, "dynamic": dynamic}
        self._start, self._record, self._suspicious = start, record, suspicious
        self._every, self._soon, self._after = every, soon, after
        self._budget, self._hurried = budget, hurried
        self._clock, self._sleep = clock, sleep
        self._running = False
        self._due = 0.0
        self._seq: int | None = None

    def served(self, arm: Arm, micros: int, question: Q, answer: Answer | None, error: str = "") -> None:
        """`arm` answered `question` in `micros`, or failed with `error`. Costs a comparison of two numbers, most of the
        time."""
        if not self._running and self._clock() >= self._due:
            self._begin(question, arm, (answer, micros, error))

    def look(self, question: Q) -> None:
        """Compare now, with nothing served: the lists may have changed. Not while a pair is under way."""
        if not self._running:
            self._begin(question, None, None)

    def _begin(self, question: Q, arm: Arm | None, answered: _Answered | None) -> None:
        self._running = True
        try:
            self._start(self._run, question, arm, answered, name="registry shadow")
        except BaseException:
            self._running = False
            raise

    async def _run(self, question: Q, arm: Arm | None, answered: _Answered | None) -> None:
        import anyio

        sleep = self._sleep or anyio.sleep
        try:
            await sleep(self._after)
            began, budget = self._clock(), self._budget
            while True:
                pair = await self._pair(question, arm, answered, budget)
                wanted = await self._record(pair)
                if not (wanted and self._suspicious(pair)):
                    return
                await sleep(max(0.0, began + self._soon - self._clock()))
                began, budget, arm, answered = self._clock(), self._hurried, None, None
        finally:
            self._running = False
            self._due = self._clock() + self._every

    async def _pair(self, question: Q, arm: Arm | None, answered: _Answered | None, budget: float) -> Pair:
        import anyio.to_thread

        outcomes: dict[Arm, _Answered] = {}
        for name in self._asks:
            given = name == arm and answered is not None
            outcomes[name] = answered if given and answered else await self._ask(name, question, budget)
        (builtin, builtin_us, builtin_error), (dynamic, dynamic_us, dynamic_error) = (
            outcomes["builtin"],
            outcomes["dynamic"],
        )
        comparison: Comparison | None = None
        if builtin is not None and dynamic is not None:
            try:
                comparison = await anyio.to_thread.run_sync(_compared, builtin, dynamic)
            except Exception as error:
                dynamic_us, dynamic_error = -1, _told(error)
        seq = dynamic.seq if dynamic is not None else 0
        cold = dynamic is not None and seq != self._seq
        self._seq = seq if dynamic is not None else self._seq
        return Pair(
            served=arm or "",
            builtin_us=builtin_us,
            dynamic_us=dynamic_us,
            builtin_error=builtin_error,
            dynamic_error=dynamic_error,
            cold=cold,
            age=dynamic.age if dynamic is not None else -1,
            seq=seq,
            coverage=comparison.coverage if comparison else -1,
            overlap=comparison.overlap if comparison else -1,
            invalid=comparison.invalid if comparison else 0,
            counts=comparison.counts if comparison else {},
            examples=comparison.examples if comparison else [],
        )

    async def _ask(self, arm: Arm, question: Q, budget: float) -> _Answered:
        import anyio

        began = self._clock()
        try:
            with anyio.fail_after(budget):
                answer = await self._asks[arm](question)
        except TimeoutError:
            return None, -1, f"no answer within {budget:g} s"
        except Exception as error:
            return None, -1, _told(error)
        micros = int((self._clock() - began) * 1e6)
        if micros > budget * 1e6:
            return None, -1, f"it took {micros // 1000} ms"
        return answer, answer.micros if answer.micros >= 0 else micros, ""


def _compared(builtin: Answer, dynamic: Answer) -> Comparison:
    ids = dict.fromkeys([*(model.id for model in builtin.models), *(model.id for model in dynamic.ranked)])
    known = {model.id: model for model in dynamic.ranked}
    found = [model for id in ids if (model := known.get(id) or dynamic.get(id)) is not None]
    twice = [model for place, model in enumerate(dynamic.ranked) if known[model.id] is not model]
    return compare(
        builtin.models,
        [*found, *twice],
        shown=[model.id for model in builtin.ranked],
        shown_by_candidate=[model.id for model in dynamic.ranked],
    )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
