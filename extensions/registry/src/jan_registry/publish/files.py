"""Writing a tree so that whoever reads it meanwhile, and whoever is killed meanwhile, leaves or finds one whole state.

New files are written and synced in `.staged/`, then a list of where they go; from that moment on the change happens,
if not by this process then by the next one that publishes (`recover`). Each is put in place by a rename, in the order
given, so that what makes the others visible can come last. Files that nothing refers to stay for a while: somebody may
have read an hour ago that they are there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from jan_core import StorageError

from .errors import PublishBusy, TreeDamaged
from .reading import contents

__all__ = ["Staging", "differs", "exclusive", "interrupted", "on_disk", "prune", "recover", "write"]

_STAGED, _ORDER, _LOCK, _UNREFERENCED = ".staged", "order.json", ".publish.lock", ".unreferenced.json"
SERVED = ("metadata", "targets", "deltas")
"""The folders of a tree that clients read."""
_STRANGE = frozenset("\\:\0")
"""What no path in a tree has: on Windows these lead elsewhere."""
_LONGEST = 64 << 20


@contextlib.contextmanager
def exclusive(tree: Path) -> Iterator[None]:
    """Hold the tree's lock; the system frees it when the process dies. Raises PublishBusy at once, and as `on_disk`."""
    from filelock import FileLock, Timeout

    with on_disk(tree):
        tree.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(tree / _LOCK, timeout=0):
                yield
        except Timeout as error:
            raise PublishBusy(f"Somebody else is publishing to {tree} at this moment.", tree=str(tree)) from error


@contextlib.contextmanager
def on_disk(tree: Path) -> Iterator[None]:
    """Raises StorageError for whatever the disk refuses inside the block."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{tree}: {error.strerror or error}") from error


class Staging:
    """Files to come, in the order in which they will appear."""

    def __init__(self, tree: Path) -> None:
        self._tree, self._folder = tree, tree / _STAGED
        self._order: list[str] = []
        self.size = 0
        """Bytes of the files that are new."""

    def put(self, path: str, content: bytes) -> None:
        """`path` is relative to the tree, with `/`. A file that is there already with this content stays as it is."""
        if not differs(self._tree / path, content):
            return
        staged = self._folder / str(len(self._order))
        with self._or_nothing():
            self._folder.mkdir(exist_ok=True)
            _write_synced(staged, content)
            staged.chmod(0o644)  # public, however private the files of whoever publishes are
        self._order.append(path)
        self.size += len(content)

    def commit(self) -> None:
        if not self._order:
            return
        with self._or_nothing():
            write(self._folder / _ORDER, msgspec.json.encode(self._order))
        _sync_folder(self._tree)
        _roll_forward(self._tree)

    @contextlib.contextmanager
    def _or_nothing(self) -> Iterator[None]:
        """Until it is decided, a full disk gets back what was staged."""
        try:
            yield
        except OSError:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise


def differs(path: Path, content: bytes) -> bool:
    """Whether there is no such file with this content."""
    return not (path.is_file() and path.read_bytes() == content)


def recover(tree: Path) -> None:
    """Finish what was interrupted after it was decided, drop what was interrupted before. Raises TreeDamaged for work
    that no publication left: what it names may lie outside the tree."""
    staged = tree / _STAGED
    for name in (_STAGED, *SERVED):
        if (tree / name).is_symlink():
            raise _damaged(name, "it is a link, and a publication makes none")
    if (staged / _ORDER).is_file():
        _roll_forward(tree)
    elif staged.is_dir():
        shutil.rmtree(staged)


def interrupted(tree: Path) -> bool:
    """Whether there is something for `recover` to do (or somebody publishes at this moment)."""
    return (tree / _STAGED).is_dir()


def write(path: Path, content: bytes) -> None:
    """Replace one file; who reads it sees the old or the new one."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        _write_synced(temporary, content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def prune(tree: Path, referenced: Collection[str], *, now: float, grace: float) -> list[str]:
    """Delete the files below metadata/, targets/ and deltas/ that nothing has referred to for `grace` seconds. Answers
    what it deleted."""
    memory = tree / _UNREFERENCED
    try:
        since = msgspec.json.decode(contents(memory, _LONGEST), type=dict[str, float])
    except (OSError, ValueError):
        since = {}  # what it knew is learnt again: files stay longer, that is all
    found = {
        path.relative_to(tree).as_posix()
        for folder in SERVED
        for path in (tree / folder).rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    left_over = {path: min(since.get(path, now), now) for path in sorted(found.difference(referenced))}
    dead = [path for path, at in left_over.items() if now - at > grace]
    for path in dead:
        (tree / path).unlink(missing_ok=True)
        del left_over[path]
    if left_over != since:
        with contextlib.suppress(OSError):  # on a full disk, say: what was published is published all the same
            write(memory, msgspec.json.encode(left_over))
    return dead


def _roll_forward(tree: Path) -> None:
    staged = tree / _STAGED
    order = _order(tree)
    folders = {parent for path in order for parent in (tree / path).parents if parent.is_relative_to(tree)}
    for folder in sorted(folders - {tree}):
        if not folder.is_dir():
            folder.mkdir()
            folder.chmod(0o755)
    for number, path in enumerate(order):
        source = staged / str(number)
        if number == len(order) - 1:
            for folder in folders:
                _sync_folder(folder)  # what the last file makes visible must be there after a power cut, too
        if source.exists():  # else an earlier attempt has moved it already
            source.replace(tree / path)
    _sync_folder((tree / order[-1]).parent)
    (staged / _ORDER).unlink()
    shutil.rmtree(staged)


def _order(tree: Path) -> list[str]:
    """Where the staged files go. The list may have come with a copy of the folder from somebody else: it must not lead
    out of what is served, nor bring anything but plain files there."""
    staged = tree / _STAGED
    name = f"{_STAGED}/{_ORDER}"
    try:
        order = msgspec.json.decode(contents(staged / _ORDER, _LONGEST), type=list[str])
    except ValueError as error:
        raise _damaged(name, f"it is unreadable: {error}") from error
    home = tree.resolve()
    for number, path in enumerate(order):
        first, *rest = parts = path.split("/")
        if first not in SERVED or not rest or any(part in ("", ".", "..") or set(part) & _STRANGE for part in parts):
            raise _damaged(name, f"it names {path[:200]!r}, which is nothing that is served")
        target, source = tree / path, staged / str(number)
        if not target.parent.resolve().is_relative_to(home) or target.is_symlink() or target.is_dir():
            raise _damaged(path, "a link or a folder is in its place")
        if source.is_symlink() or (source.exists() and not source.is_file()):
            raise _damaged(f"{_STAGED}/{number}", "it is not a plain file")
    if not order:
        raise _damaged(name, "it names nothing")
    return order


def _damaged(path: str, reason: str) -> TreeDamaged:
    message = f"The hub is damaged: {path}: {reason}."
    if path.startswith(_STAGED):
        message += f" No publication left this: look at {_STAGED} in the tree, and delete it."
    return TreeDamaged(message, file=path, reason=reason)


def _write_synced(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # it is a temporary one; were it a link, its target would be written
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # a folder cannot be opened there
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
