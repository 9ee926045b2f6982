"""Many texts as vectors: asked of a worker a window at a time, and given back in their order.

However many texts there are, few are on their way at once: memory stays bounded, and other requests get their turns in
between. What a vector is asked for is `embedding_methods.py`'s business; how one is made, the worker's.
"""

from __future__ import annotations

import array
import asyncio
import math
import re
import sys
from base64 import b64encode
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from jan_core import JanError

from .worker.request import Prompt

if TYPE_CHECKING:
    from .client import WorkerProcess

__all__ = ["Vector", "vectors"]

WINDOW_TEXTS = 32
WINDOW_SIZE = 1 << 18
"""Characters and tokens of the texts in one message to the worker, if it has more than one."""
IN_FLIGHT = 2
"""Windows at a time: while the worker reads one, the next lies ready."""


class Vector(Struct, frozen=True):
    """A text's vector and how many tokens the text has."""

    values: array.array[float]
    tokens: int

    def cut(self, dimensions: int) -> Vector:
        """The first so many numbers, brought to length 1."""
        kept = self.values[:dimensions]
        length = math.sqrt(math.fsum(value * value for value in kept))
        return Vector(array.array("f", (value / length for value in kept)) if length else kept, self.tokens)

    def base64(self) -> str:
        """The numbers as 32-bit floats, little-endian."""
        values = self.values
        if sys.byteorder == "big":
            values = values[:]
            values.byteswap()
        return b64encode(values.tobytes()).decode()


async def vectors(worker: WorkerProcess, prompts: Iterable[Prompt], normalise: bool = True) -> AsyncIterator[Vector]:
    """A vector for each of `prompts`, from an async generator, in their order.

    Closing or cancelling it ends the work at the worker's next step. Raises what `WorkerProcess.embed` does, with the
    number of the text among all of them in the message and in `data.index`. Not for a worker with pooling `none`, which
    makes more than one vector of a text.
    """
    flying: deque[tuple[int, asyncio.Task[list[Vector]]]] = deque()
    begun = 0
    try:
        for window in _windows(prompts):
            flying.append((begun, asyncio.create_task(_embed(worker, window, normalise))))
            begun += len(window)
            if len(flying) == IN_FLIGHT:
                for vector in await _next(flying):
                    yield vector
        while flying:
            for vector in await _next(flying):
                yield vector
    finally:
        for _, task in flying:
            task.cancel()
        await asyncio.gather(*(task for _, task in flying), return_exceptions=True)


async def _next(flying: deque[tuple[int, asyncio.Task[list[Vector]]]]) -> list[Vector]:
    first, task = flying[0]
    try:
        # Not popped before it is done: a cancellation here must reach it.
        made = await asyncio.shield(task)
    except JanError as error:
        if isinstance(index := error.data.get("index"), int):
            # A worker counts the texts of a window; its messages name one as "text 3".
            message = re.sub(rf"\btext {index}\b", f"text {first + index}", error.message)
            raise type(error)(message, **{**error.data, "index": first + index}) from None
        raise
    flying.popleft()
    return made


async def _embed(worker: WorkerProcess, prompts: list[Prompt], normalise: bool) -> list[Vector]:
    made = await worker.embed(prompts, normalise)
    values = array.array("f", made.vectors)
    size = made.size
    return [Vector(values[at * size : (at + 1) * size], tokens) for at, tokens in enumerate(made.tokens)]


def _windows(prompts: Iterable[Prompt]) -> Iterator[list[Prompt]]:
    window: list[Prompt] = []
    room = WINDOW_SIZE
    for prompt in prompts:
        size = len(prompt.text or prompt.tokens or ())
        if window and (len(window) == WINDOW_TEXTS or size > room):
            yield window
            window, room = [], WINDOW_SIZE
        window.append(prompt)
        room -= size
    if window:
        yield window
