"""Keys of remote engines: in the system's keyring, or in a file of their owner's alone. Never in the settings.

A key is kept together with the origin (scheme, host, port) it was given for. Whoever changes an engine's address in the
settings does not get the key sent there: it is given anew for the new one.

The keyring is the library `keyring`, which is optional. A machine without one, as most servers are, gets the file.
Nothing here is logged, and no error holds a key.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

from jan_core import StorageError

from .errors import RemoteKeyUnavailable

if TYPE_CHECKING:
    from .remote import Remote

__all__ = ["Keys"]

T = TypeVar("T")

SERVICE = "jan remote engine"
KEYRING_SECONDS = 60.0
"""A locked keyring asks the person for its password meanwhile."""


class _Kept(Struct):
    origin: str
    key: str

    def __repr__(self) -> str:
        return f"_Kept(origin={self.origin!r})"


class Keys:
    """The keys of one data folder: `folder` holds a file for each that no keyring took."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def get(self, remote: Remote) -> str | None:
        """The key of a remote; None: it has none. Raises RemoteKeyUnavailable when it cannot be had."""
        if remote.key == "none":
            return None
        if remote.key == "file":
            kept = await anyio.to_thread.run_sync(self._read, remote.id)
            key = kept.key if kept.origin == remote.address.origin else None
        else:
            key = await self._from_keyring(remote)
        if key is None:
            what = f"there is no key of {remote.id} for {remote.address.origin}: give it anew"
            raise RemoteKeyUnavailable(what, remote=remote.id)
        return key

    async def put(self, remote: Remote, key: str) -> Literal["keyring", "file"]:
        """Keep the key of a remote; says where. Raises StorageError."""
        try:
            await _ask(remote.id, partial(_keyring_put, _entry(remote), key))
        except RemoteKeyUnavailable:
            await anyio.to_thread.run_sync(self._write, remote.id, _Kept(remote.address.origin, key))
            return "file"
        return "keyring"

    async def remove(self, remote: Remote) -> None:
        """Forget the key of a remote. Raises RemoteKeyUnavailable for a keyring that cannot be asked, StorageError."""
        if remote.key == "file":
            await anyio.to_thread.run_sync(self._unlink, remote.id)
        elif remote.key == "keyring":
            await _ask(remote.id, partial(_keyring_delete, _entry(remote)))

    async def _from_keyring(self, remote: Remote) -> str | None:
        return await _ask(remote.id, partial(_keyring_get, _entry(remote)))

    def _path(self, id: str) -> Path:
        return self._folder / f"{id}.json"

    def _read(self, id: str) -> _Kept:
        path = self._path(id)
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(descriptor, "rb") as file:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise RemoteKeyUnavailable(f"the key of {id} is in {path}, which is no plain file", remote=id)
                if os.name == "posix" and (found.st_mode & 0o077 or found.st_uid != os.geteuid()):
                    what = f"others may read {path}: chmod 600 it, or, if they did, have another key made"
                    raise RemoteKeyUnavailable(what, remote=id)
                return msgspec.json.decode(file.read(1 << 16), type=_Kept)
        except OSError as error:
            what = f"the key of {id} cannot be read from {path}: {error.strerror}"
            raise RemoteKeyUnavailable(what, remote=id) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise RemoteKeyUnavailable(f"{path} is damaged: give the key anew", remote=id) from None

    def _write(self, id: str, kept: _Kept) -> None:
        """All of it or nothing, and at no time readable by others."""
        path = self._path(id)
        temporary = path.with_name(f".{id}.{os.getpid()}.tmp")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
            with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(msgspec.json.encode(kept))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise StorageError(f"the key of {id} cannot be kept in {self._folder}: {error.strerror}") from None
        finally:
            temporary.unlink(missing_ok=True)

    def _unlink(self, id: str) -> None:
        try:
            self._path(id).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{self._path(id)} cannot be removed: {error.strerror}") from None


def _entry(remote: Remote) -> str:
    return f"{remote.id} {remote.address.origin}"


async def _ask(id: str, question: Callable[[], T]) -> T:
    """Ask the keyring in a thread, which is left behind when it hangs. Raises RemoteKeyUnavailable."""
    try:
        with anyio.fail_after(KEYRING_SECONDS):
            return await anyio.to_thread.run_sync(question, abandon_on_cancel=True)
    except TimeoutError:
        raise RemoteKeyUnavailable("the system's keyring does not answer: is it locked?", remote=id) from None
    except ImportError:
        raise RemoteKeyUnavailable("the library keyring is not installed", remote=id) from None
    except RemoteKeyUnavailable:
        raise
    except Exception as error:  # back ends raise what their systems do
        what = f"the system's keyring refuses ({type(error).__name__}): is it locked?"
        raise RemoteKeyUnavailable(what, remote=id) from None


def _keyring_get(entry: str) -> str | None:
    import keyring

    return keyring.get_password(SERVICE, entry)


def _keyring_put(entry: str, key: str) -> None:
    import keyring

    backend = keyring.get_keyring()
    if backend.priority < 1:  # none, or one that keeps keys in the clear: our own file is better
        raise RemoteKeyUnavailable("there is no keyring")
    backend.set_password(SERVICE, entry, key)


def _keyring_delete(entry: str) -> None:
    import keyring
    import keyring.errors

    if keyring.get_password(SERVICE, entry) is not None:
        keyring.delete_password(SERVICE, entry)
