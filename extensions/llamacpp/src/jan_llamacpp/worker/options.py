"""How a model is loaded: what the host chooses before a worker starts. No behaviour but the name of a kept file."""

from __future__ import annotations

import hashlib
from typing import Literal

from msgspec import Struct

__all__ = ["LoadOptions", "Lora", "Pooling", "state_file"]

Pooling = Literal["none", "mean", "cls", "last", "rank"]


class Lora(Struct, frozen=True):
    """A LoRA adapter: a GGUF file of type `adapter`, and how strongly it applies."""

    path: str
    scale: float = 1.0


class LoadOptions(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How to load a model. `None` means: chosen from the model and the machine.

    `n_ctx`: tokens one request may take, prompt and answer together (default: what the model was trained for,
    at most 8,192). `n_seq`: requests that decode at the same time. `n_cells`: tokens that all requests
    together may keep in the KV cache (default: `n_ctx` for each sequence, but at most 8,192 or `n_ctx`,
    whichever is more). `n_batch`: tokens in one decode call. `threads`: CPU threads (default: physical cores,
    fewer while other processes keep them busy). `n_gpu_layers`: -1 for all. `kv_type`: element type of the
    cache. `mmap`: map the file instead of reading it. `repack`: rewrite weights for this CPU at load (twice
    the memory, half the prompt time). `lora`: adapters to apply. `projector`: the file that turns images into
    embeddings for this model. `embeddings`: load for `Embed` instead of `Generate`; `pooling` None: the model's own.
    `speculate`: guess tokens that repeat the text before them and check several in one step. `state_dir`: a folder that
    is this model's alone, where the KV state of threads is kept, at most `state_bytes` of it; None: nowhere.
    `memory_bytes`: how much of idle conversations is kept in memory, out of the KV cache's way. `variant`: what the
    engine was built for (`cuda`, `vulkan`, …); one for a GPU does not load where it finds none.
    """

    n_ctx: int | None = None
    n_seq: int = 8
    n_cells: int | None = None
    n_batch: int = 512
    threads: int | None = None
    n_gpu_layers: int = -1
    kv_type: Literal["f16", "q8_0", "q4_0"] = "f16"
    mmap: bool = True
    repack: bool = True
    max_queue: int = 1024
    lora: list[Lora] = []
    projector: str | None = None
    embeddings: bool = False
    pooling: Pooling | None = None
    speculate: bool = True
    state_dir: str | None = None
    state_bytes: int = 4 << 30
    memory_bytes: int = 512 << 20
    variant: str = "cpu"


def state_file(thread: str) -> str:
    """The name of a conversation's file in `LoadOptions.state_dir`: it does not tell the conversation's own."""
    return hashlib.blake2b(thread.encode("utf-8", "replace"), digest_size=16).hexdigest() + ".kv"
