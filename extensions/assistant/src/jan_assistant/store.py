"""Assistants on disk: one JSON file, replaced as a whole.

A person has a handful of assistants and may want to read, copy or mend them, so it is text, not a database.
It blocks: the plugin calls it in a worker thread. It knows nothing of methods or events.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from jan_core import InvalidParams, StorageError
from jan_core.types import Assistant

from .errors import AssistantExists, AssistantLimit, AssistantNotFound, AssistantProtected
from .files import exclusive, replace_file
from .shapes import CreateAssistant, UpdateAssistant

__all__ = ["DEFAULT", "VERSION", "AssistantStore"]

VERSION = 1
DEFAULT = Assistant(id="jan", name="Jan", instructions="You are a helpful assistant.")
"""Who answers when nobody else was chosen. It is in the file only once somebody changed it."""

LARGEST_FILE = 8 * 1024 * 1024
MOST = 1000


class Document(msgspec.Struct):
    """The file. A change that an older reader would misread raises `version`."""

    assistants: list[Assistant]
    version: int = VERSION


class AssistantStore:
    """The assistants in the file at `path`. What a method returned from is on the disk; it returns copies.

    Every method raises StorageError: the file cannot be read or written, is damaged or of a newer format.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = path.with_name(path.name + ".lock")
        self._mutex = threading.Lock()
        self._read_at: tuple[int, int, int] | None = None
        self._cached: dict[str, Assistant] = {}

    def list(self) -> list[Assistant]:
        """All of them, the default one first, then in the order they were made."""
        with self._reading() as assistants:
            others = [a for a in assistants.values() if a.id != DEFAULT.id]
            return deepcopy([assistants.get(DEFAULT.id, DEFAULT), *others])

    def get(self, id: str) -> Assistant:
        """One of them. Raises AssistantNotFound."""
        with self._reading() as assistants:
            return deepcopy(_existing(assistants, id))

    def create(self, params: CreateAssistant) -> Assistant:
        """Add one. Raises AssistantExists and AssistantLimit."""
        id = params.id or os.urandom(8).hex()
        now = _now()
        assistant = Assistant(
            id=id,
            name=params.name,
            instructions=params.instructions,
            description=params.description,
            model=params.model,
            parameters=msgspec.to_builtins(params.parameters),
            avatar=params.avatar,
            created_at=now,
            updated_at=now,
        )

        def add(assistants: dict[str, Assistant]) -> None:
            if id in assistants or id == DEFAULT.id:
                raise AssistantExists(f"there is an assistant {id} already", assistant_id=id)
            if len(assistants) >= MOST:
                raise AssistantLimit(f"there are {MOST} assistants, which is as many as are kept", limit=MOST)
            assistants[id] = assistant

        self._change(add)
        return assistant

    def update(self, params: UpdateAssistant) -> Assistant:
        """Change one. Raises AssistantNotFound and AssistantLimit."""
        given = {f: getattr(params, f) for f in params.__struct_fields__ if f != "assistant_id"}
        changes: dict[str, Any] = {f: msgspec.to_builtins(value) for f, value in given.items() if value is not UNSET}

        def replace(assistants: dict[str, Assistant]) -> None:
            old = _existing(assistants, params.assistant_id)
            assistants[old.id] = msgspec.structs.replace(old, **changes, updated_at=_now())

        return self._change(replace)[params.assistant_id]

    def delete(self, id: str) -> None:
        """Remove one. Raises AssistantNotFound and AssistantProtected."""
        if id == DEFAULT.id:
            raise AssistantProtected(f"{DEFAULT.id} is the default assistant: change it, it cannot be deleted")

        def remove(assistants: dict[str, Assistant]) -> None:
            _existing(assistants, id)
            del assistants[id]

        self._change(remove)

    @contextmanager
    def _reading(self) -> Iterator[dict[str, Assistant]]:
        with self._mutex, _as_storage_error(self._path):
            yield self._load()

    def _change(self, change: Callable[[dict[str, Assistant]], None]) -> dict[str, Assistant]:
        with self._mutex, _as_storage_error(self._path), exclusive(self._lock):
            assistants = dict(self._load())
            change(assistants)
            try:
                data = msgspec.json.format(msgspec.json.encode(Document(list(assistants.values()))), indent=2)
            except UnicodeEncodeError as error:
                raise InvalidParams(f"text that is not Unicode: {error.reason}", path="$") from None
            if len(data) > LARGEST_FILE:
                reason = f"the assistants would take {len(data):,} bytes; {LARGEST_FILE:,} are kept"
                raise AssistantLimit(reason, limit=LARGEST_FILE)
            replace_file(self._path, data)
            return assistants

    def _load(self) -> dict[str, Assistant]:
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
                if stamp == self._read_at:
                    return self._cached
                if status.st_size > LARGEST_FILE * 2:  # a person may have edited it: generous, but bounded
                    raise _damaged(self._path, f"{status.st_size:,} bytes are too many")
                data = file.read()
        except FileNotFoundError:
            return {}
        self._cached, self._read_at = _parse(self._path, data), stamp
        return self._cached


def _parse(path: Path, data: bytes) -> dict[str, Assistant]:
    try:
        version = msgspec.json.decode(data, type=dict[str, Any]).get("version")
        if isinstance(version, int) and version > VERSION:
            raise StorageError(
                f"{path} was written by a newer version of this software (format {version}, this one reads "
                f"{VERSION}): update, or move the file away to start afresh",
                path=str(path),
            )
        document = msgspec.json.decode(data, type=Document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error
    return {a.id: a for a in document.assistants}


def _damaged(path: Path, reason: str) -> StorageError:
    return StorageError(
        f"{path} is damaged ({reason}): mend it, or move it away to start afresh with the default assistant",
        path=str(path),
    )


@contextmanager
def _as_storage_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read or written: {error.strerror or error}", path=str(path), errno=error.errno
        ) from error


def _existing(assistants: dict[str, Assistant], id: str) -> Assistant:
    assistant = assistants.get(id) or (DEFAULT if id == DEFAULT.id else None)
    if assistant is None:
        raise AssistantNotFound(f"there is no assistant {id}", assistant_id=id)
    return assistant


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
