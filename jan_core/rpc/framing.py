"""Cuts a byte stream into messages and frames messages for it. Knows nothing of JSON-RPC.

Two framings, told apart by the first byte: one JSON text a line (`{` or `[`), and the Language Server Protocol's
`Content-Length` header (`C`). What a peer is spoken to in, it answers in.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["MAX_MESSAGE", "FramingError", "Splitter", "depth_exceeds"]

MAX_MESSAGE = 32 << 20
"""Bytes of one message: room for a long conversation with images, small enough that it cannot exhaust the machine."""

MAX_DEPTH = 128
"""Nesting of arrays and objects. Deeper documents have no meaning here and cost a C stack elsewhere."""

_MAX_HEADER = 8192
# Strings are taken whole, unclosed ones to the end (possessively: no text makes this quadratic), then the brackets.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{\]}]', re.DOTALL)
_OPENING, _CLOSING = (b"[", b"{"), (b"]", b"}")


class FramingError(Exception):
    """The stream cannot be followed any more (a broken `Content-Length` header)."""


class Splitter:
    """Feeds whole messages to `on_message` as bytes come in; calls `too_large` once for each message over the limit.

    An oversized line is skipped to its end and the stream goes on; its bytes are not kept. `frame` frames an outgoing
    message in the framing that was recognised (lines until then).
    """

    def __init__(
        self, on_message: Callable[[bytes], None], too_large: Callable[[], None], limit: int = MAX_MESSAGE
    ) -> None:
        self._on_message, self._too_large, self._limit = on_message, too_large, limit
        self._parts: list[bytes] = []
        self._size = 0
        self._skipping = False
        self._header = b""
        self._expect = -1
        self._feed: Callable[[bytes], None] = self._sniff
        self.content_length = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises FramingError."""
        self._feed(data)

    def frame(self, message: bytes) -> bytes:
        """One outgoing message, ready for the stream."""
        if self.content_length:
            return b"Content-Length: %d\r\n\r\n%b" % (len(message), message)
        return message + b"\n"

    def _sniff(self, data: bytes) -> None:
        data = data.lstrip(b" \t\r\n\xef\xbb\xbf")
        if not data:
            return
        self.content_length = data[:1] in (b"C", b"c")
        self._feed = self._feed_headers if self.content_length else self._feed_lines
        self._feed(data)

    def _feed_lines(self, data: bytes) -> None:
        head, newline, rest = data.partition(b"\n")
        if self._size or self._skipping:
            self._keep(head)
            if not newline:
                return
            self._emit_kept()
            data = rest
        if not data:
            return
        *lines, tail = data.split(b"\n")
        for line in lines:
            if len(line) > self._limit:
                self._too_large()
            elif line and not line.isspace():
                self._on_message(line)
        if tail:
            self._keep(tail)

    def _keep(self, part: bytes) -> None:
        if self._skipping:
            return
        self._size += len(part)
        if self._size > self._limit:
            self._skipping = True
            self._parts.clear()
            self._too_large()
        else:
            self._parts.append(part)  # joined once, at the end: a long line in small reads stays linear

    def _emit_kept(self) -> None:
        line = b"".join(self._parts)
        skipped, self._skipping, self._size = self._skipping, False, 0
        self._parts = []
        if not skipped and line and not line.isspace():
            self._on_message(line)

    def _feed_headers(self, data: bytes) -> None:
        while data:
            if self._expect < 0:
                data = self._header + data
                end = data.find(b"\r\n\r\n")
                if end < 0:
                    if len(data) > _MAX_HEADER:
                        raise FramingError("header too long")
                    self._header = data
                    return
                self._expect, self._header = _content_length(data[:end]), b""
                self._skipping = self._expect > self._limit
                if self._skipping:
                    self._too_large()
                data = data[end + 4 :]
                if not self._expect:
                    self._expect = -1
                continue
            missing = self._expect - self._size
            part, data = data[:missing], data[missing:]
            self._size += len(part)
            if not self._skipping:
                self._parts.append(part)
            if self._size == self._expect:
                self._expect = -1
                self._emit_kept()


def _content_length(header: bytes) -> int:
    for line in header.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit() and len(value) < 20:
            return int(value)
    raise FramingError("no valid Content-Length in header")


def depth_exceeds(message: bytes, limit: int = MAX_DEPTH) -> bool:
    """Whether a JSON text nests deeper than `limit`. Brackets inside strings do not count.

    Nearly every message has no more than `limit` opening brackets in all and is passed by counting them.
    """
    if message.count(b"[") + message.count(b"{") <= limit:
        return False
    depth = 0
    for found in _TOKEN.finditer(message):
        token = found[0]
        if token in _OPENING:
            depth += 1
            if depth > limit:
                return True
        elif token in _CLOSING:
            depth -= 1
    return False
