"""The extension inside a host: its methods by name, with a real engine and a real, if babbling, model."""

# ruff: noqa: ASYNC240 (a test has its event loop to itself)
from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from jan_llamacpp.client import LoadOptions, WorkerProcess
from jan_llamacpp.engines.builds import ENGINE_VERSION
from jan_llamacpp.failures import ModelLoadFailed
from jan_llamacpp.plugin import LlamaCppExtension

from jan_core import Call, Event, Method, RpcError, hookimpl, method, methods_of
from jan_core.testing import InlineSource
from jan_core.types import (
    BuildChoice,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatDelta,
    ChatMessage,
    ChatRequest,
    ChunkChoice,
    EngineBuild,
    Hardware,
    InferenceEngine,
    InferenceOutcome,
    InferenceRequest,
    Route,
    TextCompletion,
    Usage,
)

from .gguf_bytes import whole

pytestmark = pytest.mark.anyio

PREFIXES = ["engines.", "models.", "chat.", "completions.", "embeddings.", "remotes.", "tokens."]
BUILD = f"cpu-{ENGINE_VERSION}"
OpenHost = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
async def host(open_host: OpenHost, data_dir: Path, babble: Path) -> AsyncIterator[Any]:
    """A host with this extension and the model `babble`, which is the default one."""
    async with open_host(sources=[InlineSource("llamacpp", LlamaCppExtension, PREFIXES)], data_dir=data_dir) as host:
        client = host.client()
        await client.call("models.import", {"path": str(babble), "id": "babble"})
        await client.call("settings.set", {"extension": "llamacpp", "values": {"default_model": "babble"}})
        yield host


@pytest.fixture
def client(host: Any) -> Any:
    return host.client()


def ask(text: str = "Hello", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 8, "temperature": 0, **more}


async def state_of(client: Any, id: str) -> str:
    models = (await client.call("models.list"))["models"]
    return next(str(model.get("state", "available")) for model in models if model["id"] == id)


async def test_the_settings_say_how_a_model_is_loaded(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[LoadOptions] = []

    async def start(engine: Path, model: Path, options: LoadOptions, on_progress: Any, **more: Any) -> WorkerProcess:
        seen.append(options)
        raise ModelLoadFailed("not here", reason="a test", log="")

    monkeypatch.setattr(WorkerProcess, "start", start)
    for speculate in (True, False):
        values = {"n_ctx": 256, "parallel": 3, "threads": 1, "speculate": speculate}
        await client.call("settings.set", {"extension": "llamacpp", "values": values})
        with pytest.raises(RpcError, match="not here"):
            await client.call("models.load", {"id": "babble"})
    wanted = [(256, 3, 1, True), (256, 3, 1, False)]
    assert [(each.n_ctx, each.n_seq, each.threads, each.speculate) for each in seen] == wanted


async def test_a_chat_is_answered_and_the_model_stays_loaded(client: Any) -> None:
    answer = await client.call("chat.complete", ask(), result=ChatCompletion)
    [choice] = answer.choices
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "length"
    assert answer.model == "babble"
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8
    assert await state_of(client, "babble") == "loaded"


async def test_a_streamed_answer_is_the_whole_answer_in_pieces(client: Any) -> None:
    whole_answer = await client.call("chat.complete", ask(), result=ChatCompletion)
    request = ask(stream=True, stream_options={"include_usage": True})
    async with client.stream("chat.complete", request, item=ChatChunk, result=ChatCompletion) as stream:
        chunks = [chunk async for chunk in stream]
        answer = await stream.result()
    text = "".join(chunk.text() for chunk in chunks)
    assert text == answer.choices[0].message.content == whole_answer.choices[0].message.content
    assert len(chunks) > 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert (chunks[-1].choices, chunks[-1].usage) == ([], answer.usage)
    assert {chunk.id for chunk in chunks} == {answer.id}


async def test_without_stream_nothing_is_streamed(client: Any) -> None:
    async with client.stream("chat.complete", ask()) as stream:
        assert [item async for item in stream] == []
        assert (await stream.result())["usage"]["completion_tokens"] == 8


async def test_the_first_chat_installs_the_engine_and_loads_the_model_with_progress(
    open_host: OpenHost, tmp_path: Path, babble: Path
) -> None:
    seen: list[str] = []
    async with open_host(sources=[InlineSource("llamacpp", LlamaCppExtension, PREFIXES)]) as host:
        client = host.client()
        await client.call("models.import", {"path": str(babble), "id": "babble"})
        await client.call("chat.complete", ask(model="babble"), progress=lambda text, done, total: seen.append(text))
    assert "checking that the engine runs here" in seen
    assert seen.index("checking that the engine runs here") < seen.index("loading babble")


async def test_an_unknown_model_is_refused_with_the_ids_there_are(client: Any) -> None:
    for name, params in (
        ("chat.complete", ask(model="nobody")),
        ("models.load", {"id": "nobody"}),
        ("models.unload", {"id": "nobody"}),
        ("models.delete", {"id": "nobody"}),
        ("models.inspect", {"id": "nobody"}),
        ("tokens.count", ask(model="nobody")),
    ):
        with pytest.raises(RpcError) as caught:
            await client.call(name, params)
        assert caught.value.type == "model_not_found", name
        assert "babble" in caught.value.data["known"]


async def test_a_text_is_completed_whole_and_streamed(client: Any) -> None:
    request = {"prompt": "abc", "max_tokens": 6, "temperature": 0, "echo": True}
    answer = await client.call("completions.create", request, result=TextCompletion)
    assert answer.choices[0].text.startswith("abc")
    assert answer.usage.completion_tokens == 6
    streaming = request | {"stream": True, "stream_options": {"include_usage": True}}
    async with client.stream("completions.create", streaming, item=TextCompletion) as stream:
        parts = [part async for part in stream]
    assert "".join(choice.text for part in parts for choice in part.choices) == answer.choices[0].text
    assert parts[-1].usage == answer.usage


async def test_tokens_are_counted_with_the_models_own_template(client: Any) -> None:
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}]
    count = await client.call("tokens.count", {"messages": messages})
    answer = await client.call("chat.complete", {"messages": messages, "max_tokens": 1})
    assert count["tokens"] == answer["usage"]["prompt_tokens"]
    assert sum(count["per_message"]) >= count["tokens"]
    assert count["per_message"][0] > count["per_message"][1] > 0
    assert count["context"] > 0


