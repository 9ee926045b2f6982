"""The worker's end of the pipe: private copies of fd 0 and 1, so that no print can touch the frames.

llama.cpp, ggml and whatever they load write to stdout when they like. After `claim` fd 1 leads to stderr and
fd 0 to the null device. Untested on Windows (there the standard *handles* are not moved, only the C
descriptors).
"""

from __future__ import annotations

import os
import sys
import threading

from .frames import frame
from .protocol import FromWorker, encode

__all__ = ["Pipe", "claim"]


def claim() -> tuple[int, int]:
    """Take the pipe. Returns private descriptors to read from and to write to. Call it before anything can
    print.
    """
    reader, writer = os.dup(0), os.dup(1)  # not inheritable (PEP 446)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(reader, os.O_BINARY)
        msvcrt.setmode(writer, os.O_BINARY)
    return reader, writer


class Pipe:
    """Writes whole frames, from any thread. A host that does not read makes `send` wait: it always reads."""

    def __init__(self, writer: int) -> None:
        self._writer = writer
        self._lock = threading.Lock()

    def send(self, message: FromWorker) -> None:
        """Raises OSError when the host is gone."""
        data = memoryview(frame(encode(message)))
        with self._lock:
            while data:
                data = data[os.write(self._writer, data) :]
