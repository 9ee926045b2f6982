"""A hub that is a folder: a share, a USB stick, the operator's own tree. It never leaves the folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from .fetching import NotThere, TooLarge, Unreachable

__all__ = ["FolderFetch", "folder_of"]


def folder_of(url: str) -> Path:
    """The folder that a `file://` address names. Raises Unreachable."""
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise Unreachable(f"{url} is not the address of a folder on this machine")
    return Path(url2pathname(parts.path))


class FolderFetch:
    """Reads below `folder`. What leads out of it, also by a symbolic link, counts as not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests = self.received = 0
        self.backoff = 0.0

    def __call__(self, path: str, limit: int, *, rare: bool = False) -> bytes:
        self.requests += 1
        try:
            content = self._read(path, limit)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            raise NotThere(f"{self.folder} has no {path}") from None
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            raise Unreachable(f"{self.folder}: {error}") from None
        self.received += min(len(content), limit)
        if len(content) > limit:
            raise TooLarge(f"{path} is larger than {limit} bytes")
        return content

    def _read(self, path: str, limit: int) -> bytes:
        if any(part in ("", ".", "..") or "\\" in part or ":" in part for part in path.split("/")):
            raise ValueError(path)
        home = self.folder.resolve(strict=True)
        file = home.joinpath(path).resolve(strict=True)
        if not file.is_relative_to(home):
            raise ValueError(path)
        # Without blocking: a pipe in the place of a file would otherwise never answer.
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError(path)
            return stream.read(limit + 1)
