"""The event stream of an answer (WHATWG HTML, 9.2.6), of bounded size: bytes in, the data of events out.

Only the field `data` means something in OpenAI's streams; comments, which some endpoints send to keep the connection
alive, and other fields are passed over. A library would do but for the bounds: those there are collect a line, and an
event, of any length.
"""

from __future__ import annotations

__all__ = ["LARGEST_EVENT", "EventParser", "EventTooLarge"]

LARGEST_EVENT = 1 << 20
"""Bytes: a chunk holds a few tokens, or at worst one whole tool call."""


class EventTooLarge(ValueError):
    """A line or an event is longer than LARGEST_EVENT."""


class EventParser:
    """Feed it the bytes of one response, cut anywhere."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._first = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that `chunk` completes. Raises EventTooLarge."""
        events: list[bytes] = []
        if not chunk:
            return events
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")  # the second half of a line's end
        self._after_cr = chunk.endswith(b"\r")
        *complete, rest = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in complete:
            if (event := self._end_of_line(bytes(self._line) + line)) is not None:
                events.append(event)
            self._line.clear()
        self._line += rest
        if len(self._line) + self._size > LARGEST_EVENT:
            raise EventTooLarge(f"an event is longer than {LARGEST_EVENT:,} bytes")
        return events

    def pending(self) -> bytes:
        """The data of an event that no blank line ended: what an endpoint leaves that ends its stream in haste."""
        line = bytes(self._line)
        return b"\n".join([*self._data, *([_value(line)] if line.startswith(b"data:") else [])])

    def _end_of_line(self, line: bytes) -> bytes | None:
        if self._first:
            line, self._first = line.removeprefix(b"\xef\xbb\xbf"), False
        if not line:
            event = b"\n".join(self._data) if self._data else None
            self._data.clear()
            self._size = 0
            return event
        if line == b"data" or line.startswith(b"data:"):
            self._data.append(_value(line))
            self._size += len(line)
            if self._size > LARGEST_EVENT:
                raise EventTooLarge(f"an event is longer than {LARGEST_EVENT:,} bytes")
        return None


def _value(line: bytes) -> bytes:
    return line[5:].removeprefix(b" ")
