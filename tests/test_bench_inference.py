"""The figures of bench/inference are worth what its client notices, and what its models are."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.engines.installed import list_installed

pytestmark = pytest.mark.anyio

BENCH = Path(__file__).parents[1] / "bench"
FOLDERS = [BENCH / "inference", BENCH / "host"]


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """The modules of the bench, importable while these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        before = set(sys.modules)
        for folder in reversed(FOLDERS):
            patch.syspath_prepend(folder)
        import kit
        import models
        import sides
        import sse
        import starting
        import vocabulary

        yield SimpleNamespace(kit=kit, models=models, sides=sides, sse=sse, starting=starting, vocabulary=vocabulary)
        for name in set(sys.modules) - before:
            if Path(getattr(sys.modules[name], "__file__", None) or ".").parent in FOLDERS:
                del sys.modules[name]


@pytest.fixture(scope="module")
def tiny(bench: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = bench.models.MODELS["tiny"].file(tmp_path_factory.mktemp("models"))
    return path


@pytest.fixture
def kit(engines: Path) -> SimpleNamespace:
    """As much of a Kit as a worker needs."""
    (found,) = list_installed(engines)
    return SimpleNamespace(engine=found.path)


def stream(texts: list[str], prompt: int = 128, completion: int | None = None) -> bytes:
    """A server's body: an event for each text, then the usage."""
    events: list[Any] = [{"choices": [{"delta": {"content": text}}]} for text in texts]
    used = len(texts) if completion is None else completion
    events.append({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": used}})
    return b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"


def chunked(body: bytes, cuts: list[int]) -> bytes:
    """A chunked response (RFC 9112, chapter 7.1), the chunks cut at these places."""
    ends = [*sorted({cut % len(body) for cut in cuts} - {0}), len(body)]
    parts = [body[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


async def answered(response: bytes, ask: Callable[[int], Awaitable[Any]], pieces: int = 1) -> Any:
    """What `ask(port)` makes of a server that answers every request with these bytes, in so many writes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().splitlines() if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        size = -(-len(response) // pieces)
        for at in range(0, len(response), size):
            writer.write(response[at : at + size])
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        return await ask(server.sockets[0].getsockname()[1])


@given(texts=st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=8), cuts=st.lists(st.integers(0, 10_000)))
def test_a_stream_is_read_however_it_is_cut(bench: SimpleNamespace, texts: list[str], cuts: list[int]) -> None:
    response = chunked(stream(texts), cuts)

    async def ask(port: int) -> Any:
        return await bench.sse.ask(port, {})

    answer = asyncio.run(answered(response, ask, pieces=7))
    assert answer.text == "".join(texts)
    assert (answer.events, answer.prompt, answer.completion) == (len(texts), 128, len(texts))
    assert answer.began <= answer.arrivals[0] <= answer.arrivals[-1] <= answer.ended


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        chunked(stream(["a"] * 4), [])[:-40],
        chunked(b"data: {\n\n", []),
        chunked(stream(["a"] * 3), []),
        chunked(stream(["a"] * 4, prompt=127), []),
        chunked(stream(["a"] * 4, completion=5), []),
    ],
    ids=["an error", "no stream", "an early end", "no JSON", "a token too few", "another prompt", "a token too many"],
)
async def test_a_server_that_answers_wrongly_gets_no_figure(bench: SimpleNamespace, response: bytes) -> None:
    job = bench.sides.Job(["hello"], 128, 4)

    async def ask(port: int) -> Any:
        return await bench.sides.HttpSide(port, "m", 0).burst(job)

    with pytest.raises(bench.kit.NotTakenError):
        await answered(response, ask)


async def test_a_server_that_answers_well_gets_one(bench: SimpleNamespace) -> None:
    job = bench.sides.Job(["hello", "again"], 128, 4)

    async def ask(port: int) -> Any:
        return await bench.sides.HttpSide(port, "m", 0).burst(job)

    burst = await answered(chunked(stream(["a"] * 4), []), ask)
    assert burst.tokens == 8
    assert burst.rate > 0
    assert len(burst.firsts) == 2


async def test_messages_and_answers_have_the_tokens_they_are_said_to_have(
    bench: SimpleNamespace, tiny: Path, kit: SimpleNamespace
) -> None:
    words = bench.models.MODELS["tiny"].vocabulary
    job = bench.sides.Job([words.message(128, random.Random(n)) for n in range(3)], 128, 20)
    async with bench.starting.worker(kit, tiny, n_ctx=256, threads=1) as worker:
        for temperature in (0.0, 0.8):  # the burst itself looks at the numbers of tokens
            burst = await bench.sides.WorkerSide(worker).burst(replace(job, temperature=temperature))
            for answer in burst.answers:
                said = answer.text.split(" ")[1:]
                assert len(said) == 20
                assert {f"Ġ{word}" for word in said} <= set(words.tokens)


async def test_the_copier_says_what_its_circles_say(
    bench: SimpleNamespace, tmp_path: Path, kit: SimpleNamespace
) -> None:
    from jan_llamacpp.client import GenerateParams, Prompt, Sampling

    shape = replace(bench.models.MODELS["tiny"], name="small copier", chain=10)
    words = list(shape.vocabulary.words)
    async with bench.starting.worker(kit, shape.file(tmp_path), n_ctx=256, threads=1) as worker:
        for begin, wanted in ((words[8], [words[9], *words[:10]]), (words[500], words[501:512])):
            params = GenerateParams(Prompt(tokens=[words[900], begin]), Sampling(temperature=0), max_tokens=11)
            answer = await bench.sides.follow(worker, params)
            assert answer.text == shape.vocabulary.text(wanted)
