"""The SHA-256 of a file that is there, in one go. What hashes a file while it is written is `watermark`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

__all__ = ["sha256_of"]

_BLOCK = 1 << 20


def sha256_of(
    path: Path,
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda done: None,
) -> str:
    """The SHA-256 of a file; "" when `stopped` answered true first. `progress` gets the bytes done, every 1 MiB.

    Raises OSError.
    """
    import hashlib

    digest, done = hashlib.sha256(), 0
    block = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while not stopped():
            count = file.readinto(block)
            if not count:
                return digest.hexdigest()
            digest.update(block[:count])
            done += count
            progress(done)
    return ""
