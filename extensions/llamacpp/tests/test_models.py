"""The methods `models.*` inside a host, with a real engine: options, split and quantised models, adapters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from jan_llamacpp.client import WorkerProcess
from jan_llamacpp.engines.hardware import detect
from jan_llamacpp.gguf import shards_of
from jan_llamacpp.plugin import LlamaCppExtension

from jan_core import RpcError
from jan_core.testing import InlineSource
from jan_core.types import Hardware

from .conftest import PATIENCE, MakeModel, byte_symbols
from .model_files import Shape, write

pytestmark = pytest.mark.anyio

PREFIXES = ["engines.", "models.", "chat.", "completions.", "tokens.", "embeddings.", "remotes."]
OpenHost = Callable[..., AbstractAsyncContextManager[Any]]
GIB = 2**30
OTHER = {"adapters": [{"id": "other"}]}


@pytest.fixture
async def client(open_host: OpenHost, data_dir: Path, babble: Path) -> AsyncIterator[Any]:
    """A host with this extension and the model `babble`, which is the default one."""
    async with open_host(sources=[InlineSource("llamacpp", LlamaCppExtension, PREFIXES)], data_dir=data_dir) as host:
        client = host.client()
        await client.call("models.import", {"path": str(babble), "id": "babble"})
        await client.call("settings.set", {"extension": "llamacpp", "values": {"default_model": "babble"}})
        with anyio.fail_after(PATIENCE):
            yield client


async def say(client: Any, **more: Any) -> str:
    request = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "temperature": 0, **more}
    answer = await client.call("chat.complete", request)
    return str(answer["choices"][0]["message"]["content"])


async def test_a_model_is_loaded_with_the_options_of_the_load_and_then_with_those_kept_for_it(client: Any) -> None:
    loaded = await client.call("models.load", {"id": "babble", "n_ctx": 512, "parallel": 2})
    assert (loaded["info"]["n_ctx"], loaded["info"]["n_seq"]) == (512, 2)
    [place] = loaded["memory"]
    assert place["needed"] == sum(place["parts"].values())
    again = await client.call("models.load", {"id": "babble"})
    assert again["info"]["pid"] == loaded["info"]["pid"]  # as it is
    other = await client.call("models.load", {"id": "babble", "n_ctx": 1024})
    assert other["info"]["pid"] != loaded["info"]["pid"]
    assert (other["info"]["n_ctx"], other["info"]["n_seq"]) == (1024, 8)
    await client.call("models.unload", {"id": "babble"})
    kept = await client.call("models.configure", {"id": "babble", "options": {"n_ctx": 768}})
    assert kept["options"] == {"n_ctx": 768}
    assert (await client.call("models.load", {"id": "babble"}))["info"]["n_ctx"] == 768
    await client.call("models.configure", {"id": "babble"})
    assert (await client.call("models.list"))["models"][1].get("options", {}) == {}


@pytest.mark.parametrize(
    "options", [{"n_ctx": 1}, {"kv_type": "f64"}, {"parallel": 0}, {"n_gpu_layers": -2}, {"adapters": [{}]}, {"odd": 1}]
)
async def test_options_that_make_no_sense_are_refused(client: Any, options: dict[str, Any]) -> None:
    asked = {"id": "babble", **options}
    kept = {"id": "babble", "options": options}
    for method, params in (("models.load", asked), ("models.estimate", asked), ("models.configure", kept)):
        with pytest.raises(RpcError) as caught:
            await client.call(method, params)
        assert caught.value.code == -32602


async def test_an_estimate_needs_no_engine_and_follows_the_options(client: Any) -> None:
    plain = await client.call("models.estimate", {"id": "babble"})
    assert plain["fits"]
    assert plain["max_n_ctx"] == 4096
    assert plain["memory"][0]["device"] == "cpu"
    small = await client.call("models.estimate", {"id": "babble", "n_ctx": 1024, "parallel": 1, "kv_type": "q4_0"})
    assert (small["n_ctx"], small["cells"], small["parallel"], small["kv_type"]) == (1024, 1024, 1, "q4_0")
    assert small["memory"][0]["parts"]["cache"] < plain["memory"][0]["parts"]["cache"] / 10
    assert not [each for each in (await client.call("engines.list"))["installed"] if not each]


async def test_what_does_not_fit_is_refused_before_it_is_loaded_and_loaded_when_forced(
    client: Any, tmp_path: Path
) -> None:
    huge = write(tmp_path / "huge.gguf", Shape(n_embd=8192, n_layer=80, n_head=64, n_ff=28_672, head=128, type="F16"))
    assert huge.stat().st_size > 100 * GIB  # sparse: takes no disk
    await client.call("models.import", {"path": str(huge), "id": "huge"})
    estimate = await client.call("models.estimate", {"id": "huge"})
    assert not estimate["fits"]
    with pytest.raises(RpcError, match="huge does not fit") as caught:
        await client.call("models.load", {"id": "huge"})
    data = caught.value.data
    assert (caught.value.type, data["reason"], data["device"]) == ("out_of_memory", "memory", "cpu")
    assert data["needed"] > 100 * GIB > data["free"] > 0
    assert "force" in data["advice"]
    forced = await client.call("models.load", {"id": "babble", "n_ctx": 4096, "force": True})
    assert forced["info"]["n_ctx"] == 4096


async def test_an_idle_model_gives_its_memory_to_one_that_needs_it_and_a_pinned_one_does_not(
    client: Any, babble: Path, small_machine: SmallMachine
) -> None:
    await client.call("models.import", {"path": str(babble), "id": "second"})
    await client.call("models.load", {"id": "babble", "pin": True})
    with pytest.raises(RpcError, match="second does not fit"):
        await client.call("models.load", {"id": "second"})
    await client.call("models.unload", {"id": "babble"})
    await client.call("models.load", {"id": "babble"})
    await client.call("models.load", {"id": "second"})
    assert await states(client) == {"jan-tiny": "available", "babble": "available", "second": "loaded"}


async def test_nobody_is_unloaded_for_a_model_that_would_not_fit_even_then(
    client: Any, tmp_path: Path, small_machine: SmallMachine
) -> None:
    huge = write(tmp_path / "huge.gguf", Shape(n_embd=8192, n_layer=80, n_head=64, n_ff=28_672, head=128, type="F16"))
    await client.call("models.import", {"path": str(huge), "id": "huge"})
    await client.call("models.load", {"id": "babble"})
    with pytest.raises(RpcError, match="huge does not fit"):
        await client.call("models.load", {"id": "huge"})
    assert (await states(client))["babble"] == "loaded"


async def test_a_load_waits_for_another_whose_memory_it_would_need(
    client: Any, babble: Path, small_machine: SmallMachine
) -> None:
    await client.call("models.import", {"path": str(babble), "id": "second"})
    small_machine.go = anyio.Event()
    waits = anyio.Event()

    def show(message: str, *_: Any) -> None:
        if "waiting for the memory that babble leaves" in message:
            waits.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.call, "models.load", {"id": "babble"})
        await small_machine.begun.wait()
        tasks.start_soon(partial(client.call, "models.load", {"id": "second"}, progress=show))
        await waits.wait()
        small_machine.go.set()
    # The first had its memory by then; being idle, it made way.
    assert await states(client) == {"jan-tiny": "available", "babble": "available", "second": "loaded"}


async def test_a_load_with_other_options_than_one_that_is_under_way_is_not_answered_by_it(
    client: Any, small_machine: SmallMachine
) -> None:
    small_machine.go = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.call, "models.load", {"id": "babble", "n_ctx": 512})
        await small_machine.begun.wait()
        small_machine.begun = anyio.Event()

        async def let_go() -> None:
            await anyio.wait_all_tasks_blocked()
            small_machine.go.set()

        tasks.start_soon(let_go)
        loaded = await client.call("models.load", {"id": "babble", "n_ctx": 1024})
    assert loaded["info"]["n_ctx"] == 1024
    assert (await client.call("models.load", {"id": "babble"}))["info"]["n_ctx"] == 1024, "it says nothing: kept"


async def test_a_model_is_unloaded_with_all_its_workers_or_not_at_all(client: Any, endless: Path) -> None:
    await client.call("models.import", {"path": str(endless), "id": "endless"})
    await client.call("embeddings.create", {"model": "endless", "input": "Hello"})
    request = {"model": "endless", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    async with client.stream("chat.complete", request) as stream:
        await anext(aiter(stream))
        with pytest.raises(RpcError, match="endless is answering 1 requests"):
            await client.call("models.unload", {"id": "endless"})
        await client.call("embeddings.create", {"model": "endless", "input": "Hello"})


@pytest.fixture
async def small_machine(client: Any, monkeypatch: pytest.MonkeyPatch) -> SmallMachine:
    needed = (await client.call("models.estimate", {"id": "babble"}))["memory"][0]["needed"]
    return SmallMachine(needed, monkeypatch)


class SmallMachine:
    """As if there were memory for one model like `babble`. Its workers are counted, and are not started before `go`."""

    def __init__(self, needed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go, self._needed = anyio.Event(), anyio.Event(), needed
        self._workers: list[WorkerProcess] = []
        self._start = WorkerProcess.start
        self.go.set()
        monkeypatch.setattr(WorkerProcess, "start", self.start)
        monkeypatch.setattr("jan_llamacpp.engines.hardware.detect", self.detect)

    async def start(self, *args: Any, **options: Any) -> WorkerProcess:
        self.begun.set()
        await self.go.wait()
        self._workers.append(await self._start(*args, **options))
        return self._workers[-1]

    def detect(self) -> Hardware:
        hardware = detect()
        taken = self._needed * sum(worker.alive for worker in self._workers)
        hardware.memory_total = self._needed + (148 << 20)  # of which 128 are left to others
        hardware.memory_free = hardware.memory_total - taken
        return hardware


async def states(client: Any) -> dict[str, str]:
    models = (await client.call("models.list"))["models"]
    return {each["id"]: each.get("state", "available") for each in models}


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
@pytest.mark.parametrize("cache", ["f16", "q8_0", "q4_0"])
async def test_quantised_weights_and_caches_answer(client: Any, tmp_path: Path, kind: str, cache: str) -> None:
    """A chain of letters survives four bits: its model answers as it does in full."""
    source = quantised_parrot(tmp_path / f"{kind}.gguf", kind)
    await client.call("models.import", {"path": str(source), "id": "parrot"})
    loaded = await client.call("models.load", {"id": "parrot", "kv_type": cache, "n_ctx": 256})
    assert kind in loaded["info"]["description"]
    assert await say(client, model="parrot", max_tokens=5) == "pabcd"


def quantised_parrot(path: Path, kind: str) -> Path:
    """Always answers "pabcd…": the embedding of a letter is one of 64 numbers, and leads to the next letter."""
    import gguf
    import numpy as np
    from gguf import quants

    tokens = [*byte_symbols(), "he", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    n_embd, n_vocab, chain = 288, len(tokens), dict(zip(b"\npabcdefg", b"pabcdefgh", strict=True))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("parrot")
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}"])
    writer.add_context_length(1024)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(9)
    writer.add_head_count_kv(9)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * 257 + [gguf.TokenType.CONTROL] * 3)
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(259)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{{ messages[0]['content'] + '\\n' }}")
    output = np.zeros((n_vocab, n_embd), np.float32)
    for token, following in chain.items():
        output[following, token] = 1

    def matrix(name: str, values: Any) -> None:
        type_ = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, quants.quantize(values, type_), raw_dtype=type_)

    matrix("token_embd.weight", np.eye(n_vocab, n_embd, dtype=np.float32))
    matrix("output.weight", output)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(n_embd, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        matrix(f"blk.0.{name}.weight", np.zeros((n_embd, n_embd), np.float32))
    for name, dims in (("ffn_gate", (64, n_embd)), ("ffn_up", (64, n_embd)), ("ffn_down", (n_embd, 64))):
        matrix(f"blk.0.{name}.weight", np.zeros(dims, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


async def test_a_split_model_is_loaded_from_its_files(client: Any, tmp_path: Path) -> None:
    first = write(tmp_path / "split me.gguf", Shape(n_layer=3, type="Q8_0"), split_max_tensors=10)
    count = len(shards_of(first))
    assert count > 1
    model = await client.call("models.import", {"path": str(first), "id": "parts"})
    assert model["files"] == count
    loaded = await client.call("models.load", {"id": "parts", "n_ctx": 256})
    assert loaded["info"]["n_params"] == model["parameters"]
    await client.call("models.delete", {"id": "parts"})
    assert not Path(model["path"]).parent.exists()


async def test_a_model_is_loaded_with_an_adapter(client: Any, tmp_path: Path, make_model: MakeModel) -> None:
    before = await say(client, model="babble")
    lora = write_lora(tmp_path / "twist.gguf", n_embd=64)
    model = await client.call("models.import", {"path": str(lora), "base": "babble"})
    assert [adapter["id"] for adapter in model["adapters"]] == ["twist"]
    loaded = await client.call("models.load", {"id": "babble", "adapters": [{"id": "twist", "scale": 4.0}]})
    assert loaded["memory"][0]["parts"]["adapters"] == lora.stat().st_size
    assert await say(client, model="babble") != before
    for kept in ("configure", "load"):
        told = {"options": OTHER} if kept == "configure" else OTHER
        with pytest.raises(RpcError, match="no adapter 'other'; it has: twist"):
            await client.call(f"models.{kept}", {"id": "babble", **told})
    with pytest.raises(RpcError, match="jan-tiny is embedded and cannot be changed"):
        await client.call("models.configure", {"id": "jan-tiny", "options": {"n_ctx": 512}})
    await client.call("models.delete", {"id": "babble", "adapter": "twist"})
    assert [each["id"] for each in (await client.call("models.list"))["models"]] == ["jan-tiny", "babble"]
    await client.call("models.unload", {"id": "babble"})
    assert await say(client, model="babble") == before


def write_lora(path: Path, *, n_embd: int) -> Path:
    import gguf
    import numpy as np

    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    for layer in range(2):
        for name in ("attn_output", "attn_v"):
            for part, dims in (("lora_a", (4, n_embd)), ("lora_b", (n_embd, 4))):
                values = random.standard_normal(dims, dtype=np.float32)
                writer.add_tensor(f"blk.{layer}.{name}.weight.{part}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


async def test_a_load_is_cancelled_in_the_middle(client: Any, tmp_path: Path) -> None:
    shape = Shape(n_embd=2048, n_layer=16, n_head=16, head=128, n_head_kv=4, n_ff=8192, type="Q4_0")
    large = write(tmp_path / "large.gguf", shape)
    await client.call("models.import", {"path": str(large), "id": "large"})
    seen: list[float] = []
    scope = anyio.CancelScope()

    def watch(text: str, done: float | None, total: float | None) -> None:
        if text == "loading large" and done:
            seen.append(done)
            scope.cancel()

    with scope:
        await client.call("models.load", {"id": "large", "n_ctx": 512, "repack": True}, progress=watch)
    assert scope.cancelled_caught
    assert 0 < seen[0] < 1
    while (await client.call("models.list"))["models"][-1].get("state", "available") == "loading":
        await anyio.lowlevel.checkpoint()
    assert (await client.call("models.list"))["models"][-1].get("state", "available") == "available"
    assert (await client.call("models.load", {"id": "large", "n_ctx": 512}))["info"]["n_ctx"] == 512


async def test_a_model_that_answers_is_not_deleted(client: Any, endless: Path) -> None:
    await client.call("models.import", {"path": str(endless), "id": "endless"})
    request = {"model": "endless", "messages": [{"role": "user", "content": "go"}], "stream": True}
    async with client.stream("chat.complete", request) as stream:
        async for _ in stream:
            break
        with pytest.raises(RpcError) as caught:
            await client.call("models.delete", {"id": "endless"})
        assert caught.value.type == "model_busy"
        with pytest.raises(RpcError):
            await client.call("models.load", {"id": "endless", "n_ctx": 512})
    assert "endless" in [each["id"] for each in (await client.call("models.list"))["models"]]
