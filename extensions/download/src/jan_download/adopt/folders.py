"""A bounded look through folders for files of one exact size, where names say nothing."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .reading import is_file

__all__ = ["Search", "unfinished"]

_DEEPEST = 10
_HASH = re.compile(r"(?i)(?:sha256[-:])?([0-9a-f]{64})")
_UNFINISHED = re.compile(
    r"(?i)(\.(incomplete|part|partial|tmp|temp|adopt|download|downloading|downloadinprogress|crdownload|aria2|lock)"
    r"|-partial(-\d+)?)$"
)


def unfinished(name: str) -> bool:
    """Whether a file's name is that of something still being fetched, as one program or another writes it."""
    return _UNFINISHED.search(name) is not None


class Search:
    """A look for the content `sha256` of `size` bytes in any number of folders, within one budget.

    It ends `seconds` after it began, or after `entries` names, whichever comes first. Links are followed, each folder
    is entered once, and each file comes once whatever its names. What cannot be read is passed over.
    """

    def __init__(
        self,
        sha256: str,
        size: int,
        *,
        seconds: float,
        entries: int = 200_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sha256, self._size = sha256, size
        self._left, self._clock, self._seconds = entries, clock, seconds
        self._deadline = float("inf")
        self._seen: set[tuple[int, int]] = set()

    def leave_out(self, path: Path) -> None:
        """Do not enter this folder, and do not name this file."""
        self._is_new(path)

    def below(self, folder: Path) -> Iterator[Path]:
        """Files of that size below a folder, at most 10 levels down."""
        self._deadline = min(self._deadline, self._clock() + self._seconds)
        waiting = [(folder, 0)]
        while waiting and not self._exhausted():
            here, depth = waiting.pop()
            if not self._is_new(here):
                continue
            for entry in self._entries(here):
                try:
                    if entry.is_dir():
                        waiting += [(Path(entry.path), depth + 1)] if depth < _DEEPEST else []
                    elif self._fits(entry) and self._is_new(Path(entry.path)):
                        yield Path(entry.path)
                except OSError:
                    continue

    def _entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    self._left -= 1
                    if self._exhausted():
                        return
                    yield entry
        except OSError:
            return

    def _fits(self, entry: os.DirEntry[str]) -> bool:
        named = _HASH.fullmatch(entry.name)
        if unfinished(entry.name) or (named and named[1].lower() != self._sha256):
            return False  # a store that names its files by their hash says that this is another one
        if not entry.is_file() or entry.stat().st_size != self._size:
            return False
        return not is_file(Path(f"{entry.path}.aria2"))  # beside what aria2 has not finished

    def _is_new(self, path: Path) -> bool:
        """Whether this folder or file comes for the first time. Not by its name: links make many names of one."""
        try:
            status = path.stat()
        except (OSError, ValueError):  # of another program's file, and so any text at all
            return False
        identity = (status.st_dev, status.st_ino)
        if identity in self._seen:
            return False
        self._seen.add(identity)
        return True

    def _exhausted(self) -> bool:
        return self._left <= 0 or self._clock() > self._deadline
