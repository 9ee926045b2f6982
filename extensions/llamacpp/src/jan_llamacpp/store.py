"""The models on this machine: the embedded one, and GGUF files under `<data>/models/<id>/`.

A model is a directory that holds one GGUF file and `model.json`; a directory without a valid `model.json`
does not count, so an interrupted import or deletion leaves nothing half-made. Nothing is loaded here
(`pool.py`) and nothing is downloaded; every file is checked by our own reader before it is taken in.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from jan_core import StorageError
from jan_core.types import InstalledModel

from .embedded import EMBEDDED_ID, EMBEDDED_MODEL
from .errors import InvalidModelFile, InvalidModelId, ModelExists, ModelNotFound, ModelReadOnly
from .files import OnBytes, copy, link
from .gguf import GGUFInfo, read_info

__all__ = ["ModelStore", "model_id"]


_RECORD = "model.json"
_ABANDONED = 24 * 3600.0  # seconds
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,94}[a-z0-9]|[a-z0-9]")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # names Windows gives to devices
_KINDS = {
    "shard": "one part of a split model: such models are not supported yet",
    "adapter": "an adapter, which cannot be used by itself",
    "projector": "a projector, which cannot be used by itself",
}


class _Record(Struct, frozen=True, kw_only=True):
    """The content of `model.json`. Sizes in bytes; `imported_at` in RFC 3339, UTC."""

    format: Literal[1] = 1
    id: str
    name: str
    file: str
    size: int
    architecture: str
    parameters: int
    quantization: str
    context_length: int
    license: str
    imported_at: str


def model_id(text: str) -> str:
    """An id made from a file's name: lower case, everything else a dash. Raises InvalidModelId when nothing
    is left.
    """
    stem = text[:-5] if text.lower().endswith(".gguf") else text
    slug = re.sub(r"[^a-z0-9._]+", "-", stem.lower())
    return _checked_id(re.sub(r"\.{2,}", ".", slug)[:96].strip("-._"))


class ModelStore:
    """The models under `root` (`<data>/models`) and the embedded one."""

    def __init__(self, root: Path, *, embedded: Path = EMBEDDED_MODEL) -> None:
        self._root = root
        self._embedded = embedded

    def list(self) -> list[InstalledModel]:
        """Every model, the embedded one first, then by id. One whose file is gone or changed is `failed`,
        with the reason.
        """
        try:
            names = sorted(entry.name for entry in os.scandir(self._root) if entry.is_dir())
        except OSError:
            names = []
        embedded = self._describe_embedded()
        installed = [model for name in names if (model := self._describe(name))]
        return [embedded, *installed] if embedded else installed

    def get(self, id: str) -> InstalledModel:
        """One model. Raises ModelNotFound with the ids there are."""
        model = self._describe_embedded() if id == EMBEDDED_ID else self._describe(id) if _is_id(id) else None
        if model is None:
            known = [model.id for model in self.list()]
            raise ModelNotFound(f"there is no model {id!r} here; installed: {', '.join(known) or 'none'}", known=known)
        return model

    def inspect(self, id: str) -> GGUFInfo:
        """The model's header, read and checked now. Raises ModelNotFound, InvalidModelFile."""
        return read_info(Path(self.get(id).path))

    async def take_in(
        self,
        source: Path,
        *,
        id: str | None = None,
        share: bool = True,
        on_bytes: OnBytes = lambda done, total: None,
    ) -> InstalledModel:
        """Import a GGUF file: checked, then cloned or hard-linked where the file system can, else copied;
        `share` False: always copied.

        `id` None: made from the file's name. The source stays where it is. Cancelling leaves nothing. Raises
        InvalidModelFile, InvalidModelId, ModelExists, ModelReadOnly, StorageError.
        """
        import anyio

        source, info = await anyio.to_thread.run_sync(_found, source)
        id = model_id(source.name) if id is None else _checked_id(id)
        if id == EMBEDDED_ID:
            raise ModelReadOnly(f"{id} is the embedded model's id; import the file under another one", id=id)
        if self._describe(id):
            raise ModelExists(f"there is a model {id!r} already", id=id)
        stage = self._root / f".staging-{uuid.uuid4().hex}"
        target = stage / f"{id}.gguf"
        try:
            stage.mkdir(parents=True)
            if not share or not link(source, target):
                await copy(source, target, info.size, on_bytes)
            # What is here now is what counts: the source may have changed while it was copied.
            info = await anyio.to_thread.run_sync(_importable, target)
            self._commit(stage, id, info, source)
        except OSError as failure:
            raise StorageError(f"the model could not be stored: {failure.strerror or failure}") from failure
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        return self.get(id)

    def delete(self, id: str) -> None:
        """Delete a model's files. Raises ModelNotFound, ModelReadOnly, StorageError."""
        self.check_deletable(id)
        doomed = self._root / f".trash-{uuid.uuid4().hex}"
        try:
            (self._root / id).rename(doomed)  # out of sight at once: a crash below leaves nothing that counts
        except OSError as failure:
            raise StorageError(f"{id} could not be deleted: {failure.strerror or failure}") from failure
        shutil.rmtree(doomed, ignore_errors=True)

    def check_deletable(self, id: str) -> None:
        """Raises ModelNotFound or ModelReadOnly where `delete` would."""
        if id == EMBEDDED_ID:
            raise ModelReadOnly(f"{id} is embedded and cannot be deleted", id=id)
        self.get(id)

    def sweep(self) -> None:
        """Delete what interrupted imports and deletions left: things a day old, as another process may be at work."""
        for pattern in (".staging-*", ".trash-*"):
            for left in self._root.glob(pattern):
                with suppress(OSError):  # another process may be sweeping, too
                    if time.time() - left.stat().st_mtime > _ABANDONED:
                        shutil.rmtree(left, ignore_errors=True)

    def _commit(self, stage: Path, id: str, info: GGUFInfo, source: Path) -> None:
        record = _Record(
            id=id,
            name=_name(info, source),
            file=f"{id}.gguf",
            size=info.size,
            architecture=info.architecture,
            parameters=info.n_params,
            quantization=info.quantization,
            context_length=info.context_length,
            license=info.license,
            imported_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        with (stage / _RECORD).open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        final = self._root / id
        if final.is_dir() and not self._describe(id):
            if _is_json(final / _RECORD):  # of a newer version, perhaps: not ours to delete
                raise StorageError(f"{final} holds a model this version cannot read; move it away first")
            doomed = self._root / f".trash-{uuid.uuid4().hex}"
            final.rename(doomed)  # a directory that does not count
            shutil.rmtree(doomed, ignore_errors=True)
        try:
            stage.rename(final)
        except OSError:
            if self._describe(id):
                raise ModelExists(f"there is a model {id!r} already", id=id) from None
            raise

    def _describe(self, id: str) -> InstalledModel | None:
        directory = self._root / id
        try:
            record = msgspec.json.decode((directory / _RECORD).read_bytes(), type=_Record)
        except (OSError, ValueError):  # msgspec's errors are ValueErrors
            return None
        if record.id != id or not _is_id(id) or Path(record.file).name != record.file:
            return None
        path = directory / record.file
        try:
            size = path.stat().st_size
            error = "" if size == record.size else f"its file has {size} bytes instead of {record.size}"
        except OSError:
            error = "its file is gone"
        return InstalledModel(
            id=id,
            name=record.name,
            path=str(path),
            size=record.size,
            state="failed" if error else "available",
            architecture=record.architecture,
            parameters=record.parameters,
            quantization=record.quantization,
            context_length=record.context_length,
            license=record.license,
            imported_at=record.imported_at,
            error=error,
        )

    def _describe_embedded(self) -> InstalledModel | None:
        try:
            info = read_info(self._embedded)
        except InvalidModelFile as damage:
            if damage.reason == "unreadable":
                return None
            return InstalledModel(
                EMBEDDED_ID,
                EMBEDDED_ID,
                str(self._embedded),
                0,
                "failed",
                embedded=True,
                error=damage.message,
            )
        return InstalledModel(
            id=EMBEDDED_ID,
            name=info.name,
            path=str(self._embedded),
            size=info.size,
            embedded=True,
            architecture=info.architecture,
            parameters=info.n_params,
            quantization=info.quantization,
            context_length=info.context_length,
            license=info.license,
        )


def _is_json(path: Path) -> bool:
    try:
        msgspec.json.decode(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _is_id(text: str) -> bool:
    return bool(_ID.fullmatch(text)) and ".." not in text and not _RESERVED.fullmatch(text)


def _checked_id(text: str) -> str:
    if not _is_id(text):
        raise InvalidModelId(f"{text!r} cannot be a model's id: use a-z, 0-9, dots, dashes and underscores", id=text)
    return text


def _importable(path: Path) -> GGUFInfo:
    info = read_info(path)
    if info.kind != "model":
        raise InvalidModelFile(f"{path.name} is {_KINDS[info.kind]}", path=str(path), reason="not_a_model")
    return info


def _found(path: Path) -> tuple[Path, GGUFInfo]:
    info = _importable(path)
    return path.resolve(), info


def _name(info: GGUFInfo, source: Path) -> str:
    """The name in the file; when there is none, the source's, not that of our copy."""
    name = info.metadata.get("general.name")
    return name if isinstance(name, str) and name else source.stem