async def test_what_the_engine_cannot_do_is_refused_and_not_ignored(client: Any) -> None:
    sound = {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}
    for request, path in (
        (ask(response_format={"type": "yaml"}), "$.response_format.type"),
        (ask(tool_choice="required"), "$.tool_choice"),
        (ask() | {"messages": [sound]}, "$.messages[0].content[0]"),
        (ask(logit_bias={"x": 1}), "$.logit_bias"),
    ):
        with pytest.raises(RpcError) as caught:
            await client.call("chat.complete", request)
        assert (caught.value.type, caught.value.data["path"]) == ("invalid_params", path)


async def test_a_prompt_longer_than_the_context_is_refused(client: Any) -> None:
    with pytest.raises(RpcError) as caught:
        await client.call("chat.complete", ask("x" * 20_000))
    assert caught.value.type == "context_overflow"


async def test_a_model_is_loaded_unloaded_and_deleted_by_hand(client: Any) -> None:
    loaded = await client.call("models.load", {"id": "babble"})
    assert loaded["engine"] == BUILD
    assert await state_of(client, "babble") == "loaded"
    await client.call("models.unload", {"id": "babble"})
    await client.call("models.unload", {"id": "babble"})  # a second time does no harm
    assert await state_of(client, "babble") == "available"
    await client.call("models.load", {"id": "babble"})
    path = next(m["path"] for m in (await client.call("models.list"))["models"] if m["id"] == "babble")
    await client.call("models.delete", {"id": "babble"})
    assert not Path(path).exists()


async def test_a_worker_that_is_killed_answers_with_an_error_and_the_next_request_works(client: Any) -> None:
    pid = (await client.call("models.load", {"id": "babble"}))["info"]["pid"]
    request = ask(stream=True, max_tokens=2000)
    with anyio.fail_after(120):
        async with client.stream("chat.complete", request) as stream:
            await anext(aiter(stream))
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(RpcError) as caught:
                await stream.result()
        assert (caught.value.type, caught.value.retryable) == ("worker_died", True)
        answer = await client.call("chat.complete", ask())
    assert answer["usage"]["completion_tokens"] == 8


async def test_a_busy_model_is_not_unloaded_or_deleted_unless_forced(client: Any) -> None:
    async with client.stream("chat.complete", ask(stream=True, max_tokens=3000)) as stream:
        items = aiter(stream)
        await anext(items)
        for name in ("models.unload", "models.delete"):
            with pytest.raises(RpcError) as caught:
                await client.call(name, {"id": "babble"})
            assert caught.value.type == "model_busy"
        await client.call("models.unload", {"id": "babble", "force": True})
        with pytest.raises(RpcError) as caught:
            await stream.result()
    assert caught.value.type == "worker_died"


async def test_leaving_a_stream_ends_the_generation(client: Any) -> None:
    async with client.stream("chat.complete", ask(stream=True, max_tokens=3000)) as stream:
        await anext(aiter(stream))
    with anyio.fail_after(60):
        await client.call("models.unload", {"id": "babble"})  # it would be refused while one runs


