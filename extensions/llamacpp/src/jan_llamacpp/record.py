"""`model.json`: what a model's directory says about it. Read and written here, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

__all__ = ["RECORD", "AdapterRecord", "ModelRecord", "StoredFile", "read_record", "write_record"]

RECORD = "model.json"


class StoredFile(Struct, frozen=True):
    """A file beside the record, by its name alone. `size` in bytes and `sha256` ("": not known) as it was taken
    in."""

    name: str
    size: int
    sha256: str = ""


class AdapterRecord(Struct, frozen=True):
    """A LoRA adapter of this model."""

    id: str
    file: StoredFile


class ModelRecord(Struct, frozen=True, kw_only=True):
    """The content of `model.json`. Sizes in bytes; `imported_at` in RFC 3339, UTC.

    `file` is the model's, the first of several; `shards` names all of several. `size`: of all of them; `sha256`: of the
    only one. `options`: what the model is loaded with where a load does not say otherwise. `origin`: the id of the
    catalogue's model it was had as. `unchecked`: whoever fetched it had no hash to check it by.
    """

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
    shards: list[StoredFile] = []
    projector: StoredFile | None = None
    adapters: list[AdapterRecord] = []
    options: dict[str, Any] = {}
    sha256: str = ""
    origin: str = ""
    unchecked: bool = False

    @property
    def model_files(self) -> list[StoredFile]:
        """The files of the model itself."""
        return self.shards or [StoredFile(self.file, self.size, self.sha256)]

    @property
    def files(self) -> list[StoredFile]:
        """All files: the model's, its projector's and its adapters'."""
        projector = [self.projector] if self.projector else []
        return [*self.model_files, *projector, *(adapter.file for adapter in self.adapters)]


def read_record(directory: Path) -> ModelRecord | str:
    """The record of a directory, or what is wrong with it ("" where there is none)."""
    try:
        record = msgspec.json.decode((directory / RECORD).read_bytes(), type=ModelRecord)
    except FileNotFoundError:
        return ""
    except OSError as failure:
        return f"{RECORD} cannot be read: {failure.strerror or failure}"
    except (ValueError, RecursionError) as failure:  # msgspec's errors are ValueErrors
        newer = _format(directory / RECORD)
        return f"{RECORD} is of a newer version ({newer})" if newer else f"{RECORD} is damaged: {failure}"
    if record.id != directory.name:
        return f"{RECORD} is that of another model, {record.id!r}"
    for file in record.files:
        if not file.name or Path(file.name).name != file.name:
            return f"{RECORD} names a file that is not beside it: {file.name!r}"
    return record


def write_record(directory: Path, record: ModelRecord) -> None:
    """Write it, replacing the one that is there at once and whole. Raises OSError."""
    new = directory / f".{RECORD}.new"
    with new.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(directory / RECORD)


def _format(path: Path) -> int:
    """The format of a record this version cannot read, when it is a later one; else 0."""
    try:
        content = msgspec.json.decode(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return 0
    number = content.get("format") if isinstance(content, dict) else None
    return number if isinstance(number, int) and number > 1 else 0
