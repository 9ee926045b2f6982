"""The memory estimate for workers that embed: against llama.cpp's own figures, and what such a worker takes."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from jan_llamacpp.client import LoadOptions, Prompt, WorkerProcess
from jan_llamacpp.engines.hardware import detect
from jan_llamacpp.failures import EmbeddingFailed
from jan_llamacpp.gguf import read_model
from jan_llamacpp.loading import estimate, plan
from jan_llamacpp.memory.estimate import memory_need
from jan_llamacpp.memory.fit import Subject, fit
from jan_llamacpp.memory.layers import model_shape
from jan_llamacpp.memory.need import MemoryNeed
from jan_llamacpp.model_shapes import ModelOptions
from jan_llamacpp.settings import LlamaCppSettings

from jan_core.types import Hardware, InstalledModel

from .buffers import buffers, resident
from .conftest import PATIENCE
from .embedding_models import write_bert
from .model_files import Shape, write

pytestmark = pytest.mark.anyio

MIB = 2**20
GIB = 2**30

BERTS: dict[str, dict[str, int]] = {
    "bert, 33 M": {"n_embd": 384, "n_layer": 12, "n_ctx": 512},
    "bert, long texts": {"n_embd": 384, "n_layer": 3, "n_ctx": 2048},
    "bert, longer texts": {"n_embd": 256, "n_layer": 3, "n_ctx": 4096},
    "bert, shorter texts than a step": {"n_embd": 768, "n_layer": 2, "n_ctx": 128},
}
SHAPES = {
    "eurobert": Shape("eurobert", n_embd=768, n_layer=3, n_head=12, n_head_kv=12, n_ff=3072, n_ctx=8192, tied=True),
    "gemma-embedding": Shape(
        "gemma-embedding", n_embd=768, n_layer=8, n_head=3, n_head_kv=1, head=256, n_ff=1152, n_vocab=50_000,
        n_ctx=2048, window=512, type="Q8_0",
    ),
    "llada": Shape("llada", n_embd=512, n_layer=3, n_head=8, n_head_kv=8, n_ff=2048, n_vocab=30_000, n_ctx=4096),
    "qwen2": Shape(
        "qwen2", n_embd=896, n_layer=3, n_head=14, n_head_kv=2, n_ff=4864, n_vocab=151_936, tied=True, type="Q8_0"
    ),
    "qwen3": Shape("qwen3", n_embd=1024, n_layer=3, n_head=16, n_head_kv=8, head=128, n_ff=3072, n_vocab=30_000),
    "qwen2 that looks ahead": Shape(
        "qwen2", n_embd=896, n_layer=3, n_head=14, n_head_kv=2, n_ff=4864, n_vocab=151_936, tied=True, n_ctx=32_768,
        more={"attention.causal": False},
    ),
}  # fmt: skip
OPTIONS: list[dict[str, Any]] = [{}, {"n_ctx": 1024}, {"n_ctx": 3000, "kv_type": "q8_0"}, {"n_batch": 100}]


def written(folder: Path, name: str) -> Path:
    path = folder / "model.gguf"
    return write_bert(path, **BERTS[name]) if name in BERTS else write(path, SHAPES[name])


def needed(path: Path, options: LoadOptions, **more: Any) -> MemoryNeed:
    info = read_model(path)
    [need] = memory_need(info, info.tensors, options, **more)
    return need


def machine(free: int) -> Hardware:
    return Hardware("linux", "x86_64", "a processor", 8, 16, ["avx2"], 64 * GIB, free, [])


@pytest.mark.skipif(sys.platform != "linux", reason="the engine's log is caught in a memory file")
@pytest.mark.parametrize("name", [*BERTS, *SHAPES])
def test_the_buffers_of_one_that_embeds_are_as_large_as_llama_cpp_says(
    engine_dir: Path, tmp_path: Path, name: str
) -> None:
    path = written(tmp_path, name)
    info = read_model(path)
    asked = [options | {"embeddings": True} for options in OPTIONS]
    for options, real in zip(asked, buffers(engine_dir, path, asked), strict=True):
        need = needed(path, LoadOptions(**options))
        error = need.compute / real["compute"] - 1
        sizes = f"{real['compute'] / MIB:8.1f} {need.compute / MIB:8.1f} MiB"
        print(f"\n| {name} | {options} | cache {real['cache'] / MIB:.0f} | {sizes} {error:+.1%} |", end="")
        assert need.cache == pytest.approx(real["cache"], rel=0.001, abs=MIB)
        assert abs(error) < 0.1, (options, real, need)
        chosen = fit(Subject(info, info.tensors), LoadOptions(**options), machine(64 * GIB), n_ctx=options.get("n_ctx"))
        assert {name: getattr(chosen.options, name) for name in ("n_ctx", "n_cells", "n_seq")} == {
            name: real[name] for name in ("n_ctx", "n_cells", "n_seq")
        }
        assert model_shape(info, info.tensors).whole is bool(real["whole"])


REAL: dict[str, tuple[str, dict[str, Any]]] = {
    "a bert, texts of 512 tokens": ("bert, 33 M", {}),
    "a bert, texts of 2,048": ("bert, long texts", {}),
    "a bert, texts of 4,096": ("bert, longer texts", {}),
    "a gemma-embedding in Q8_0": ("gemma-embedding", {"repack": False}),
    "a qwen2 in Q8_0": ("qwen2", {"n_ctx": 2048}),
    "a qwen2 in Q4_0 that looks ahead": ("qwen2 that looks ahead", {"n_ctx": 1024}),
}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("name", REAL)
async def test_a_worker_that_embeds_takes_what_was_estimated(engine_dir: Path, tmp_path: Path, name: str) -> None:
    model, chosen = REAL[name]
    path = written(tmp_path, model)
    info = read_model(path)
    options = LoadOptions(**chosen, embeddings=True, threads=1)
    found = fit(Subject(info, info.tensors), options, detect(), n_ctx=options.n_ctx)
    with anyio.fail_after(PATIENCE):
        worker = await WorkerProcess.start(engine_dir, path, found.options)
        try:
            longest = Prompt(tokens=[number % 50 + 7 for number in range(worker.info.n_ctx)])
            with suppress(EmbeddingFailed):  # zeros for weights make no vector, and take the same memory
                await worker.embed([longest])
            taken = resident(worker.pid)
        finally:
            await worker.close()
    need = found.places[0].need
    error = need.total / taken - 1
    print(f"\n| {name} | {taken / MIB:.0f} | {need.total / MIB:.0f} | {error:+.1%} |", end="")
    assert abs(error) < 0.1, (taken, need)


def test_a_context_that_is_chosen_is_never_larger_than_the_vocabulary_allows(tmp_path: Path) -> None:
    info = read_model(written(tmp_path, "qwen2 that looks ahead"))
    subject, options = Subject(info, info.tensors), LoadOptions(embeddings=True)
    longest = fit(subject, options, machine(64 * GIB))
    assert longest.options.n_ctx == (2 << 30) // (4 * 151_936)  # not the 8,192 of a smaller vocabulary
    assert longest.places[0].need.output < 2.1 * GIB
    for free in (4.5, 4, 3, 2):
        found = fit(subject, options, machine(int(free * GIB)))
        assert found.fits
        assert (found.options.n_ctx or 0) < (longest.options.n_ctx or 0)
        assert found.reasons
        # What is told is what a worker makes of it: it is loaded with these options.
        again = fit(subject, found.options, machine(int(free * GIB)), n_ctx=found.options.n_ctx)
        assert (again.options, again.places) == (found.options, found.places)


def test_a_model_that_only_embeds_is_estimated_as_one_that_embeds(tmp_path: Path) -> None:
    path = written(tmp_path, "bert, 33 M")
    info = read_model(path)
    model = InstalledModel("m", "M", str(path), path.stat().st_size)
    told = estimate(model, info, ModelOptions(n_ctx=8192), LlamaCppSettings(), machine(8 * GIB), variant="cpu")
    [place] = told.memory
    assert (told.fits, told.n_ctx, told.cells, told.parallel) == (True, 512, 1024, 64)
    assert (told.max_n_ctx, place.parts.cache, told.rough) == (512, 0, False)
    base = LoadOptions(embeddings=True, pooling="cls")
    # The setting is for chats.
    settings = LlamaCppSettings(n_ctx=100)
    planned = plan(model, info, ModelOptions(), settings, machine(8 * GIB), variant="cpu", base=base)
    assert (planned.options.embeddings, planned.options.pooling) == (True, "cls")
    assert planned.places[0].need == place.parts


def test_one_that_embeds_is_not_charged_what_only_generating_takes(tmp_path: Path) -> None:
    info = read_model(written(tmp_path, "qwen2"))
    with_pictures = Subject(info, info.tensors, projector=GIB, adapters=GIB)
    [to_generate] = fit(with_pictures, LoadOptions(), machine(64 * GIB)).places
    [to_embed] = fit(with_pictures, LoadOptions(embeddings=True), machine(64 * GIB)).places
    assert (to_generate.need.projector, to_generate.need.adapters) == (GIB, GIB)
    assert (to_embed.need.projector, to_embed.need.adapters) == (0, 0)
