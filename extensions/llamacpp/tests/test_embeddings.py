"""`embeddings.create` in a host, with a real engine and real, if random, models."""

from __future__ import annotations

import asyncio
import math
from array import array
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest
from jan_llamacpp.client import GenerateParams, LoadOptions, WorkerProcess
from jan_llamacpp.embedding import vectors
from jan_llamacpp.failures import ContextOverflow, InvalidGeneration
from jan_llamacpp.plugin import LlamaCppExtension
from jan_llamacpp.worker.protocol import Embedded
from jan_llamacpp.worker.request import Prompt

from jan_core import RpcError
from jan_core.testing import InlineSource
from jan_core.types import Embedding

from .conftest import PATIENCE
from .embedding_models import WORDS, write_bert

pytestmark = pytest.mark.anyio

PREFIXES = ["engines.", "models.", "chat.", "completions.", "embeddings.", "remotes.", "tokens."]
OpenHost = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert") / "bert.gguf", n_embd=64)


@pytest.fixture
async def client(open_host: OpenHost, data_dir: Path, babble: Path, bert: Path) -> AsyncIterator[Any]:
    """A host with this extension, `babble`, which generates, and `bert`, which embeds."""
    async with open_host(sources=[InlineSource("llamacpp", LlamaCppExtension, PREFIXES)], data_dir=data_dir) as host:
        client = host.client()
        for path in (babble, bert):
            await client.call("models.import", {"path": str(path), "id": path.stem})
        yield client


async def embed(client: Any, input: Any, model: str = "bert", **more: Any) -> Any:
    with anyio.fail_after(PATIENCE):
        return await client.call("embeddings.create", {"input": input, "model": model, **more})


def cosine(a: Any, b: Any) -> float:
    return float(sum(x * y for x, y in zip(a, b, strict=True)))


async def state_of(client: Any, id: str) -> str:
    models = (await client.call("models.list"))["models"]
    return next(str(model.get("state", "available")) for model in models if model["id"] == id)


async def test_texts_become_vectors_of_length_1_with_their_exact_tokens(client: Any) -> None:
    answer = await embed(client, ["the cat sat", "moon river", "the cat sat"])
    assert (answer["object"], answer["model"]) == ("list", "bert")
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]
    first, second, third = (item["embedding"] for item in answer["data"])
    assert len(first) == 64
    assert math.isclose(cosine(first, first), 1, abs_tol=1e-5)
    assert cosine(first, third) > 0.99999 > 0.99 > cosine(first, second)
    assert answer["usage"] == {"prompt_tokens": 5 + 4 + 5, "total_tokens": 14}
    (alone,) = (await embed(client, "the cat sat"))["data"]
    assert cosine(first, alone["embedding"]) > 0.99999


async def test_base64_holds_the_same_numbers(client: Any) -> None:
    (plain,) = (await embed(client, "moon"))["data"]
    (packed,) = (await embed(client, "moon", encoding_format="base64"))["data"]
    assert array("f", b64decode(packed["embedding"])).tolist() == plain["embedding"]


async def test_fewer_dimensions_are_brought_to_length_1_again(client: Any) -> None:
    (whole,) = (await embed(client, "moon"))["data"]
    (cut,) = (await embed(client, "moon", dimensions=10))["data"]
    assert len(cut["embedding"]) == 10
    assert math.isclose(cosine(cut["embedding"], cut["embedding"]), 1, abs_tol=1e-5)
    ratio = cut["embedding"][0] / whole["embedding"][0]
    assert all(
        math.isclose(a / b, ratio, rel_tol=1e-4) for a, b in zip(cut["embedding"], whole["embedding"], strict=False)
    )
    with pytest.raises(RpcError, match="64 dimensions, not 65") as caught:
        await embed(client, "moon", dimensions=65)
    assert caught.value.type == "invalid_params"


