"""One model, several workers: what they are called in the pool.

A worker either generates or embeds, and embeds with one pooling. The one that generates has the model's own id; a `#`
is in no model's id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from .worker.options import LoadOptions, Pooling

if TYPE_CHECKING:
    from .gguf import GGUFInfo

__all__ = ["embedding_id", "embeds_only", "has_head", "model_of", "ranks", "with_variant"]

_EMBEDDINGS = "#embeddings"
_RANK = 4
"""`pooling_type` of a model that scores texts (llama.cpp: LLAMA_POOLING_TYPE_RANK)."""
_HEADS = ("cls.weight", "cls.output.weight")
"""The tensors of a classification head; there may be one of them, or both."""


def embedding_id(model: str, pooling: Pooling | None = None) -> str:
    """The worker of `model` that embeds. `pooling` None: the model's own."""
    return f"{model}{_EMBEDDINGS}.{pooling}" if pooling else model + _EMBEDDINGS


def model_of(id: str) -> str:
    """The model a worker is made of."""
    return id.partition("#")[0]


def with_variant(options: LoadOptions, id: str) -> LoadOptions:
    """The options for the worker of this id."""
    from msgspec.structs import replace

    _, found, pooling = id.partition(_EMBEDDINGS)
    if not found:
        return options
    return replace(options, embeddings=True, pooling=cast("Pooling", pooling[1:]) if pooling else None)


def has_head(info: GGUFInfo) -> bool:
    """Can this model score texts? Without a classification head llama.cpp gives numbers that are no scores."""
    return any(name in info.tensors for name in _HEADS)


def ranks(info: GGUFInfo) -> bool:
    """Does this file say that its model scores texts?"""
    return info.metadata.get(f"{info.architecture}.pooling_type") == _RANK


def embeds_only(info: GGUFInfo) -> bool:
    """Is this the file of a model that makes embeddings and generates no text?"""
    arch = info.architecture
    if arch in ("gemma-embedding", "t5encoder"):
        return True
    looks_ahead = info.metadata.get(f"{arch}.attention.causal") is False
    return looks_ahead and ("bert" in arch or f"{arch}.pooling_type" in info.metadata)
