"""The pages of mapped model files that this process holds.

What llama.cpp rewrites for the CPU as it loads a model is read from the mapped file once and never again; yet its pages
stay with the process, and count as its memory, until the system is short of it. Here they are given back. A page that
is used after all comes back from the system's cache of the file.

Linux only: elsewhere the system does not tell what is mapped where, or takes `madvise` for a hint.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
from pathlib import Path

__all__ = ["give_back"]

MADV_DONTNEED = 4  # Linux's
# Shared and read only: nothing can be lost. `7f0c5a000000-7f0c6b000000 r--s 00000000 fe:00 1234   /a/model.gguf`
_MAPPING = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) r--s \S+ \S+ \S+ +(/.*)$", re.MULTILINE)


def give_back(model: Path) -> int:
    """Let go of the mapped pages of a model's files, which lie in one folder. Returns the bytes that were mapped."""
    if sys.platform != "linux":
        return 0
    folder = model.resolve().parent
    libc, mapped = ctypes.CDLL(None), 0
    with contextlib.suppress(OSError):
        for begin, end, name in _MAPPING.findall(Path("/proc/self/maps").read_bytes()):
            if Path(os.fsdecode(name)).parent == folder:
                start, size = int(begin, 16), int(end, 16) - int(begin, 16)
                libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), MADV_DONTNEED)
                mapped += size
    return mapped
