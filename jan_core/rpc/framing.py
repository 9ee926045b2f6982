"""Cuts a byte stream into messages and frames messages for it. Knows nothing of JSON-RPC.

Two framings, told apart by the first byte: one JSON text a line (`{` or `[`), and the Language Server Protocol's
`Content-Length` header (`C`). What a peer is spoken to in, it answers in.
"""

from __future__ import annotations

__all__ = ["MAX_MESSAGE", "FramingError", "Message", "Splitter", "TooLarge"]

MAX_MESSAGE = 32 << 20
"""Bytes of one message: room for a long conversation with images, small enough that it cannot exhaust the machine."""

_MAX_HEADER = 8192
_HEADER = b"Content-Length: "


class FramingError(Exception):
    """The stream cannot be followed any more (a broken `Content-Length` header)."""


class TooLarge(Exception):
    """A message was longer than the limit and is skipped."""


Message = bytes | TooLarge | FramingError


class Splitter:
    """Takes bytes as they come in and gives whole messages, and what stands in place of one that cannot be had.

    A line may be given with its newline or blanks around it, which JSON does not mind; one of nothing but blanks is
    given too. An oversized message is told of once and skipped to its end, and the stream goes on; its bytes are not
    kept. After a FramingError nothing more comes.
    """

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._skipping = False
        self._header = b""
        self._expect = -1
        self._feed = self._sniff
        self.content_length = False

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes, in order."""
        return self._feed(data)

    def whole_lines(self, data: bytes) -> bool:
        """Whether `data`, the next bytes, are nothing but whole lines, none of them too long: they need no cutting."""
        return (
            self._feed == self._feed_lines
            and not self._size
            and not self._skipping
            and len(data) <= self._limit
            and data.endswith(b"\n")
        )

    def frames(self, messages: list[bytes]) -> bytes:
        """Outgoing messages, ready for the stream, in the framing that was recognised (lines until then)."""
        if self.content_length:
            return b"".join([b"%b%d\r\n\r\n%b" % (_HEADER, len(m), m) for m in messages])
        return b"\n".join([*messages, b""])

    def _sniff(self, data: bytes) -> list[Message]:
        data = data.lstrip(b" \t\r\n\xef\xbb\xbf")
        if not data:
            return []
        self.content_length = data[:1] in (b"C", b"c")
        self._feed = self._feed_headers if self.content_length else self._feed_lines
        return self._feed(data)

    # -- lines ------------------------------------------------------------------------------------------------------

    def _feed_lines(self, data: bytes) -> list[Message]:
        # Looking for a newline is much quicker than splitting at it: a long line comes in many parts without one.
        end = data.find(b"\n")
        out: list[Message] = []
        if self._size or self._skipping or end < 0:
            self._keep(data if end < 0 else data[:end], out)
            if end < 0:
                return out
            self._take_kept(out)
            data = data[end + 1 :]
            if not data:
                return out
        elif end == len(data) - 1 <= self._limit:  # one whole message, the usual case: handed on without a copy
            return [data]
        *lines, tail = data.split(b"\n")
        if len(data) <= self._limit:
            out += lines
        else:
            out += [line if len(line) <= self._limit else TooLarge() for line in lines]
        self._keep(tail, out)
        return out

    def _keep(self, part: bytes, out: list[Message]) -> None:
        """Keep a part of a message. They are joined once, at its end: a long one in small reads stays linear."""
        if self._skipping:
            return
        self._size += len(part)
        if self._size > self._limit:
            self._skipping = True
            self._parts.clear()
            out.append(TooLarge())
        elif part:
            self._parts.append(part)

    def _take_kept(self, out: list[Message]) -> None:
        if self._parts:
            out.append(b"".join(self._parts))
            self._parts = []
        self._skipping, self._size = False, 0

    # -- headers ----------------------------------------------------------------------------------------------------

    def _feed_headers(self, data: bytes) -> list[Message]:
        out: list[Message] = []
        if self._header:
            data, self._header = self._header + data, b""
        at, end = 0, len(data)
        while at < end:
            if self._expect < 0:
                blank = data.find(b"\r\n\r\n", at, at + _MAX_HEADER)
                if blank < 0 and end - at < _MAX_HEADER:
                    self._header = data[at:]
                    break
                self._expect = _content_length(data[at:blank]) if blank >= 0 else -1
                if self._expect < 0:
                    out.append(FramingError("no valid Content-Length in header"))
                    self._feed = self._feed_nothing
                    break
                at = blank + 4
                if self._expect > self._limit:
                    self._skipping = True
                    out.append(TooLarge())
            part = data[at : at + self._expect]
            at += len(part)
            self._expect -= len(part)
            if not self._skipping:
                self._parts.append(part)
            if not self._expect:
                self._expect = -1
                self._take_kept(out)
        return out

    def _feed_nothing(self, data: bytes) -> list[Message]:
        return []


def _content_length(header: bytes) -> int:
    for line in header.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit() and len(value) < 20:
            return int(value)
    return -1
