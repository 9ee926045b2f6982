"""What every part needs: a folder on the disk that is written to, a file with its server, how thoroughly to measure."""

from __future__ import annotations

import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import content
from client import NotTakenError
from content import Content
from machine import Load
from report import figure
from web import Web

__all__ = ["GB", "MIB", "Kit", "NotTakenError", "say"]

GB = 1e9
MIB = 1 << 20


@dataclass
class Kit:
    """`folder` is for everything that is made. `size` of the file that is downloaded, `huge` of the one that memory is
    measured with, in MiB; `kills`: how often a process is killed."""

    folder: Path
    size: int
    huge: int
    runs: int
    kills: int
    quick: bool = False
    _stack: ExitStack = field(default_factory=ExitStack)
    _folders: int = 0

    @cached_property
    def content(self) -> Content:
        """The file; made the first time."""
        return self.noise(self.size)

    @cached_property
    def web(self) -> Web:
        """Its server. Raises NotTakenError without nginx."""
        return self.serve(self.content)

    def noise(self, size: int) -> Content:
        """A file of so many MiB. Raises NotTakenError when there is no room for some of them."""
        self.room(4 * size)
        say(f"making a file of {size:,} MiB")
        return content.noise(self.fresh("content") / "model.bin", size * MIB)

    def serve(self, what: Content) -> Web:
        """An nginx for it, until `close`."""
        return self._stack.enter_context(Web(self.fresh("nginx") / "state", what))

    def fresh(self, name: str) -> Path:
        """A folder that nobody else has."""
        self._folders += 1
        path = self.folder / f"{self._folders}-{name}"
        path.mkdir()
        return path

    def room(self, size: int) -> None:
        """Raises NotTakenError when the disk has less than so many MiB, and two GiB to spare."""
        free = shutil.disk_usage(self.folder).free // MIB
        if free < size + 2048:
            raise NotTakenError(f"{size:,} MiB and 2 GiB to spare are needed in {self.folder}, {free:,} MiB are free")

    def close(self) -> None:
        self._stack.close()

    def busy(self, load: Load) -> str:
        """A note on what else the machine did."""
        return f"busy with other work: {figure(load.cores())} cores"


def say(text: str) -> None:
    """Tell who waits what is being done."""
    print(text, file=sys.stderr, flush=True)
