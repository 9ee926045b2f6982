"""A second name for a file: the same file where that can be, something that costs as little as possible otherwise.

Nothing that is there is ever replaced, and a name appears only with the whole content behind it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path

from .durable import make_folder, sync_file, sync_folder

__all__ = ["clone", "give_name", "is_name_of"]

_FICLONE = 0x40049409
_BLOCK = 1 << 20


def is_name_of(path: Path, file: Path) -> bool:
    """Whether `path` is `file` under another name: a hard link or a symbolic one. A copy is not."""
    try:
        return path.samefile(file)
    except OSError:
        return False


def give_name(file: Path, name: Path, scratch: Path) -> str:
    """Give `file` the further name `name`, durably: hard link > reflink > symbolic link > copy; returns which it was.

    `scratch`: where a reflink or copy grows, on the same disk. Raises FileExistsError when the name is taken,
    FileNotFoundError, OSError.
    """
    if not file.is_file():
        raise FileNotFoundError(file)
    make_folder(name.parent)
    how = _link(file, name) or _cloned(file, name, scratch) or _symlink(file, name) or _copied(file, name, scratch)
    sync_folder(name.parent)
    return how


def clone(file: Path, copy: Path) -> bool:
    """Make a copy that shares its blocks with `file` until one of the two is written (FICLONE of Linux); False, and no
    file, where the file system cannot."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        with file.open("rb") as source, copy.open("xb") as target:
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except FileExistsError:
        raise
    except OSError:
        copy.unlink(missing_ok=True)
        return False
    return True


def _link(file: Path, name: Path) -> str:
    try:
        os.link(file, name)
    except FileExistsError:
        raise
    except OSError:  # a file system without links, too many of them, or a file of somebody else
        return ""
    return "hard link"


def _cloned(file: Path, name: Path, scratch: Path) -> str:
    make_folder(scratch.parent)
    scratch.unlink(missing_ok=True)
    if not clone(file, scratch):
        return ""
    _move(scratch, name)
    return "reflink"


def _symlink(file: Path, name: Path) -> str:
    target = Path(os.path.relpath(file, name.parent))
    try:
        name.symlink_to(target)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # Windows asks for a privilege, FAT has none
        return ""
    return "symbolic link"


def _copied(file: Path, name: Path, scratch: Path) -> str:
    scratch.unlink(missing_ok=True)
    try:
        with file.open("rb") as source, scratch.open("xb") as target:
            shutil.copyfileobj(source, target, _BLOCK)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    _move(scratch, name)
    return "copy"


def _move(scratch: Path, name: Path) -> None:
    """Give a finished file its name without replacing another."""
    sync_file(scratch)
    try:
        os.link(scratch, name)
    except FileExistsError:
        scratch.unlink()
        raise
    except OSError:
        if name.exists() or name.is_symlink():
            scratch.unlink()
            raise FileExistsError(name) from None
        scratch.rename(name)
    with contextlib.suppress(FileNotFoundError):
        scratch.unlink()
