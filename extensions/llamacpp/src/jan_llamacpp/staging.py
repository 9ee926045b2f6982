"""Files on their way into the store: together in a folder that counts for nothing until it is renamed."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from jan_core import StorageError

from .files import OnBytes, copy, link

__all__ = ["staged"]


@asynccontextmanager
async def staged(
    root: Path, files: dict[str, Path], share: bool, on_bytes: OnBytes
) -> AsyncIterator[tuple[Path, dict[str, str]]]:
    """A folder inside `root` with these files by their new names, shared or copied; gone at the end. And the SHA-256 of
    those that were copied, by their new names: who reads them anyway can say it.

    `on_bytes` counts over all of them. Raises StorageError, also for what fails with it inside the block.
    """
    import anyio

    stage = root / f".staging-{uuid.uuid4().hex}"
    try:
        sizes = {name: path.stat().st_size for name, path in files.items()}
        total, done = sum(sizes.values()), 0
        stage.mkdir(parents=True)
        hashes: dict[str, str] = {}
        for name, path in files.items():
            if not share or not await anyio.to_thread.run_sync(link, path, stage / name):
                _check_room(stage, total - done)
                hashes[name] = await copy(path, stage / name, sizes[name], partial(_of_all, on_bytes, done, total))
            done += sizes[name]
        yield stage, hashes
    except OSError as failure:
        raise StorageError(f"the model could not be stored: {failure.strerror or failure}") from failure
    finally:
        with anyio.CancelScope(shield=True):  # many gigabytes, perhaps: not on the event loop
            await anyio.to_thread.run_sync(partial(shutil.rmtree, stage, ignore_errors=True))


def _check_room(folder: Path, needed: int) -> None:
    """Raises StorageError where the disk has no room for `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(f"the model takes {needed} bytes, and the disk has {free} free", needed=needed, free=free)


def _of_all(on_bytes: OnBytes, before: int, total: int, done: int, _size: int) -> None:
    on_bytes(before + done, total)
