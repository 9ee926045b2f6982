"""Frames on a byte pipe: a u32 little-endian length, then that many bytes.

Used by both sides. Knows nothing of what a frame holds, and does no input or output.
"""

from __future__ import annotations

__all__ = ["MAX_FRAME", "FrameDecoder", "FrameError", "frame"]

MAX_FRAME = 32 * 1024 * 1024
"""Bytes one frame may hold (the wire's own message limit): more is a broken or hostile peer."""


class FrameError(ValueError):
    """A frame is longer than the limit. The stream cannot be read any further."""


def frame(body: bytes, limit: int = MAX_FRAME) -> bytes:
    """`body` with its length in front. Raises FrameError when it is longer than `limit` bytes."""
    if len(body) > limit:
        raise FrameError(f"a frame of {len(body)} bytes is longer than the limit of {limit}")
    return len(body).to_bytes(4, "little") + body


class FrameDecoder:
    """Cuts a stream of bytes into frames, however the pipe split them.

    Holds at most one incomplete frame, so at most `limit` bytes plus one read.
    """

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes, oldest first. Raises FrameError at a length over the limit."""
        buffer = self._buffer
        buffer += data
        frames, start = [], 0
        while len(buffer) - start >= 4:
            size = int.from_bytes(buffer[start : start + 4], "little")
            if size > self._limit:
                raise FrameError(f"a frame announces {size} bytes; the limit is {self._limit}")
            end = start + 4 + size
            if len(buffer) < end:
                break
            frames.append(bytes(buffer[start + 4 : end]))
            start = end
        del buffer[:start]
        return frames

    @property
    def incomplete(self) -> bool:
        """True when the stream stands in the middle of a frame."""
        return bool(self._buffer)
