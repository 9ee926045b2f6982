"""How the signed client gets a file of a hub: a callable, so that HTTP, a folder and a test's attack look alike."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Fetch", "NotThere", "TooLarge", "Unreachable"]


class Unreachable(Exception):
    """No answer, or none that helps. `retry_after` in seconds, 0 when the server named none; `status`: HTTP's, or 0."""

    def __init__(self, message: str, *, retry_after: float = 0.0, status: int = 0) -> None:
        super().__init__(message)
        self.retry_after, self.status = retry_after, status


class NotThere(Unreachable):
    """The hub answers, and has no such file (HTTP 403, 404, 410; no such file in a folder)."""


class TooLarge(Exception):
    """More bytes than may come (also after decompression)."""


class Fetch(Protocol):
    """Gets one file. Called in a worker thread; blocks."""

    def __call__(self, path: str, limit: int) -> bytes:
        """The content of `path` (relative to the hub, `/` between its parts), at most `limit` bytes.

        Raises NotThere, Unreachable, TooLarge.
        """
        ...