async def test_tokens_are_taken_as_they_are(client: Any) -> None:
    (text,) = (await embed(client, "the cat"))["data"]  # [CLS] the cat [SEP]
    (tokens,) = (await embed(client, [2, 5, 6, 3]))["data"]
    assert cosine(text["embedding"], tokens["embedding"]) > 0.99999
    both = await embed(client, [[2, 5, 6, 3], [2, 7, 3]])
    assert both["usage"]["prompt_tokens"] == 7
    for wrong, why in (([], "input"), ([["a"]], "input"), ([1, "a"], "mixture"), ([[1], "a"], "mixture")):
        with pytest.raises(RpcError, match=why) as caught:
            await embed(client, wrong)
        assert caught.value.type == "invalid_params"
    with pytest.raises(RpcError, match="token outside"):
        await embed(client, [2, 70])


async def test_a_text_that_is_too_long_is_told_by_its_number_and_the_limit(client: Any) -> None:
    with pytest.raises(RpcError, match="at most 128") as caught:
        await embed(client, ["moon"] * 100 + ["sun " * 200])
    assert caught.value.type == "context_overflow"
    assert caught.value.data["index"] == 100
    assert "text 100 has" in str(caught.value), "counted over the request, not over what a worker is given at a time"
    assert caught.value.data["n_prompt"] == 202


async def test_thousands_of_texts_stream_through_in_order(client: Any) -> None:
    texts = [f"{WORDS[at % 14]} {WORDS[at % 11]} {WORDS[at % 9]}" for at in range(3000)]
    with pytest.raises(RpcError, match="stream them"):
        await embed(client, texts)
    found: list[Embedding] = []
    with anyio.fail_after(PATIENCE):
        asked = {"input": texts, "model": "bert", "stream": True}
        async with client.stream("embeddings.create", asked, item=Embedding) as stream:
            found = [item async for item in stream]
            answer = await stream.result()
    assert [item.index for item in found] == list(range(3000))
    assert answer["data"] == []
    assert answer["usage"]["prompt_tokens"] == 5 * 3000
    for at in (0, 31, 32, 2999):
        (alone,) = (await embed(client, texts[at]))["data"]
        assert cosine(alone["embedding"], found[at].embedding) > 0.9999


async def test_a_model_that_generates_embeds_in_a_worker_of_its_own(client: Any) -> None:
    chat = {"messages": [{"role": "user", "content": "hi"}], "model": "babble", "max_tokens": 2}
    await client.call("chat.complete", chat)
    (last,) = (await embed(client, "the cat", model="babble"))["data"]
    (mean,) = (await embed(client, "the cat", model="babble", pooling="mean"))["data"]
    assert cosine(last["embedding"], mean["embedding"]) < 0.99
    await client.call("chat.complete", chat)
    assert await state_of(client, "babble") == "loaded"
    await client.call("models.unload", {"id": "babble"})
    assert await state_of(client, "babble") == "available", "all its workers are gone"


async def test_a_model_that_embeds_says_so_when_it_is_asked_to_chat(client: Any) -> None:
    with pytest.raises(RpcError, match=r"makes embeddings.*use embeddings\.create") as caught:
        await client.call("completions.create", {"prompt": "x", "model": "bert"})
    assert caught.value.type == "invalid_generation"
    assert await state_of(client, "bert") == "available", "nothing was tried, nothing failed"


async def test_scores_of_a_model_without_a_classification_head_are_refused(client: Any) -> None:
    for id in ("bert", "babble"):
        with pytest.raises(RpcError, match=f"{id} has no classification head") as caught:
            await embed(client, "moon", model=id, pooling="rank")
        assert caught.value.type == "invalid_generation"
        assert await state_of(client, id) == "available", "nothing was loaded for it"


async def test_a_file_that_promises_scores_and_has_no_classification_head_is_refused(
    client: Any, tmp_path: Path
) -> None:
    path = write_bert(tmp_path / "headless.gguf", pooling=4)
    await client.call("models.import", {"path": str(path), "id": "headless"})
    with pytest.raises(RpcError, match="has no classification head; ask for another pooling") as caught:
        await embed(client, "moon", model="headless")
    assert (caught.value.type, caught.value.data["reason"]) == ("invalid_model_file", "missing_tensors")
    with pytest.raises(RpcError, match="has no classification head"):
        await client.call("models.load", {"id": "headless"})
    assert (await embed(client, "moon", model="headless", pooling="mean"))["data"]


