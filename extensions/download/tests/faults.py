"""What can be wrong with a web server, by name. `faultserver` serves with them; this only says what they change.

A fault is a value, `Drop(at=1_000_000)`, and several compose: each changes what the one before it left. Which requests
it strikes is said by chaining; without a condition it strikes every one.

    Drop(at=5_000).only(0, 2)       the first and the third request for the path (counted from 0)
    Status(503).until(3)            the first three
    Flip(77).since(4)               the fifth and all later ones
    Hold(after=0).times(1)          the first one that it would strike
    Drop(after=9).chance(0.1)       one in ten, by the server's seed
    NoRanges().covering(8 << 20)    those whose range holds this byte of the file

`at` is an offset in the file, `after` counts bytes of one answer's body; a place that an answer does not reach changes
nothing in it.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate

from .faultparts import Asked, Fault, Reply, Resource

__all__ = [
    "Chunked",
    "Close",
    "Drop",
    "ETag",
    "Encoded",
    "Endless",
    "Fault",
    "Flip",
    "Garbage",
    "Header",
    "Hold",
    "HtmlPage",
    "IgnoreIfRange",
    "NoLength",
    "NoRanges",
    "Other",
    "Redirect",
    "Shifted",
    "SlowHead",
    "Status",
    "Trickle",
    "WrongLength",
    "WrongRange",
]


# -- the connection ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drop(Fault):
    """The connection ends in the middle of the body; with `reset`, by RST."""

    at: int | None = None
    after: int | None = None
    reset: bool = False

    def spoil(self, asked: Asked, reply: Reply) -> None:
        if (where := reply.place(self.at, self.after)) is not None:
            reply.drop_at, reply.reset = where, self.reset


@dataclass(frozen=True)
class Hold(Fault):
    """The body stops coming there, and goes on when the test calls `release()`."""

    at: int | None = None
    after: int | None = None

    def spoil(self, asked: Asked, reply: Reply) -> None:
        if (where := reply.place(self.at, self.after)) is not None:
            reply.hold_at = where


@dataclass(frozen=True)
class Trickle(Fault):
    """The body comes at `rate` bytes a second."""

    rate: int

    def spoil(self, asked: Asked, reply: Reply) -> None:
        reply.rate = self.rate


@dataclass(frozen=True)
class SlowHead(Fault):
    """The head comes at `rate` bytes a second; 0: not before `release()`."""

    rate: int = 0

    def spoil(self, asked: Asked, reply: Reply) -> None:
        reply.head_rate, reply.hold_head = self.rate, not self.rate


@dataclass(frozen=True)
class Close(Fault):
    """The connection ends without an answer; with `reset`, by RST."""

    reset: bool = False

    def spoil(self, asked: Asked, reply: Reply) -> None:
        reply.raw, reply.reset = b"", self.reset


@dataclass(frozen=True)
class Garbage(Fault):
    """Bytes that are no HTTP: these, or 300 random ones."""

    raw: bytes = b""

    def spoil(self, asked: Asked, reply: Reply) -> None:
        reply.raw = self.raw or asked.random.randbytes(300)


# -- the head ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header(Fault):
    """A header field with another value; None: without it."""

    name: str
    value: str | None

    def spoil(self, asked: Asked, reply: Reply) -> None:
        reply.headers.pop(self.name, None)
        if self.value is not None:
            reply.headers[self.name] = self.value


@dataclass(frozen=True)
class ETag(Fault):
    """Another ETag on the same bytes, such as `W/"v1"`; "": none."""

    value: str

    def spoil(self, asked: Asked, reply: Reply) -> None:
        Header("ETag", self.value or None).spoil(asked, reply)


@dataclass(frozen=True)
class WrongRange(Fault):
    """A Content-Range that is not the one of the bytes: its fields moved by so much, or another `text` ("": none)."""

    first: int = 0
    last: int = 0
    total: int = 0
    text: str | None = None

    def spoil(self, asked: Asked, reply: Reply) -> None:
        if reply.status != 206:
            return
        first, last = reply.begin + self.first, reply.end - 1 + self.last
        text = f"bytes {first}-{last}/{len(reply.content) + self.total}" if self.text is None else self.text
        Header("Content-Range", text or None).spoil(asked, reply)


@dataclass(frozen=True)
class WrongLength(Fault):
    """A Content-Length that is `by` more (the connection ends too early) or less (there is too much)."""

    by: int

    def spoil(self, asked: Asked, reply: Reply) -> None:
        reply.headers["Content-Length"] = str(max(0, reply.end - reply.begin + self.by))
        reply.keep = False


@dataclass(frozen=True)
class Chunked(Fault):
    """In chunks, without a Content-Length."""

    def spoil(self, asked: Asked, reply: Reply) -> None:
        reply.headers.pop("Content-Length", None)
        reply.headers["Transfer-Encoding"] = "chunked"
        reply.chunked = True


@dataclass(frozen=True)
class NoLength(Fault):
    """Without a Content-Length: the end of the connection is the end of the body."""

    def spoil(self, asked: Asked, reply: Reply) -> None:
        reply.headers.pop("Content-Length", None)
        reply.headers["Connection"] = "close"
        reply.keep = False


@dataclass(frozen=True)
class Status(Fault):
    """An error. `retry_after`: seconds; with `dated`, given as a date."""

    status: int
    retry_after: float | None = None
    dated: bool = False

    def spoil(self, asked: Asked, reply: Reply) -> None:
        reply.instead(self.status)
        if self.status == 416:
            reply.headers["Content-Range"] = f"bytes */{len(reply.content)}"
        if self.retry_after is not None:
            date = formatdate(time.time() + self.retry_after, usegmt=True)
            reply.headers["Retry-After"] = date if self.dated else f"{self.retry_after:.0f}"


@dataclass(frozen=True)
class Redirect(Fault):
    """To an address, or to what a function says anew each time (such as `lambda: cdn.link("/file", uses=1)`)."""

    to: str | Callable[[], str]
    status: int = 302

    def spoil(self, asked: Asked, reply: Reply) -> None:
        reply.instead(self.status, Location=self.to if isinstance(self.to, str) else self.to())


@dataclass(frozen=True)
class HtmlPage(Fault):
    """A page that says what is wrong, with the status of success."""

    text: str = "<!DOCTYPE html><html><title>Sign in</title><p>Please sign in to this network.</html>"

    def spoil(self, asked: Asked, reply: Reply) -> None:
        reply.instead(200, self.text.encode(), Content_Type="text/html")


# -- ranges and versions ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoRanges(Fault):
    """200 and the whole file, whatever range is asked for."""

    def prepare(self, resource: Resource) -> None:
        resource.ranges = False


@dataclass(frozen=True)
class IgnoreIfRange(Fault):
    """206, though If-Range names another version."""

    def prepare(self, resource: Resource) -> None:
        resource.if_range = False


@dataclass(frozen=True)
class Other(Fault):
    """Other content; under another ETag it is a new version, under the same one a mirror that has gone bad."""

    content: bytes
    etag: str = '"v1"'

    def prepare(self, resource: Resource) -> None:
        resource.content, resource.etag = memoryview(self.content), self.etag


# -- the body ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Endless(Fault):
    """The file, and then again, and again. The head promises the right length, unless NoLength or Chunked follow."""

    def spoil(self, asked: Asked, reply: Reply) -> None:
        reply.endless, reply.keep = True, False


@dataclass(frozen=True)
class Encoded(Fault):
    """Compressed, though nobody asked for that."""

    encoding: str = "gzip"

    def spoil(self, asked: Asked, reply: Reply) -> None:
        packed = gzip.compress(reply.content[reply.begin : reply.end], compresslevel=1)
        reply.content, reply.begin, reply.end = memoryview(packed), 0, len(packed)
        reply.headers |= {"Content-Encoding": self.encoding, "Content-Length": str(len(packed))}


@dataclass(frozen=True)
class Shifted(Fault):
    """The bytes that lie `by` further on in the file, under a head that is right."""

    by: int

    def spoil(self, asked: Asked, reply: Reply) -> None:
        whole = reply.content

        def change(block: memoryview, at: int) -> memoryview:
            start = (at + self.by) % len(whole)
            return memoryview((bytes(whole[start : start + len(block)]) + bytes(whole[: len(block)]))[: len(block)])

        reply.changes.append(change)


@dataclass(frozen=True)
class Flip(Fault):
    """A bit of the bytes at these offsets of the file is wrong, and of each other byte with probability `rate`."""

    offsets: tuple[int, ...]
    rate: float

    def __init__(self, *offsets: int, rate: float = 0.0, conditions: tuple[Callable[[Asked], bool], ...] = ()) -> None:
        for name, value in (("offsets", offsets), ("rate", rate), ("conditions", conditions)):
            object.__setattr__(self, name, value)

    def when(self, condition: Callable[[Asked], bool]) -> Flip:
        return Flip(*self.offsets, rate=self.rate, conditions=(*self.conditions, condition))

    def spoil(self, asked: Asked, reply: Reply) -> None:
        def change(block: memoryview, at: int) -> memoryview:
            wrong = [offset - at for offset in self.offsets if at <= offset < at + len(block)]
            if self.rate:
                place = asked.random.expovariate(self.rate)
                while place < len(block):
                    wrong.append(int(place))
                    place += asked.random.expovariate(self.rate)
            if not wrong:
                return block
            changed = bytearray(block)
            for place in wrong:
                changed[int(place)] ^= 1 << asked.random.randrange(8)
            return memoryview(changed)

        reply.changes.append(change)
