"""Messages of a client that does not read: kept until it does, up to a bound, past which nothing is read from it.

So a client that asks without reading answers fills neither our memory nor its own. Which messages must not wait is the
peer's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .framing import Message
from .transports import Transport

__all__ = ["Backlog"]

LIMIT = 1 << 20
"""Bytes of messages that are kept."""

_OVERHEAD = 64
"""What keeping a message costs beside its bytes: empty ones take memory too."""


class Backlog:
    """Keeps messages while `transport` is full, then hands them to `take`, which may put some of them back."""

    def __init__(self, transport: Transport, take: Callable[[list[Message]], None]) -> None:
        self._transport, self._take = transport, take
        self.messages: list[Message] = []
        """Always the same list, so that it can be looked at cheaply."""
        self._size = 0
        self._releasing: asyncio.Task[None] | None = None

    def add(self, message: Message) -> None:
        """Keep a message for later."""
        self.messages.append(message)
        self._size += _OVERHEAD + (len(message) if isinstance(message, bytes) else 0)
        if self._size > LIMIT:
            self._transport.pause()
        if self._releasing is None:
            self._releasing = asyncio.get_running_loop().create_task(self._release())

    def clear(self) -> list[Message]:
        """Give up what is kept."""
        kept, self._size = self.messages.copy(), 0
        self.messages.clear()
        return kept

    def close(self) -> None:
        """Release nothing any more."""
        if self._releasing is not None:
            self._releasing.cancel()

    async def _release(self) -> None:
        try:
            while self.messages:
                await self._transport.drained()
                self._take(self.clear())
                if self._size <= LIMIT // 4:
                    self._transport.resume()
        finally:
            self._releasing = None
