"""Taking a file of another program in: cloned, else hard-linked, else copied; and believed only once it is hashed.

It stands as `store.adoption(key)` then, which is never written to: a hard link is the other program's file itself.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from jan_core.types import AdoptedFile

from ..storage.durable import make_folder, sync_file, sync_folder
from ..storage.linking import clone
from .finder import known_hashes

if TYPE_CHECKING:
    from ..storage.store import Store

__all__ = ["take"]

_BLOCK = 1 << 20
_STEP = 64 << 20


def take(
    copy: AdoptedFile,
    store: Store,
    key: str,
    sha256: str,
    size: int,
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda done: None,
    *,
    reserve: int = 0,
    also: Callable[[memoryview], None] = lambda data: None,
) -> bool:
    """Whether the file is `sha256`, and stands, on the disk, as `store.adoption(key)`; blocks.

    False, and nothing is left of it: it is another file, changes meanwhile, cannot be read, there is no room for a
    copy that leaves `reserve` bytes free, or `stopped` answered true. `size` 0: unknown. `progress` gets bytes done,
    every 64 MiB; `also` all that is hashed. Raises OSError when the store's own disk fails.
    """
    path, target = Path(copy.path), store.adoption(key)
    make_folder(target.parent)
    target.unlink(missing_ok=True)
    taken = False
    try:
        taken = _take(path, target, store, sha256, size, stopped, progress, reserve, also)
        if taken:
            sync_file(target)
            sync_folder(target.parent)
    finally:
        if not taken:
            target.unlink(missing_ok=True)
    return taken


def _take(
    path: Path,
    target: Path,
    store: Store,
    sha256: str,
    size: int,
    stopped: Callable[[], bool],
    progress: Callable[[int], None],
    reserve: int,
    also: Callable[[memoryview], None],
) -> bool:
    try:
        before = path.stat()
        real = path.resolve()  # a link to it is no file to link
        if not stat.S_ISREG(before.st_mode) or size not in (0, before.st_size):
            return False  # told before it is opened: opening a pipe waits for whoever writes it
        source = real.open("rb", buffering=0)
    except (OSError, ValueError):
        return False
    with source:
        if clone(real, target) or _linked(real, target):
            with target.open("rb", buffering=0) as mine:
                actual = _digest(mine, None, stopped, progress, also)
        elif store.free() - reserve >= before.st_size:
            with target.open("xb", buffering=0) as new:
                actual = _digest(source, new, stopped, progress, also)
        else:
            return False
    try:
        after = real.stat()
    except OSError:
        return False
    if not actual or _state(before) != _state(after) or target.stat().st_size != before.st_size:
        return False  # stopped, or it cannot be read, or somebody writes it still
    known_hashes(store).note(path, before, actual)
    return actual == sha256


def _linked(path: Path, target: Path) -> bool:
    try:
        os.link(path, target)
    except OSError:  # another disk, a file system without links, a file that is not ours to link
        return False
    return True


def _digest(
    source: FileIO,
    copy: FileIO | None,
    stopped: Callable[[], bool],
    progress: Callable[[int], None],
    also: Callable[[memoryview], None],
) -> str:
    """The SHA-256 of what is read, and written to `copy`; "" when stopped, or when it cannot be read."""
    digest, done, shown = hashlib.sha256(), 0, 0
    buffer = memoryview(bytearray(_BLOCK))
    while True:
        try:
            count = source.readinto(buffer)
        except OSError:
            return ""
        if not count:
            break
        if stopped():
            return ""
        digest.update(buffer[:count])
        also(buffer[:count])
        if copy is not None:
            _write(copy, buffer[:count])
        done += count
        if done - shown >= _STEP:
            shown = done
            progress(done)
    progress(done)
    return digest.hexdigest()


def _write(file: FileIO, view: memoryview) -> None:
    while view:
        view = view[file.write(view) :]


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino
