"""The KV state of conversations on the disk, so that a long one goes on after a restart without being read again.

A folder that belongs to one loaded model, with one file for each conversation: a header (whose state, of what, how
long), the tokens, and llama.cpp's own bytes. A state is good only for the very engine, model, adapters and cache type
that made it; all of that is its `identity`, and a file with another one does not count. Neither does a torn one:
files are replaced whole and carry a checksum. It is a cache: whatever is wrong with it costs time, never an answer.

Names of conversations are hashed, their text is not here, but what is here can be turned into it: the files are for
their owner only (0600) and go when the conversation does (`forget`).

Nothing here knows contexts or slots; `scheduler.py` decides what is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from .options import state_file

__all__ = ["SavedState", "StateStore", "identity_of"]

MAGIC = b"jankv1\n\0"
SUFFIX = ".kv"


class SavedState(Struct, frozen=True):
    """A sequence as it was: its tokens, and llama.cpp's bytes of its cells."""

    tokens: list[int]
    data: bytearray


class _Header(Struct, frozen=True):
    identity: str
    n_tokens: int
    n_data: int
    crc: int


def identity_of(parts: list[str], files: list[Path]) -> str:
    """A digest of texts and of files, which are known by name, size and time. Raises OSError for one that is gone."""
    seen = hashlib.blake2b(digest_size=16)
    for part in parts:
        seen.update(part.encode("utf-8", "surrogateescape") + b"\0")
    for file in files:
        status = file.stat()
        seen.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return seen.hexdigest()


class StateStore:
    """The states in `folder`, at most `budget` bytes of them: the longest unused go first.

    `write` returns at once; a thread of its own writes. The other methods may be called from any thread.
    """

    def __init__(self, folder: Path, identity: str, budget: int) -> None:
        self._folder, self._identity, self._budget = folder, identity, budget
        self._waiting: OrderedDict[str, SavedState] = OrderedDict()
        self._changed = threading.Condition()
        self._writing: str | None = None
        self._writer: threading.Thread | None = None

    def has(self, thread: str) -> bool:
        """Whether there is a state, perhaps a bad one."""
        name = state_file(thread)
        with self._changed:
            if name in self._waiting:
                return True
        return (self._folder / name).exists()

    def read(self, thread: str) -> SavedState | None:
        """The state of a conversation; None when there is none that is whole and of this identity."""
        name = state_file(thread)
        with self._changed:
            if name in self._waiting:
                return self._waiting[name]
        path = self._folder / name
        try:
            state = self._load(path)
        except (OSError, ValueError, MemoryError):  # msgspec's errors are ValueErrors
            state = None
        if state is not None:
            with contextlib.suppress(OSError):
                os.utime(path)  # it is in use
        return state

    def write(self, thread: str, state: SavedState) -> None:
        """Keep a state, in place of an older one of the same conversation."""
        with self._changed:
            self._waiting[state_file(thread)] = state
            self._waiting.move_to_end(state_file(thread))
            if self._writer is None:
                self._writer = threading.Thread(target=self._work, name="kv-states", daemon=True)
                self._writer.start()
            self._changed.notify_all()

    def forget(self, thread: str) -> None:
        """Delete a conversation's state. When this returns it is gone, also one that was being written."""
        name = state_file(thread)
        with self._changed:
            self._waiting.pop(name, None)
            self._changed.wait_for(lambda: self._writing != name)
            with contextlib.suppress(OSError):
                (self._folder / name).unlink()

    def flush(self, seconds: float) -> bool:
        """Wait until all is written; False when it took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and self._writing is None, seconds)

    # --- inside ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                name, state = next(iter(self._waiting.items()))
                self._writing = name
            try:
                self._store(name, state)
            except (OSError, MemoryError):  # a full disk: then it is not kept
                pass
            finally:
                with self._changed:
                    if self._waiting.get(name) is state:
                        del self._waiting[name]
                    self._writing = None
                    self._changed.notify_all()

    def _store(self, name: str, state: SavedState) -> None:
        tokens = msgspec.msgpack.encode(state.tokens)
        crc = zlib.crc32(state.data, zlib.crc32(tokens))
        header = msgspec.msgpack.encode(_Header(self._identity, len(tokens), len(state.data), crc))
        size = len(MAGIC) + 4 + len(header) + len(tokens) + len(state.data)
        if size > self._budget:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_room(self._budget - size, keep=name)
        part = self._folder / f"{name}.{os.getpid()}.part"
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                for block in (MAGIC, len(header).to_bytes(4, "little"), header, tokens, state.data):
                    _write_all(file.write, block)
            part.replace(self._folder / name)
        finally:
            part.unlink(missing_ok=True)

    def _load(self, path: Path) -> SavedState | None:
        with path.open("rb", buffering=0) as file:
            head = file.read(len(MAGIC) + 4)
            if head[: len(MAGIC)] != MAGIC:
                return None
            header = msgspec.msgpack.decode(file.read(int.from_bytes(head[len(MAGIC) :], "little")), type=_Header)
            size = file.tell() + header.n_tokens + header.n_data
            if header.identity != self._identity or size != os.fstat(file.fileno()).st_size or size > self._budget:
                return None
            tokens, data = file.read(header.n_tokens), bytearray(header.n_data)
            view, at = memoryview(data), 0
            while at < len(data) and (count := file.readinto(view[at:])):
                at += count
            if at != len(data) or zlib.crc32(data, zlib.crc32(tokens)) != header.crc:
                return None
        return SavedState(msgspec.msgpack.decode(tokens, type=list[int]), data)

    def _make_room(self, budget: int, keep: str) -> None:
        """Delete what is not ours or torn, then the longest unused, until the rest fits `budget` bytes."""
        found = []
        for entry in os.scandir(self._folder):
            with contextlib.suppress(OSError):
                if entry.name.endswith(".part"):
                    Path(entry.path).unlink()
                elif entry.name.endswith(SUFFIX) and entry.name != keep:
                    found.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
        for _, size, path in sorted(found, reverse=True):
            budget -= size
            if budget < 0:
                with contextlib.suppress(OSError):
                    Path(path).unlink()


def _write_all(write: Callable[[memoryview], int | None], data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[write(view) or 0 :]
