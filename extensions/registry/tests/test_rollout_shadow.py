"""The shadow in real time: an answer that hangs, a comparison that breaks, a start that is refused."""

from __future__ import annotations

import anyio
import pytest
from jan_registry.rollout.observations import Pair
from jan_registry.rollout.shadow import Answer, ShadowRunner

from jan_core.types import ModelRecord

from .rollout_kit import answer, record

pytestmark = pytest.mark.anyio


class Seen:
    def __init__(self) -> None:
        self.pairs: list[Pair] = []

    async def record(self, pair: Pair) -> bool:
        self.pairs.append(pair)
        return False


async def good(question: str) -> Answer:
    return answer([record("a")])


async def test_an_answer_that_hangs_is_an_error_after_its_time(tmp_path: object) -> None:
    seen = Seen()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:

            async def hanging(question: str) -> Answer:
                await anyio.sleep_forever()
                raise AssertionError

            shadow = ShadowRunner(good, hanging, tasks.start_soon, seen.record, budget=0.02)
            shadow.served("builtin", 5, "q", await good("q"))
    assert [(pair.dynamic_error, pair.ok) for pair in seen.pairs] == [("no answer within 0.02 s", 0)]


async def test_what_is_raised_while_comparing_is_data_too() -> None:
    def broken(id: str) -> ModelRecord | None:
        raise OSError("database disk image is malformed")

    async def dynamic(question: str) -> Answer:
        return Answer([], broken)

    seen = Seen()
    async with anyio.create_task_group() as tasks:
        ShadowRunner(good, dynamic, tasks.start_soon, seen.record).served("builtin", 5, "q", await good("q"))
    assert seen.pairs[0].dynamic_error == "OSError: database disk image is malformed"
    assert (seen.pairs[0].coverage, seen.pairs[0].conflicts) == (-1, -1)


async def test_a_model_that_the_dynamic_list_does_not_show_is_found_by_its_id() -> None:
    async def dynamic(question: str) -> Answer:
        return Answer([], {"a": record("a")}.get, seq=3)

    seen = Seen()
    async with anyio.create_task_group() as tasks:
        ShadowRunner(good, dynamic, tasks.start_soon, seen.record).look("q")
    assert (seen.pairs[0].coverage, seen.pairs[0].overlap, seen.pairs[0].seq) == (10_000, 0, 3)


async def test_a_list_that_shows_a_model_twice_is_invalid() -> None:
    async def dynamic(question: str) -> Answer:
        return answer([record("a"), record("a")])

    seen = Seen()
    async with anyio.create_task_group() as tasks:
        ShadowRunner(good, dynamic, tasks.start_soon, seen.record).look("q")
    assert (seen.pairs[0].invalid, seen.pairs[0].ok) == (1, 0)


async def test_a_start_that_is_refused_leaves_it_ready_for_the_next() -> None:
    def refused(*args: object, **named: object) -> None:
        raise RuntimeError("retired")

    shadow = ShadowRunner(good, good, refused, Seen().record)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="retired"):
            shadow.served("builtin", 5, "q", None, "OSError")
