"""What `faults` and `faultserver` talk about: a request, what is served, an answer, a fault, a pace."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

__all__ = ["BLOCK", "Asked", "Fault", "Pace", "Reply", "Resource", "Seen", "first_of", "honest"]

BLOCK = 1 << 20
"""Bytes that are sent at once where nothing else matters."""


@dataclass(frozen=True)
class Asked:
    """A request. `number` counts those for its path from 0; `first` to `last` (inclusive) are the bytes it asks for,
    the whole file without a Range header. `random` is the same in every run with the same seed."""

    number: int
    headers: Mapping[str, str]
    first: int
    last: int
    ranged: bool
    random: random.Random


@dataclass
class Resource:
    """What is served under a path. `signed`: only to whoever has a link made by `FaultServer.link`."""

    content: memoryview
    etag: str = '"v1"'
    modified: str = ""
    ranges: bool = True
    if_range: bool = True
    signed: bool = False


@dataclass
class Reply:
    """An answer before it is sent: a head, and `content[begin:end]`; or `raw` and nothing else."""

    status: int
    headers: dict[str, str]
    content: memoryview
    begin: int = 0
    end: int = 0
    raw: bytes | None = None
    chunked: bool = False
    endless: bool = False
    keep: bool = True
    rate: int = 0
    head_rate: int = 0
    hold_head: bool = False
    hold_at: int | None = None
    drop_at: int | None = None
    reset: bool = False
    changes: list[Callable[[memoryview, int], memoryview]] = field(default_factory=list)

    def instead(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer something else altogether."""
        self.status, self.content, self.begin, self.end = status, memoryview(body), 0, len(body)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.headers["Content-Length"] = str(len(body))
        self.chunked = self.endless = False

    def place(self, at: int | None, after: int | None) -> int | None:
        """The offset that is meant, if this body reaches it."""
        where = at if at is not None else self.begin + (after or 0)
        return where if self.begin <= where < self.end or (self.endless and where >= self.begin) else None


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong."""

    conditions: tuple[Callable[[Asked], bool], ...] = ()

    def strikes(self, asked: Asked) -> bool:
        return all(condition(asked) for condition in self.conditions)

    def prepare(self, resource: Resource) -> None:
        """Change what is served, before the answer is made of it."""

    def spoil(self, asked: Asked, reply: Reply) -> None:
        """Change the answer."""

    def when(self, condition: Callable[[Asked], bool]) -> Self:
        return dataclasses.replace(self, conditions=(*self.conditions, condition))

    def only(self, *numbers: int) -> Self:
        return self.when(lambda asked: asked.number in numbers)

    def until(self, number: int) -> Self:
        return self.when(lambda asked: asked.number < number)

    def since(self, number: int) -> Self:
        return self.when(lambda asked: asked.number >= number)

    def chance(self, share: float) -> Self:
        return self.when(lambda asked: asked.random.random() < share)

    def covering(self, offset: int) -> Self:
        return self.when(lambda asked: asked.first <= offset <= asked.last)

    def ranged(self) -> Self:
        """Only requests with a Range header."""
        return self.when(lambda asked: asked.ranged)

    def times(self, count: int) -> Self:
        """The first `count` that pass the conditions before it in the chain; so it stands last."""
        left = iter(range(count))
        return self.when(lambda asked: next(left, None) is not None)


@dataclass
class Seen:
    """A request as it came, and what became of it. `range`: what its Range header says, None for what it leaves open.

    `how`: `open` while the answer is under way, then `whole`, `dropped` (by a fault) or `left` (the client went, or the
    test cut the connection).
    """

    number: int
    method: str
    path: str
    query: str
    headers: dict[str, str]
    range: tuple[int | None, int | None] | None
    connection: int
    status: int = 0
    sent: int = 0
    held: bool = False
    how: str = "open"
    at: float = field(default_factory=time.monotonic)


class Pace:
    """`rate` bytes a second, shared by whoever spends of it; 0: no limit."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._due = time.monotonic()
        self._lock = threading.Lock()

    def block(self) -> int:
        """How many bytes to send at once, so that they come evenly: for a fiftieth of a second."""
        return max(1, min(BLOCK, self.rate // 50)) if self.rate else BLOCK

    def spend(self, count: int) -> float:
        """Seconds to wait before the next block."""
        if not self.rate:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._due = max(self._due, now - 0.02) + count / self.rate
            return max(0.0, self._due - now)


def first_of(wanted: tuple[int | None, int | None] | None, size: int) -> int:
    if wanted is None:
        return 0
    return wanted[0] if wanted[0] is not None else max(0, size - (wanted[1] or 0))


def honest(seen: Seen, resource: Resource) -> Reply:
    """What a good server answers (RFC 9110 sections 13.1.5, 14)."""
    size = len(resource.content)
    headers = {"Content-Type": "application/octet-stream"}
    if resource.ranges:
        headers["Accept-Ranges"] = "bytes"
    if resource.etag:
        headers["ETag"] = resource.etag
    if resource.modified:
        headers["Last-Modified"] = resource.modified
    reply = Reply(200, headers, resource.content, 0, size)
    condition = seen.headers.get("if-range")
    current = condition in (None, resource.modified) or (condition == resource.etag and not condition.startswith("W/"))
    if seen.range is not None and resource.ranges and (current or not resource.if_range):
        first = first_of(seen.range, size)
        last = min(size - 1, seen.range[1]) if None not in seen.range and seen.range[1] is not None else size - 1
        if first > last:
            reply.instead(416, Content_Range=f"bytes */{size}")
            return reply
        reply.status, reply.begin, reply.end = 206, first, last + 1
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    headers["Content-Length"] = str(reply.end - reply.begin)
    return reply
