"""Which builds are being loaded on: from the moment one is selected for a load until the model is loaded, it stays.

Only this process is seen. What loaded models run on is the caller's to know.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio

__all__ = ["EngineHolds", "Hold"]


class EngineHolds:
    """Of one event loop."""

    def __init__(self) -> None:
        self._changing = anyio.Lock()
        self._holds: list[Hold] = []

    @contextmanager
    def load(self, model: str) -> Iterator[Hold]:
        """A load of this model; what it takes is given back at the end of the block."""
        hold = Hold(model, self._changing)
        self._holds.append(hold)
        try:
            yield hold
        finally:
            self._holds.remove(hold)

    @asynccontextmanager
    async def removal(self, build: str) -> AsyncIterator[list[str]]:
        """Inside the block no load takes another build. Gives the models whose loads have taken this one."""
        async with self._changing:
            yield [hold.model for hold in self._holds if build in hold.builds]


class Hold:
    """What one load has taken. Made by `EngineHolds.load`."""

    def __init__(self, model: str, changing: anyio.Lock) -> None:
        self.model = model
        self.builds: set[str] = set()
        self._changing = changing

    async def take(self, build: str) -> None:
        """Keep this build where it is; before anybody looks whether it is there."""
        async with self._changing:
            self.builds.add(build)
