"""One source of a job, and what was measured of it. Which one is asked next is `sources`' business."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from jan_core.types import DownloadSource

from .status import SourceState

__all__ = ["LOOK_AGAIN", "MEASURED", "Source", "host_and_port"]

_HALF_LIFE = 4.0
"""Seconds after which what was measured counts half."""
MEASURED = 1 << 18
"""Bytes after which a source's speed says something."""
_ENOUGH = 4 << 20
"""Bytes after which that can be doubted only half."""
LOOK_AGAIN = 60.0
"""Seconds after which a source that others outdid is given another chance, doubling each time; and for which the number
of connections is respected that a source was found to bear."""


@dataclass(eq=False)
class Source:
    """One source and what is known of it. Read it; the book writes it.

    `id`: its host (and `:port`, and `#2`). `hint`: bytes/s of its host in earlier jobs. `reason`: why it is not used or
    what failed last. `retry_at`: not before (the book's clock). `most`: connections that it bears, till `most_until`.
    """

    source: DownloadSource
    id: str
    host: str
    hint: float
    connections: int = 0
    bytes: int = 0
    errors: int = 0
    reason: str = ""
    out: SourceState | None = None
    retry_at: float = 0.0
    most: int = 0
    most_until: float = 0.0
    failures: int = 0
    """In a row, without a reasonable number of bytes between them."""
    since_failure: int = 0
    idle_since: float = 0.0
    patience: float = LOOK_AGAIN
    _at: float = 0.0
    _seen: int = 0
    _bytes: float = 0.0
    _seconds: float = 0.0
    _connected: float = 0.0

    @property
    def measured(self) -> bool:
        """Whether its speed is known well enough to rank it; until then small requests are enough."""
        return self._seen >= MEASURED

    @property
    def speed(self) -> float:
        """Bytes/s of all its connections together, while it had any."""
        return self._bytes / self._seconds if self._seconds > 0 else 0.0

    @property
    def goodput(self) -> float:
        """Bytes/s of one of its connections."""
        return self._bytes / self._connected if self._connected > 0 else 0.0

    def promise(self) -> float:
        """Bytes/s that one more connection may bring, if what they share is the source's line; 0 when nothing is known.

        The less was measured, the better it is thought to be: the first bytes of a connection are its slowest.
        """
        if not self.measured:
            return self.hint / (self.connections + 1)
        usual = max(1.0, self._connected / self._seconds) if self._seconds > 0 else 1.0
        doubt = 1.0 + 1.0 / (1.0 + self._seen / _ENOUGH)
        return self.goodput * doubt * min(1.0, usual / (self.connections + 1))

    def forget(self) -> None:
        """What was measured is too old to go by."""
        self._seen = 0
        self._bytes = self._seconds = self._connected = 0.0

    def note(self, now: float, count: int = 0) -> None:
        """Bring the averages up to `now`, in which `count` bytes came. Only time with connections counts."""
        passed, self._at = max(0.0, now - self._at), now
        if self.connections:
            keep = 0.5 ** (passed / _HALF_LIFE)
            self._bytes *= keep
            self._seconds = self._seconds * keep + passed
            self._connected = self._connected * keep + passed * self.connections
        self._bytes += count
        self.bytes += count
        self._seen += count
        self.since_failure += count


def host_and_port(url: str) -> str:
    """The host of an address, with its port where that is not the usual one."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    shown = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return shown if parts.port in (None, usual) else f"{shown}:{parts.port}"
