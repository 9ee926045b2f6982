"""The memory estimate against llama.cpp's own figures, and against what a worker then really takes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from jan_llamacpp.client import GenerateParams, LoadOptions, Prompt, WorkerProcess
from jan_llamacpp.engines.hardware import detect
from jan_llamacpp.gguf import read_model
from jan_llamacpp.memory.estimate import memory_need
from jan_llamacpp.memory.need import MemoryNeed

from .buffers import buffers, resident
from .conftest import PATIENCE
from .model_files import Shape, write

pytestmark = pytest.mark.anyio

MIB = 2**20

SHAPES = {
    "llama 8B": Shape(n_embd=4096, n_layer=32, n_head=32, n_head_kv=8, head=128, n_ff=14336, n_vocab=128_256),
    "llama 1B, tied": Shape(n_embd=2048, n_layer=16, n_head=32, n_head_kv=8, n_ff=8192, n_vocab=128_256, tied=True),
    "qwen2 0.5B": Shape(
        "qwen2", n_embd=896, n_layer=24, n_head=14, n_head_kv=2, n_ff=4864, n_vocab=151_936, tied=True, type="Q8_0"
    ),
    "qwen3 0.6B": Shape(
        "qwen3", n_embd=1024, n_layer=28, n_head=16, n_head_kv=8, head=128, n_ff=3072, n_vocab=151_936, tied=True
    ),
    "gemma2 2B": Shape(
        "gemma2", n_embd=2304, n_layer=26, n_head=8, n_head_kv=4, head=256, n_ff=9216, n_vocab=256_000, window=4096,
        n_ctx=8192, type="Q8_0", more={"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    ),
    "gemma3 1B": Shape(
        "gemma3", n_embd=1152, n_layer=26, n_head=4, n_head_kv=1, head=256, n_ff=6912, n_vocab=262_144, window=512,
        n_ctx=32_768, type="Q8_0",
    ),
    "mixtral, 4 layers": Shape(
        n_embd=4096, n_layer=4, n_head=32, n_head_kv=8, head=128, n_ff=14336, n_vocab=32_000, experts=(8, 2)
    ),
    "qwen3moe, 12 layers": Shape(
        "qwen3moe", n_embd=2048, n_layer=12, n_head=32, n_head_kv=4, head=128, n_ff=768, n_vocab=151_936,
        experts=(128, 8), type="Q8_0",
    ),
    "deci, heads by layer": Shape("deci", n_embd=512, n_layer=6, n_head=8, n_head_kv=[8, 4, 2, 8, 4, 2], n_ff=1024),
}  # fmt: skip

OPTIONS: list[dict[str, Any]] = [
    {"n_ctx": 2048, "n_seq": 1},
    {"n_ctx": 4096},
    {"n_ctx": 1024, "n_seq": 4, "n_cells": 4096},
    {"n_ctx": 8192, "kv_type": "q8_0"},
    {"n_ctx": 32_768, "kv_type": "q4_0"},
    {"n_ctx": 16_384, "n_seq": 2, "n_batch": 256},
]


def needed(path: Path, options: LoadOptions, **more: Any) -> MemoryNeed:
    info = read_model(path)
    [need] = memory_need(info, info.tensors, options, **more)
    return need


def test_the_estimate_goes_by_the_workers_rules() -> None:
    from jan_llamacpp.memory import estimate
    from jan_llamacpp.worker import context, engine, speculation

    assert estimate.DEFAULT_CTX == engine.DEFAULT_CTX
    for name in ("CELL_STEP", "PLAIN_ATTENTION_BYTES"):
        assert getattr(estimate, name) == getattr(context, name)
    assert estimate.MOST_DRAFTED == speculation.MOST_DRAFTED


@pytest.mark.skipif(sys.platform != "linux", reason="the engine's log is caught in a memory file")
@pytest.mark.parametrize("name", SHAPES)
def test_the_buffers_are_as_large_as_llama_cpp_says(engine_dir: Path, tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "model.gguf", SHAPES[name])
    plain = [options | {"speculate": False} for options in OPTIONS]
    for options, real in zip(plain, buffers(engine_dir, path, plain), strict=True):
        need = needed(path, LoadOptions(**options))
        buffer = need.compute
        error = buffer / real["compute"] - 1
        sizes = f"{real['compute'] / MIB:8.1f} {buffer / MIB:8.1f} MiB"
        print(f"\n| {name} | {options} | cache {real['cache'] / MIB:.0f} | {sizes} {error:+.1%} |", end="")
        assert need.cache == pytest.approx(real["cache"], rel=0.001, abs=MIB)
        assert need.output == pytest.approx(real["output"], rel=0.01, abs=0.01 * MIB)
        assert abs(error) < 0.1, (options, real, buffer)


REAL: dict[str, tuple[Shape, dict[str, Any]]] = {
    "llama F16": (Shape(n_embd=512, n_layer=4, n_head=8, n_ff=2048, n_vocab=8000, type="F16"), {}),
    "llama Q4_0, rewritten": (Shape(n_embd=1024, n_layer=4, n_head=16, n_head_kv=4, n_ff=4096, n_vocab=32_000), {}),
    "llama Q4_0, read and not rewritten": (
        Shape(n_embd=1024, n_layer=4, n_head=16, n_head_kv=4, n_ff=4096, n_vocab=32_000),
        {"repack": False, "mmap": False},
    ),
    "qwen2 Q8_0, q8_0 cache": (
        Shape("qwen2", n_embd=448, n_layer=4, n_head=7, n_head_kv=1, n_ff=2432, n_vocab=151_936, type="Q8_0"),
        {"kv_type": "q8_0"},
    ),
    "gemma3 Q8_0, q4_0 cache": (
        Shape("gemma3", n_embd=640, n_layer=4, n_head=4, n_head_kv=1, head=256, n_ff=2048, n_vocab=64_000, window=512,
              type="Q8_0"),
        {"kv_type": "q4_0"},
    ),
    "qwen3moe Q4_0": (
        Shape("qwen3moe", n_embd=512, n_layer=4, n_head=8, n_head_kv=2, n_ff=256, n_vocab=32_000, experts=(32, 4)),
        {},
    ),
}  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("name", REAL)
async def test_a_worker_takes_what_was_estimated(engine_dir: Path, tmp_path: Path, name: str) -> None:
    shape, chosen = REAL[name]
    path = write(tmp_path / "model.gguf", shape)
    # One request may fill the whole cache, and does: what is reserved for the worst step is then in use.
    options = LoadOptions(**chosen, n_ctx=2048, n_cells=2048, n_seq=2, threads=1, speculate=False)
    with anyio.fail_after(PATIENCE):
        worker = await WorkerProcess.start(engine_dir, path, options)
        try:
            # All over the vocabulary: of its table only what is looked up is in memory.
            prompt = Prompt(tokens=[100 + at * (shape.n_vocab - 100) // 2000 for at in range(2000)])
            async for _ in worker.generate(GenerateParams(prompt, max_tokens=40, ignore_eos=True)):
                pass
            taken = resident(worker.pid)
        finally:
            await worker.close()
    need = needed(path, options, features=detect().features)
    error = need.total / taken - 1
    print(f"\n| {name} | {taken / MIB:.0f} | {need.total / MIB:.0f} | {error:+.1%} |", end="")
    assert abs(error) < 0.1, (taken, need)
