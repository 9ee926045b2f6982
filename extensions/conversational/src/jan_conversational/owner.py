"""Who is writing an answer, and whether they still live.

Several processes, and two generations of this extension in one process, may share a data folder. An answer
under way names its owner; an owner holds a lock on a file of its own for as long as it lives, and the system
releases it when the process dies, however it dies. So an answer that a crash cut short is told from one that
somebody is writing now, without time-outs and without trusting process numbers, which are used again.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from .locks import try_lock

__all__ = ["Owner"]

_TOKEN = re.compile("[0-9a-f]{32}")


class Owner:
    """This generation, as an owner of answers under way. Raises OSError when its file cannot be made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.token = os.urandom(16).hex()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        self._descriptor = self._claim()

    def is_alive(self, token: str) -> bool:
        """Whether the owner of this token (this one or another) lives."""
        if token == self.token:
            return self._descriptor >= 0
        if not _TOKEN.fullmatch(token):
            return False
        try:
            descriptor = os.open(self._path(token), os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            return not try_lock(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Live no more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            with suppress(OSError):
                self._path(self.token).unlink()

    def _path(self, token: str) -> Path:
        return self._folder / f"{token}.lock"

    def _claim(self) -> int:
        while True:
            descriptor = os.open(self._path(self.token), os.O_RDWR | os.O_CREAT, 0o600)
            # Between opening and locking, another process's sweep may have taken the file for a dead one's.
            with suppress(FileNotFoundError):
                if try_lock(descriptor) and os.path.samestat(os.fstat(descriptor), self._path(self.token).stat()):
                    return descriptor
            os.close(descriptor)

    def _sweep(self) -> None:
        """Remove the files of the dead."""
        for path in self._folder.glob("*.lock"):
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDWR)
                try:
                    dead = try_lock(descriptor)
                    if dead and os.name != "nt":  # Windows does not remove open files
                        path.unlink()
                finally:
                    os.close(descriptor)
                if dead and os.name == "nt":
                    path.unlink()
