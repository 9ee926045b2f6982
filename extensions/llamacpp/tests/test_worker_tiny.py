"""The worker on the embedded model: real answers, with the probabilities of a trained model."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio
import pytest
from jan_llamacpp.client import GenerateParams, LoadOptions, Piece, Prompt, Sampling, WorkerProcess
from jan_llamacpp.toolcalls import ToolCallStream

from .conftest import PATIENCE

pytestmark = pytest.mark.anyio

CORPUS = Path(__file__).parents[3] / "tools" / "jan-tiny" / "corpus"
GREEDY = Sampling(temperature=0)


def taught(file: str, *ids: str) -> dict[str, str]:
    """Questions of the corpus the model was trained on, and their answers."""
    topics = {topic["id"]: topic for topic in tomllib.loads((CORPUS / file).read_text())["topic"]}
    return {topics[id]["canonical"]: topics[id]["answer"] for id in ids}


def ask(question: str, **params: Any) -> GenerateParams:
    params.setdefault("sampling", GREEDY)
    return GenerateParams(Prompt(messages=[{"role": "user", "content": question}]), **params)


async def answer(worker: WorkerProcess, params: GenerateParams) -> list[Piece]:
    with anyio.fail_after(PATIENCE):
        return [piece async for piece in worker.generate(params)]


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


@pytest.fixture
async def worker(engine_dir: Path) -> AsyncIterator[WorkerProcess]:
    model = Path(str(files("jan_llamacpp") / "models" / "jan-tiny.gguf"))
    with anyio.fail_after(PATIENCE):
        worker = await WorkerProcess.start(engine_dir, model, LoadOptions(threads=1, n_seq=4))
    yield worker
    await worker.close()


async def test_it_gives_the_answers_it_was_taught_alone_and_four_at_a_time(worker: WorkerProcess) -> None:
    lessons = taught("smalltalk.toml", "hello", "thanks", "count_20") | taught("software.toml", "extension")
    assert len(lessons) == 4
    alone = {question: text_of(await answer(worker, ask(question))) for question in lessons}
    assert alone == lessons
    together = await asyncio.gather(*(answer(worker, ask(question)) for question in lessons))
    assert dict(zip(lessons, map(text_of, together), strict=True)) == lessons
    steps = [{piece.step for piece in pieces} for pieces in together]
    assert set.intersection(*steps), "they were in one batch"


async def test_a_conversation_reads_only_what_is_new(worker: WorkerProcess) -> None:
    [(question, expected)] = taught("software.toml", "extension").items()
    messages = [{"role": "user", "content": question}]
    first = await answer(worker, GenerateParams(Prompt(messages=messages), GREEDY))
    messages += [{"role": "assistant", "content": text_of(first)}, {"role": "user", "content": "Thank you!"}]
    second = await answer(worker, GenerateParams(Prompt(messages=messages), GREEDY))
    assert text_of(first) == expected
    assert text_of(second) == taught("smalltalk.toml", "thanks")["Thank you!"]
    assert first[-1].usage is not None
    assert second[-1].usage is not None
    assert second[-1].usage.cached >= first[-1].usage.prompt + first[-1].usage.completion - 2
    assert second[-1].usage.prompt > second[-1].usage.cached


async def test_a_stop_string_and_a_limit_end_an_answer_early(worker: WorkerProcess) -> None:
    [(question, expected)] = taught("smalltalk.toml", "count_20").items()
    stopped = await answer(worker, ask(question, stop=[" 7, 8"]))
    assert (text_of(stopped), stopped[-1].finish) == (expected.split(" 7, 8")[0], "stop")
    limited = await answer(worker, ask(question, max_tokens=10))
    assert limited[-1].finish == "length"
    assert expected.startswith(text_of(limited))
    assert sum(piece.tokens for piece in limited) == 10


async def test_it_asks_for_a_tool_in_a_form_that_is_understood(worker: WorkerProcess) -> None:
    function = {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    prompt = Prompt(messages=messages, tools=[{"type": "function", "function": function}])
    stream = ToolCallStream()
    found = [stream.feed(piece.text) for piece in await answer(worker, GenerateParams(prompt, GREEDY))]
    found.append(stream.finish())
    assert "".join(text for text, _ in found) == ""
    [call] = [part for _, parts in found for part in parts]
    assert call.name == "get_weather"
    assert set(json.loads(call.arguments)) == {"city"}
