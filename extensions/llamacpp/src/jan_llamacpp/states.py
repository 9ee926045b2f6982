"""The folders in which workers keep the KV state of conversations: one for each model, under `<data>/states`.

The workers write and read them (`worker/state.py`); here is only what happens to them when no worker is asked: they go
with the conversation, with the model, and with the setting that allows them.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from .worker.options import state_file

__all__ = ["StateFolders"]


class StateFolders:
    """`root`: the folder of all of them."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def of(self, model: str) -> Path:
        """The folder of a model's workers."""
        return self._root / model

    def forget_thread(self, thread: str) -> None:
        """Delete what is kept of a conversation, whatever model answered in it."""
        with suppress(OSError):
            for folder in self._root.iterdir():
                with suppress(OSError):
                    (folder / state_file(thread)).unlink()

    def forget_model(self, model: str) -> None:
        """Delete what a model's workers kept."""
        shutil.rmtree(self._root / model, ignore_errors=True)

    def forget_all(self) -> None:
        """Delete everything."""
        shutil.rmtree(self._root, ignore_errors=True)