async def test_a_damaged_file_is_refused_at_import(client: Any, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole()[:-1])
    with pytest.raises(RpcError) as caught:
        await client.call("models.import", {"path": str(path)})
    assert (caught.value.type, caught.value.data["reason"]) == ("invalid_model_file", "truncated")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"path": "relative.gguf"}, "invalid_model_file"),
        ({"path": "/a\0b"}, "invalid_model_file"),
        ({"path": "/dev/zero"}, "invalid_model_file"),
        ({"id": "../babble"}, "invalid_model_id"),
        ({"id": "babble"}, "model_exists"),
        ({"id": "jan-tiny"}, "model_read_only"),
    ],
)
async def test_an_import_that_cannot_be_is_refused(
    client: Any, babble: Path, change: dict[str, str], error: str
) -> None:
    with pytest.raises(RpcError) as caught:
        await client.call("models.import", {"path": str(babble), "id": "other", **change})
    assert caught.value.type == error


async def test_changes_of_a_models_state_are_told(host: Any) -> None:
    heard: list[tuple[str, str]] = []

    def note(event: Event) -> None:
        if event.name == "models.changed":
            heard.append((event.data["id"], event.data["state"]))

    client = host.client()
    with client.notifications(note):
        await client.call("models.load", {"id": "babble"})
        await client.call("models.unload", {"id": "babble"})
        await client.call("models.delete", {"id": "babble"})
    assert heard == [("babble", state) for state in ("loading", "loaded", "available", "deleted")]


async def test_a_model_the_engine_cannot_load_says_why_and_is_listed_as_failed(client: Any, tmp_path: Path) -> None:
    path = tmp_path / "hollow.gguf"
    path.write_bytes(whole())  # a right header, but not all tensors of a llama
    await client.call("models.import", {"path": str(path)})
    for _ in range(2):  # the second time from memory
        with pytest.raises(RpcError) as caught:
            await client.call("chat.complete", ask(model="hollow"))
        assert caught.value.type == "model_load_failed"
    models = (await client.call("models.list"))["models"]
    hollow = next(model for model in models if model["id"] == "hollow")
    assert hollow["state"] == "failed"
    assert hollow["error"] == caught.value.message
    assert (await client.call("chat.complete", ask()))["choices"]


async def test_inspect_shows_the_header_without_the_vocabulary(client: Any) -> None:
    shown = await client.call("models.inspect", {"id": "babble"})
    assert shown["block_count"] == 2
    assert shown["model"]["architecture"] == "llama"
    assert shown["metadata"]["tokenizer.ggml.tokens"] == f"[{shown['n_vocab']} values]"


async def test_the_engines_are_listed_and_explained(client: Any) -> None:
    listed = await client.call("engines.list")
    assert {build["variant"] for build in listed["builds"]} == {"cpu", "cuda", "metal", "rocm", "vulkan"}
    assert [record["id"] for record in listed["installed"]] == [BUILD]
    explained = await client.call("engines.explain")
    assert (explained["build"], explained["by"], explained["damaged"]) == (BUILD, "llamacpp", [])
    verdicts = {candidate["id"]: candidate for candidate in explained["candidates"]}
    assert verdicts[BUILD]["verdict"] == "chosen"
    assert all(verdict["reason"] for verdict in verdicts.values())


async def test_an_engine_is_not_removed_while_a_model_runs_on_it(client: Any) -> None:
    await client.call("models.load", {"id": "babble"})
    with pytest.raises(RpcError) as caught:
        await client.call("engines.remove", {"id": BUILD})
    assert (caught.value.type, caught.value.data["models"]) == ("engine_in_use", ["babble"])
    with pytest.raises(RpcError) as caught:
        await client.call("engines.remove", {"id": "cpu-0.0.1"})
    assert caught.value.type == "engine_not_found"


async def test_installing_an_engine_by_name(client: Any) -> None:
    assert (await client.call("engines.install", {}))["id"] == BUILD
    with pytest.raises(RpcError) as caught:
        await client.call("engines.install", {"id": "cuda-9"})
    assert caught.value.type == "engine_not_found"
    with pytest.raises(RpcError) as caught:
        await client.call("engines.install", {"id": f"cuda12-{ENGINE_VERSION}"})
    assert (caught.value.type, caught.value.data["reason"]) == ("engine_install_failed", "refused")


