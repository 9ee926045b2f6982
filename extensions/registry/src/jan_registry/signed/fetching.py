"""How the signed client gets a file of a hub: a callable, so that HTTP, a folder and a test's attack look alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import httpx

    from .report import SyncReport

__all__ = ["Fetch", "NotThere", "TooLarge", "Unreachable", "fetcher"]


class Unreachable(Exception):
    """No answer, or none that helps. `retry_after` in seconds, 0 when the server named none; `status`: HTTP's, or 0.

    `report`: what a sync did before, if it came so far.
    """

    report: SyncReport | None = None

    def __init__(self, message: str, *, retry_after: float = 0.0, status: int = 0) -> None:
        super().__init__(message)
        self.retry_after, self.status = retry_after, status


class NotThere(Unreachable):
    """The hub answers, and has no such file (HTTP 403, 404, 410; no such file in a folder)."""


class TooLarge(Exception):
    """More bytes than may come (also after decompression)."""


class Fetch(Protocol):
    """Gets one file. Called in a worker thread; blocks.

    `requests`: how many were made so far; `received`: bytes of their bodies, as they came over the wire; `backoff`:
    the longest time in seconds for which the server asked to be left alone although it answered.
    """

    requests: int
    received: int
    backoff: float

    def __call__(self, path: str, limit: int, *, rare: bool = False) -> bytes:
        """The content of `path` (relative to the hub, `/` between its parts), at most `limit` bytes.

        Of a path that ends in `.gz` the compressed bytes. `rare`: most likely there is no such file, so that asking
        whether there is one should cost little. Raises NotThere, Unreachable, TooLarge.
        """
        ...


def fetcher(url: str, client: Callable[[], httpx.AsyncClient], *, timeout: float) -> Fetch:
    """The one for a hub's address. `client` is only called for HTTP, in its event loop; `timeout`: seconds a file.

    Raises Unreachable for an address of no use.
    """
    if url.startswith("file:"):
        from .folder import FolderFetch, folder_of

        return FolderFetch(folder_of(url))
    from .http import HttpFetch

    return HttpFetch(client, url, timeout=timeout)
