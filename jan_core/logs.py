"""The log file: how a line is written, and finding those of one extension again.

A line belongs to an extension when its logger is `jan.<id>` (the context's, and the host's own for what concerns it) or
one of the extension's modules. What follows without a head of its own (a traceback) belongs to the line before.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from .package import top

__all__ = ["file_handler", "log_file", "logger_of", "tail"]

FORMAT = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
_HEAD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \d+ [A-Z]+ (\S+): ")

MOST_BYTES = 1 << 20
"""Of one log file; three older ones are kept."""


def logger_of(id: str) -> logging.Logger:
    """Where what concerns an extension is logged: by itself (`ctx.log`), and by the host about it."""
    return logging.getLogger(f"jan.{id}")


def log_file(data_dir: Path) -> Path:
    """Where the log of a data folder is."""
    return data_dir / "logs" / "jan.log"


def file_handler(data_dir: Path) -> logging.Handler:
    """Writes the log of a data folder. Raises OSError."""
    import logging.handlers

    path = log_file(data_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=MOST_BYTES, backupCount=3, encoding="utf-8", delay=True
    )
    handler.setFormatter(logging.Formatter(FORMAT))
    return handler


def tail(data_dir: Path, id: str, package: str, lines: int) -> list[str]:
    """The last lines that concern an extension, oldest first."""
    path = log_file(data_dir)
    kept: deque[str] = deque(maxlen=lines)
    for file in [*reversed([path.with_name(f"{path.name}.{n}") for n in (1, 2, 3)]), path]:
        try:
            with file.open(encoding="utf-8", errors="replace") as opened:
                kept.extend(Concerned(id, package).filter(opened))
        except FileNotFoundError:
            continue
    return list(kept)


class Concerned:
    """Picks out the lines of one extension; keeps between calls whether it is inside one."""

    def __init__(self, id: str, package: str) -> None:
        self._logger, self._package = logger_of(id).name, package
        self._inside = False

    def filter(self, lines: Iterator[str]) -> Iterator[str]:
        """Those of `lines` that concern it, without their line ends."""
        for line in lines:
            if head := _HEAD.match(line):
                name = head[1]
                self._inside = name == self._logger or name.startswith(self._logger + ".") or top(name) == self._package
            if self._inside:
                yield line.rstrip("\r\n")


class Follower:
    """Reads what is added to the log after now, across its rotation."""

    def __init__(self, data_dir: Path, id: str, package: str) -> None:
        self._path, self._concerned = log_file(data_dir), Concerned(id, package)
        self._inode, self._offset = self._stat(self._path)
        self._rest = b""

    def _stat(self, path: Path) -> tuple[int, int]:
        try:
            stat = path.stat()
        except FileNotFoundError:
            return 0, 0
        return stat.st_ino, stat.st_size

    def read(self) -> list[str]:
        """The lines that were added since the last call. Raises OSError."""
        inode, size = self._stat(self._path)
        text = self._rest
        if inode != self._inode or size < self._offset:
            before = self._path.with_name(f"{self._path.name}.1")  # where it was moved to; its end has not been read
            if self._stat(before)[0] == self._inode:
                text += self._added(before)
            self._inode, self._offset = inode, 0
        if size > self._offset:
            text += self._added(self._path)
        *lines, self._rest = text.split(b"\n")  # bytes, for what is being written may end within a character
        return list(self._concerned.filter(line.decode(errors="replace") for line in lines))

    def _added(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                file.seek(self._offset)
                added = file.read()
                self._offset = file.tell()
        except FileNotFoundError:  # moved away just now
            return b""
        return added
