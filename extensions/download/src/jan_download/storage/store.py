"""The folders of the data folder, and how a file goes from one to the next.

`partial/` has what is on its way (`<key>.part`) and what is being taken over from elsewhere (`<key>.adopt`);
`blobs/sha256/aa/` whole files, named by the hash that was computed of their bytes, and nothing else; `files/` the names
that people see, made only for blobs. Which job has which file is not known here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from ..errors import DownloadConflict
from .durable import make_folder, sync_file, sync_folder
from .hashing import sha256_of
from .linking import give_name, is_name_of
from .partial import Partial

__all__ = ["Store"]


class Store:
    """The extension's data folder. Names passed in were checked by `names.file_name`; keys are a SHA-256 or a job's id.

    One process at a time may move files: the one that holds the folder's lock. Raises OSError throughout.
    """

    def __init__(self, root: Path) -> None:
        self.files = root / "files"
        self.partials = root / "partial"
        self.blobs = root / "blobs" / "sha256"
        self.root = root

    # -- where things are ----------------------------------------

    def blob(self, sha256: str) -> Path:
        return self.blobs / sha256[:2] / sha256

    def partial(self, key: str) -> Path:
        return self.partials / f"{key}.part"

    def adoption(self, key: str) -> Path:
        """Where a file of another program is taken to. It may be that file itself: nothing ever writes to it."""
        return self.partials / f"{key}.adopt"

    def final(self, destination: str) -> Path:
        return self.files / destination

    def free(self) -> int:
        """Bytes an ordinary user may still write on this disk."""
        return shutil.disk_usage(self._existing()).free

    def capacity(self) -> int:
        """Bytes of the whole disk."""
        return shutil.disk_usage(self._existing()).total

    def held(self, key: str) -> int:
        """Bytes of the disk that a partial file has taken already; they are not among those that are free."""
        try:
            return _taken(self.partial(key).stat())
        except FileNotFoundError:
            return 0

    # -- from partial to blob to name ----------------------------------------

    def open_partial(self, key: str, size: int = 0) -> Partial:
        """Open the partial file, or begin it, with room for `size` bytes (0: not known)."""
        return Partial(self.partial(key), size)

    def publish(self, key: str, sha256: str) -> Path:
        """Make a partial file the blob of its hash, durably. Nobody may have it open. Doing it again does nothing."""
        return self._to_blob(self.partial(key), sha256)

    def adopt(self, key: str, sha256: str) -> Path:
        """Make the adopted file the blob of its hash, durably, as `publish` does."""
        return self._to_blob(self.adoption(key), sha256)

    def name(self, sha256: str, destination: str) -> Path:
        """Give a blob its name in `files/`, durably; returns it. Doing it again does nothing.

        Raises DownloadConflict when another file has the name, FileNotFoundError without a blob.
        """
        blob, final = self.blob(sha256), self.final(destination)
        if is_name_of(final, blob):
            return final
        try:
            give_name(blob, final, self.partials / f"{sha256}.copy")
        except FileExistsError:
            if not _same_content(blob, final, sha256):
                raise DownloadConflict(
                    f"there is another file {destination} already", destination=destination
                ) from None
        return final

    def withdraw(self, sha256: str, key: str, destinations: Iterable[str] = ()) -> None:
        """Take a damaged blob out of use: its names go, and it becomes the partial file `key` again, the same inode.

        `destinations`: names it may have as a copy, which nothing shows; links are found.
        """
        blob = self.blob(sha256)
        _unlink({*self._names_of(blob), *map(self.final, destinations)})  # first: nothing damaged under a name
        make_folder(self.partials)
        with contextlib.suppress(FileNotFoundError):  # done before
            blob.replace(self.partial(key))
            sync_folder(self.partials)
            sync_folder(blob.parent)

    # -- what goes ----------------------------------------

    def discard(self, key: str) -> int:
        """Remove a partial file and what was being adopted, if there is any; returns the bytes that are free now."""
        return _unlink((self.partial(key), self.adoption(key)))

    def sweep(self, keep: Collection[str], older_than: float) -> int:
        """Remove partial files whose key is not in `keep` and that nobody has written for `older_than` seconds; returns
        how many. What is being copied or adopted is left alone."""
        now, gone = time.time(), 0
        for path in self.partials.glob("*.part"):
            with contextlib.suppress(FileNotFoundError):
                if path.stem not in keep and now - path.stat().st_mtime >= older_than:
                    path.unlink()
                    gone += 1
        return gone

    def clear_unfinished(self) -> None:
        """Remove copies and adoptions that were not finished. For the start: whatever is under way ends by this."""
        _unlink([path for path in self.partials.glob("*") if path.suffix in (".adopt", ".copy")])

    def release(self, sha256: str, destinations: Iterable[str], *, keep_blob: bool = False) -> int:
        """Remove names and, without `keep_blob`, the blob; returns the bytes of the disk that are free because of it.

        Other names stay, and so does the blob where they are symbolic links to it. A file that has a further name
        somewhere frees nothing. Blocks shared with a clone are counted all the same: file systems do not tell.
        """
        blob, names = self.blob(sha256), {self.final(destination) for destination in destinations}
        if not keep_blob and not any(name.is_symlink() and name not in names for name in self._names_of(blob)):
            names.add(blob)
        return _unlink(names)

    def remove(self, sha256: str, destinations: Iterable[str]) -> int:
        """Remove a blob that is no good, and every name it has; returns the bytes of the disk that are free.

        `destinations`: names it may have as a copy, which nothing shows; links are found.
        """
        blob = self.blob(sha256)
        return _unlink({*self._names_of(blob), *map(self.final, destinations)}) + _unlink([blob])

    def let_go(self, sha256: str, destination: str) -> None:
        """Leave the file under its name, as an ordinary file, and forget the blob."""
        blob, final = self.blob(sha256), self.final(destination)
        if not blob.is_file():
            return
        if final.is_symlink() or not final.exists():
            make_folder(final.parent)
            blob.replace(final)
            sync_folder(final.parent)
        else:
            blob.unlink()
        sync_folder(blob.parent)

    # -- within ----------------------------------------

    def _existing(self) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)
        return self.root

    def _to_blob(self, path: Path, sha256: str) -> Path:
        blob = self.blob(sha256)
        make_folder(blob.parent)
        try:
            sync_file(path)
        except FileNotFoundError:
            if blob.is_file():
                return blob
            raise
        path.replace(blob)
        sync_folder(blob.parent)
        sync_folder(path.parent)
        return blob

    def _names_of(self, blob: Path) -> Iterator[Path]:
        with contextlib.suppress(FileNotFoundError):
            for path in self.files.iterdir():
                if is_name_of(path, blob):
                    yield path


def _unlink(paths: Collection[Path]) -> int:
    """Remove files, durably; returns what those gave back of which it was the last name."""
    freed = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            path.unlink()
            if status.st_nlink == 1 and stat.S_ISREG(status.st_mode):
                freed += _taken(status)
    for folder in {path.parent for path in paths}:
        with contextlib.suppress(FileNotFoundError):
            sync_folder(folder)
    return freed


def _taken(status: os.stat_result) -> int:
    return status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size


def _same_content(blob: Path, final: Path, sha256: str) -> bool:
    """Whether a file that is no link to the blob is a copy of it."""
    return final.is_file() and final.stat().st_size == blob.stat().st_size and sha256_of(final) == sha256
