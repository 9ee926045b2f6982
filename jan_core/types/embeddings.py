"""OpenAI's embedding objects: what `embeddings.create` takes and returns.

Field names and meanings are those of the OpenAI API reference (POST /v1/embeddings). Unknown fields of a request are
ignored, as OpenAI-compatible servers do.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = ["Embedding", "EmbeddingList", "EmbeddingRequest", "EmbeddingUsage"]


class EmbeddingRequest(Struct, omit_defaults=True, kw_only=True):
    """Texts to turn into vectors: one text, several, the tokens of one, or those of several (in `input`, not mixed).

    `model` empty: the default model. `encoding_format` `base64`: 32-bit floats, little-endian. `dimensions`: keep so
    many numbers of each vector, brought to length 1 again; only models trained for it (Matryoshka) lose little by that.
    """

    input: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None
    pooling: Literal["mean", "cls", "last", "rank"] | None = None
    """How the vectors of a text's tokens become one; None: as the model's file says. Not OpenAI's."""
    stream: bool = False
    """Send each vector as it is made; the answer then repeats none of them. Not OpenAI's, and not over HTTP."""


class Embedding(Struct, tag_field="object", tag="embedding"):
    """The vector of the `index`th text, as numbers or in base64."""

    embedding: list[float] | str
    index: int


class EmbeddingUsage(Struct):
    prompt_tokens: int = 0
    total_tokens: int = 0


class EmbeddingList(Struct, tag_field="object", tag="list"):
    """The answer of `embeddings.create`: the vectors in the order of the texts."""

    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