async def test_a_classification_head_scores_texts(client: Any, tmp_path: Path) -> None:
    path = write_bert(tmp_path / "ranks.gguf", pooling=4, labels=3)
    await client.call("models.import", {"path": str(path), "id": "ranks"})
    for asked in ("rank", None):
        (scores,) = (await embed(client, "moon", model="ranks", pooling=asked))["data"]
        assert len(scores["embedding"]) == 3


async def test_loading_a_model_that_embeds_loads_it_for_that(client: Any) -> None:
    with anyio.fail_after(PATIENCE):
        loaded = await client.call("models.load", {"id": "bert"})
    assert loaded["id"] == "bert"
    assert loaded["engine"]
    assert await state_of(client, "bert") == "loaded"
    await client.call("models.delete", {"id": "bert"})
    assert "bert" not in [model["id"] for model in (await client.call("models.list"))["models"]]


async def test_a_worker_that_generates_refuses_to_embed_and_the_other_way_round(engine_dir: Path, babble: Path) -> None:
    with anyio.fail_after(PATIENCE):
        generates = await WorkerProcess.start(engine_dir, babble, LoadOptions(threads=1))
        embeds = await WorkerProcess.start(engine_dir, babble, LoadOptions(threads=1, embeddings=True))
        with pytest.raises(InvalidGeneration, match="loaded to generate"):
            await generates.embed([Prompt(text="a")])
        with pytest.raises(InvalidGeneration, match="loaded for embeddings"):
            await anext(aiter(embeds.generate(GenerateParams(Prompt(text="a")))))
        with pytest.raises(InvalidGeneration, match="text or tokens"):
            await embeds.embed([Prompt(messages=[{"role": "user", "content": "x"}])])
        assert (await embeds.embed([])).tokens == []
        assert (await embeds.embed([Prompt(text="a")])).tokens == [1]
        await generates.close()
        await embeds.close()


class Slow:
    """A worker whose answers wait until they are let go."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.two = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled = 0

    async def embed(self, prompts: list[Prompt], normalise: bool = True) -> Embedded:
        self.asked.append(len(prompts))
        if len(self.asked) == 2:
            self.two.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if any(prompt.text == "long" for prompt in prompts):
            at = [prompt.text for prompt in prompts].index("long")
            raise ContextOverflow("too long", index=at)
        return Embedded(1, array("f", [1.0] * len(prompts)).tobytes(), 1, [1] * len(prompts))


async def test_only_a_few_texts_are_on_their_way_at_once() -> None:
    worker: Any = Slow()
    read = 0

    def prompts() -> Any:
        nonlocal read
        for _ in range(10_000):
            read += 1
            yield Prompt(text="x")

    made = vectors(worker, prompts())
    first = asyncio.ensure_future(anext(made))
    with anyio.fail_after(PATIENCE):
        await worker.two.wait()
        assert read <= 3 * 32
        worker.go.set()
        assert (await first).tokens == 1
        assert len([vector async for vector in made]) == 9_999


async def test_giving_up_ends_what_is_on_its_way() -> None:
    worker: Any = Slow()
    made = vectors(worker, [Prompt(text="x")] * 100)
    first = asyncio.ensure_future(anext(made))
    with anyio.fail_after(PATIENCE):
        await worker.two.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    assert worker.cancelled == 2


async def test_an_error_names_the_text_among_all_of_them() -> None:
    worker: Any = Slow()
    worker.go.set()
    with pytest.raises(ContextOverflow) as caught:
        async for _ in vectors(worker, [Prompt(text="long" if at == 70 else "x") for at in range(100)]):
            pass
    assert caught.value.data["index"] == 70
