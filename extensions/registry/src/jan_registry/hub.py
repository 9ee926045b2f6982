"""The hub the settings name: where its state lies, and whose keys it must be signed with.

It does not decide when the hub is asked (`refresh.py`) nor what is shown (`catalogue.py`).
"""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

from jan_core import StorageError

from .errors import RegistryRefused
from .settings import RegistrySettings
from .signed.store import HubStore

__all__ = ["Hub", "hub_of", "prune"]

_KEEP = 4
_MAX_ROOT = 512_000


class Hub:
    """One hub under one root of trust. Another address or another root is another hub, with nothing in common."""

    def __init__(self, url: str, root: bytes, folder: Path) -> None:
        self.url, self.root = url, root
        digest = hashlib.sha256(url.encode() + b"\0" + root).hexdigest()
        self.store = HubStore(folder / "hubs" / digest[:16])


def hub_of(settings: RegistrySettings, folder: Path, shipped: bytes | None) -> Hub | None:
    """The hub that is named; None when none is. `shipped` is the root that came with the program.

    Raises RegistryRefused when there is no root to trust.
    """
    if not settings.url:
        return None
    if settings.root:
        path = Path(settings.root).expanduser()
        try:
            if not path.is_file():  # a pipe would be waited for
                raise FileNotFoundError(errno.ENOENT, "there is no such file")
            with path.open("rb") as file:
                root: bytes | None = file.read(_MAX_ROOT + 1)
        except OSError as error:
            raise RegistryRefused(
                f"registry.root: {path} cannot be read: {error.strerror or error}", kind="no_root"
            ) from None
    else:
        root = shipped
    if not root or len(root) > _MAX_ROOT:
        raise RegistryRefused("there is no root metadata to trust: set registry.root", kind="no_root")
    return Hub(settings.url.rstrip("/") + "/", root, folder)


def prune(folder: Path, keep: Path) -> None:
    """Forget the lists of the hubs that were not used for longest. Raises StorageError."""
    try:
        others = [path for path in (folder / "hubs").iterdir() if path != keep and (path / "hub.db").is_file()]
        others.sort(key=lambda path: (path / "hub.db").stat().st_mtime, reverse=True)
    except OSError as error:
        raise StorageError(f"{folder}: {error}") from error
    for path in others[_KEEP - 1 :]:
        store = HubStore(path)
        try:
            if store.state("models") is not None:
                store.forget()
        finally:
            store.close()
