"""The hub as a release ships it: signed, and only what is current, so that a first start needs no network.

The folder looks like the tree (`signed.bundle` reads it), and is as trustworthy: all of it is signed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from jan_core import StorageError

from .errors import PublishInvalid, TreeDamaged
from .files import write
from .roles import DELEGATED
from .state import State, metadata_path, read, snapshot_path

__all__ = ["package"]


def package(tree: Path, folder: Path) -> list[str]:
    """Copy what is current to `folder`, which is made, or replaced when it holds such a copy. Answers the paths in it.

    All roots are in it: a client that was shipped with the first one gets to the last by them. Deltas and piece lists
    are not. Raises TreeUnknown, TreeDamaged, PublishInvalid, StorageError.
    """
    state = read(tree)
    if not state.version:
        raise PublishInvalid(f"Nothing was published in {tree} yet.", reason="not published")
    paths = _current(state)
    new = folder.with_name(f".{folder.name}.new")
    try:
        if folder.exists() and not (folder / metadata_path("timestamp", 0)).is_file() and any(folder.iterdir()):
            raise PublishInvalid(f"{folder} holds something else.", reason="not a package")
        shutil.rmtree(new, ignore_errors=True)
        for path in paths:
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            write(new / path, (tree / path).read_bytes())
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror or error}") from error
    return paths


def _current(state: State) -> list[str]:
    paths = [metadata_path("root", version) for version in state.roots]
    paths += [metadata_path(role, found.signed.version) for role, found in state.metadata.items() if role != "root"]
    for name in DELEGATED:
        target = state.target(name)
        if target is None:
            raise TreeDamaged(f"The hub publishes no {name}.", file=name, reason="not published")
        state.content(name)  # raises when it is not what is signed
        paths.append(snapshot_path(name, target.sha256))
    return sorted(paths)