class Meddler:
    """Another extension: sees requests, refuses some, chooses engines badly when told to."""

    def __init__(self) -> None:
        self.outcomes: list[InferenceOutcome] = []
        self.seen = anyio.Event()
        self.build = ""

    @hookimpl
    async def jan_before_inference(self, request: InferenceRequest) -> InferenceRequest | None:
        if "secret" in request.chat.messages[-1].text():
            return msgspec.structs.replace(request, refused="not on my watch")
        return None

    @hookimpl
    async def jan_after_inference(self, request: InferenceRequest, outcome: InferenceOutcome) -> None:
        self.outcomes.append(outcome)
        self.seen.set()

    @hookimpl
    async def jan_select_engine_build(self, hardware: Hardware, builds: list[EngineBuild]) -> BuildChoice | None:
        return BuildChoice(self.build, "because") if self.build else None


async def test_other_extensions_can_refuse_observe_and_choose(
    open_host: OpenHost, data_dir: Path, babble: Path
) -> None:
    meddler = Meddler()
    sources = [
        InlineSource("llamacpp", LlamaCppExtension, PREFIXES),
        InlineSource("meddler", meddler, ["meddler."]),
    ]
    async with open_host(sources=sources, data_dir=data_dir) as host:
        client = host.client()
        await client.call("models.import", {"path": str(babble), "id": "babble"})
        with pytest.raises(RpcError, match="not on my watch") as caught:
            await client.call("chat.complete", ask("a secret", model="babble"))
        assert caught.value.type == "request_refused"
        meddler.build = f"cuda12-{ENGINE_VERSION}"
        with pytest.raises(RpcError, match="meddler chose cuda12") as caught:
            await client.call("chat.complete", ask(model="babble"))
        assert caught.value.type == "no_usable_engine"
        with anyio.fail_after(60):
            await meddler.seen.wait()
        assert meddler.outcomes[0].error == "no_usable_engine"
        meddler.build, meddler.seen = "", anyio.Event()
        await client.call("models.load", {"id": "babble"})  # tries at once, though it failed just now
        await client.call("chat.complete", ask(model="babble"))
        with anyio.fail_after(60):
            await meddler.seen.wait()
        outcome = meddler.outcomes[1]
        assert (outcome.engine, outcome.model, outcome.finish_reason, outcome.error) == (
            "llamacpp", "babble", "length", "",
        )  # fmt: skip
        assert outcome.time_to_first_token is not None
        assert 0 < outcome.time_to_first_token <= outcome.duration


async def test_closing_the_host_ends_its_workers(open_host: OpenHost, data_dir: Path, babble: Path) -> None:
    async with open_host(sources=[InlineSource("llamacpp", LlamaCppExtension, PREFIXES)], data_dir=data_dir) as host:
        client = host.client()
        await client.call("models.import", {"path": str(babble), "id": "babble"})
        pid = (await client.call("models.load", {"id": "babble"}))["info"]["pid"]
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


class Parrot:
    """Another local engine: repeats the question, and takes the requests that ask for it."""

    @hookimpl
    def jan_methods(self) -> list[Method]:
        return methods_of(self)

    @hookimpl
    async def jan_inference_engines(self) -> list[InferenceEngine]:
        return [InferenceEngine("parrot", "local", "parrot.chat"), InferenceEngine("cloud", "remote", "parrot.chat")]

    @hookimpl
    async def jan_route_inference(self, request: InferenceRequest, candidates: list[InferenceEngine]) -> Route | None:
        assert all(engine.kind == "local" for engine in candidates)
        return Route(request.chat.model, "it was asked for") if request.chat.model in ("parrot", "cloud") else None

    @method("parrot.chat", item=ChatChunk)
    async def chat(self, params: ChatRequest, call: Call) -> ChatCompletion:
        """Repeat the question, word by word."""
        said = params.messages[-1].text()
        for word in said.split():
            await call.send(ChatChunk("1", 0, "parrot", [ChunkChoice(ChatDelta(content=word + " "))]))
        return ChatCompletion("1", 0, "parrot", [ChatChoice(ChatMessage("assistant", said), 0, "stop")], Usage())


async def test_another_local_engine_can_answer_and_a_remote_one_is_never_asked(
    open_host: OpenHost, data_dir: Path
) -> None:
    sources = [
        InlineSource("llamacpp", LlamaCppExtension, PREFIXES),
        InlineSource("parrot", Parrot, ["parrot."]),
    ]
    async with open_host(sources=sources, data_dir=data_dir) as host:
        client = host.client()
        request = ask("polly wants a model", model="parrot", stream=True)
        async with client.stream("chat.complete", request, item=ChatChunk, result=ChatCompletion) as stream:
            assert "".join([chunk.text() async for chunk in stream]) == "polly wants a model "
            assert (await stream.result()).choices[0].message.content == "polly wants a model"
        with pytest.raises(RpcError) as caught:
            await client.call("chat.complete", ask(model="cloud"))
        assert caught.value.type == "request_refused"
