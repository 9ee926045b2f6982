"""The method `embeddings.create`.

A model that is loaded for embeddings is another worker than one that generates (`variants.py`), also where both are
made of the same file.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import anyio.to_thread

from jan_core import Call, InvalidParams, Overloaded, method
from jan_core.types import Embedding, EmbeddingList, EmbeddingRequest, EmbeddingUsage

from .failures import ContextOverflow, EmbeddingFailed, GenerationFailed, InvalidGeneration
from .model_methods import LOAD_ERRORS
from .services import Services, report_to
from .variants import embedding_id, has_head

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .embedding import Vector
    from .worker.request import Prompt

__all__ = ["EmbeddingMethods"]

MOST_TEXTS = 2048
"""In an answer that is not streamed; OpenAI's limit, too."""


class EmbeddingMethods:
    """Handlers. `services` is set when the extension is activated, before any call can come."""

    services: Services

    @method(
        "embeddings.create",
        item=Embedding,
        errors=[
            *LOAD_ERRORS,
            ContextOverflow,
            EmbeddingFailed,
            GenerationFailed,
            InvalidGeneration,
            InvalidParams,
            Overloaded,
        ],
    )
    async def create(self, params: EmbeddingRequest, call: Call) -> EmbeddingList:
        """Turn texts into vectors of length 1: OpenAI's embeddings request and response.

        The model is loaded for it if it is not, and an engine installed if there is none; both are reported as
        progress. A model that generates text may be used, too. With the pooling `rank` a vector is what the model's
        classification head says of the text, as it stands; a model without one is refused. With `stream` the vectors
        are stream items, in the order of the texts, and the result has none. Cancelling ends the work at its next step.
        """
        from .embedding import vectors

        prompts = _prompts(params)
        if not params.stream and len(prompts) > MOST_TEXTS:
            raise InvalidParams(f"{len(prompts)} texts are more than {MOST_TEXTS}: stream them", path="$.input")
        id = await self.services.resolve(params.model, to_embed=True)
        worker_id = embedding_id(id, params.pooling)
        if (
            params.pooling == "rank"
            and self.services.pool.state(worker_id)[0] != "loaded"
            and not has_head(await anyio.to_thread.run_sync(self.services.store.inspect, id))
        ):
            raise InvalidGeneration(f"{id} has no classification head: it gives no scores (pooling rank)", model=id)
        answer = EmbeddingList([], id, EmbeddingUsage())
        async with (
            self.services.pool.use(worker_id, report_to(call)) as worker,
            aclosing(cast("AsyncGenerator[Vector, None]", vectors(worker, prompts))) as made,
        ):
            index = 0
            async for vector in made:
                item = Embedding(_shown(vector, params), index)
                if params.stream:
                    await call.send(item)
                else:
                    answer.data.append(item)
                answer.usage.prompt_tokens += vector.tokens
                index += 1
        answer.usage.total_tokens = answer.usage.prompt_tokens
        return answer


def _prompts(params: EmbeddingRequest) -> list[Prompt]:
    """The texts of a request. Raises InvalidParams when they are mixed with tokens."""
    from .worker.request import Prompt

    if isinstance(params.input, str):
        return [Prompt(text=params.input)]
    texts = [item for item in params.input if isinstance(item, str)]
    if len(texts) == len(params.input):
        return [Prompt(text=text) for text in texts]
    tokens = [item for item in params.input if isinstance(item, int)]
    if len(tokens) == len(params.input):
        return [Prompt(tokens=tokens)]
    lists = [item for item in params.input if isinstance(item, list)]
    if len(lists) == len(params.input):
        return [Prompt(tokens=tokens) for tokens in lists]
    raise InvalidParams("the input is texts, or tokens, or lists of tokens: not a mixture", path="$.input")


def _shown(vector: Vector, params: EmbeddingRequest) -> list[float] | str:
    """A vector in the form that was asked for. Raises InvalidParams for more dimensions than it has."""
    if params.dimensions is not None and params.dimensions != len(vector.values):
        if params.dimensions > len(vector.values):
            message = f"the model's vectors have {len(vector.values)} dimensions, not {params.dimensions}"
            raise InvalidParams(message, path="$.dimensions")
        if params.pooling == "rank":
            raise InvalidParams("scores cannot be shortened", path="$.dimensions")
        vector = vector.cut(params.dimensions)
    return vector.base64() if params.encoding_format == "base64" else vector.values.tolist()
