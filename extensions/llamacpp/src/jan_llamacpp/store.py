"""The models on this machine: the embedded one, and GGUF files under `<data>/models/<id>/`.

A model is a directory that holds its GGUF files and `model.json`; a directory without one does not count, so an
interrupted import or deletion leaves nothing half-made. Nothing is loaded here (`pool.py`) and nothing is downloaded;
every file is checked by our own reader before it is taken in (`intake.py`).
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from jan_core import StorageError
from jan_core.types import InstalledModel, ModelAdapter, ModelFile, ModelLoad

from .embedded import EMBEDDED_ID, EMBEDDED_MODEL
from .errors import InvalidModelFile, InvalidModelId, ModelExists, ModelNotFound, ModelReadOnly
from .files import OnBytes
from .gguf import GGUFInfo, read_info, read_model, shard_name
from .intake import look_at, look_at_adapter
from .record import AdapterRecord, ModelRecord, StoredFile, read_record, write_record
from .staging import staged

__all__ = ["ModelStore", "model_id"]

_ABANDONED = 24 * 3600.0  # seconds
_BLOB = re.compile(r"(?:sha256-)?([0-9a-f]{64})")  # as the caches of Ollama and Hugging Face name files
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,94}[a-z0-9]|[a-z0-9]")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # names Windows gives to devices


def model_id(text: str) -> str:
    """An id made from a file's name: lower case, everything else a dash. Raises InvalidModelId when nothing
    is left.
    """
    stem = text[:-5] if text.lower().endswith(".gguf") else text
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", stem)
    slug = re.sub(r"[^a-z0-9._]+", "-", stem.lower())
    return _checked_id(re.sub(r"\.{2,}", ".", slug)[:96].strip("-._"))


class ModelStore:
    """The models under `root` (`<data>/models`) and the embedded one."""

    def __init__(self, root: Path, *, embedded: Path = EMBEDDED_MODEL) -> None:
        self._root = root
        self._changing = threading.Lock()  # records, by methods that run in threads
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
        """The model's header, read and checked now, of all its files. Raises ModelNotFound, InvalidModelFile."""
        model = self.get(id)
        if model.error:
            raise InvalidModelFile(f"{id}: {model.error}", path=model.path, reason="changed")
        return read_model(Path(model.path))

    def load_of(self, id: str, adapters: Collection[str] = ()) -> ModelLoad:
        """What is read when the model is loaded with these of its adapters, as the record has it: no file is read.

        Raises ModelNotFound, StorageError.
        """
        if id == EMBEDDED_ID:
            return ModelLoad(id, [ModelFile(self._embedded.name, size=self._embedded.stat().st_size)])
        record = self._record(id)
        projector = [record.projector] if record.projector else []
        used = [each.file for each in record.adapters if each.id in adapters]
        files = [ModelFile(file.name, file.sha256, file.size) for file in (*record.model_files, *projector, *used)]
        return ModelLoad(id, files, record.origin)

    async def take_in(
        self,
        source: Path,
        *,
        id: str | None = None,
        share: bool = True,
        projector: Path | None = None,
        find_projector: bool = True,
        hashes: Mapping[str, str] = MappingProxyType({}),
        origin: str = "",
        unchecked: bool = False,
        on_bytes: OnBytes = lambda done, total: None,
    ) -> InstalledModel:
        """Import a model: all files of a split one (`source` is any of them), and its projector.

        Checked, then cloned or hard-linked where the file system can, else copied; `share` False: always copied. `id`
        None: made from the file's name. `projector` None: with `find_projector`, the one beside the file that fits it.
        `hashes`: what is known of the sources' SHA-256, by name; it is kept where the file is not read to be copied.
        `origin`: the catalogue's id. `unchecked`: nobody knew what the files should hash to.
        The sources stay where they are. Cancelling leaves nothing. Raises InvalidModelFile, InvalidModelId,
        ModelExists, ModelReadOnly, StorageError.
        """
        import anyio

        intake = await anyio.to_thread.run_sync(partial(look_at, source, projector, find=find_projector))
        id = model_id(source.name) if id is None else _checked_id(id)
        if id == EMBEDDED_ID:
            raise ModelReadOnly(f"{id} is the embedded model's id; import the file under another one", id=id)
        if isinstance(read_record(self._root / id), ModelRecord):
            raise ModelExists(f"there is a model {id!r} already", id=id)
        names = [shard_name(id, number, len(intake.files)) for number in range(len(intake.files))]
        wanted = dict(zip(names, intake.files, strict=True))
        if intake.projector:
            wanted[f"mmproj-{id}.gguf"] = intake.projector
        async with staged(self._root, wanted, share, on_bytes) as (stage, copied):
            # What is here now is what counts: the sources may have changed while they were copied.
            here = stage / f"mmproj-{id}.gguf" if intake.projector else None
            info = (await anyio.to_thread.run_sync(partial(look_at, stage / names[0], here, find=False))).info
            known = {name: copied.get(name) or _told(path, hashes) for name, path in wanted.items()}
            kept = {name: StoredFile(name, (stage / name).stat().st_size, known[name]) for name in wanted}
            files = [kept[name] for name in names]
            record = ModelRecord(
                id=id,
                name=_name(info, source),
                file=names[0],
                size=info.size,
                architecture=info.architecture,
                parameters=info.n_params,
                quantization=info.quantization,
                context_length=info.context_length,
                license=info.license,
                imported_at=datetime.now(UTC).isoformat(timespec="seconds"),
                shards=files if len(files) > 1 else [],
                projector=kept[here.name] if here else None,
                sha256=files[0].sha256 if len(files) == 1 else "",
                origin=origin,
                unchecked=unchecked,
            )
            await anyio.to_thread.run_sync(self._commit, stage, id, record)
        return self.get(id)

    async def take_in_adapter(
        self,
        source: Path,
        base: str,
        *,
        id: str | None = None,
        share: bool = True,
        hashes: Mapping[str, str] = MappingProxyType({}),
        on_bytes: OnBytes = lambda done, total: None,
    ) -> InstalledModel:
        """Import a LoRA adapter for the installed model `base`, which is the answer. Raises what `take_in` does, and
        ModelNotFound.
        """
        import anyio

        model = await anyio.to_thread.run_sync(self.inspect, base)
        await anyio.to_thread.run_sync(look_at_adapter, source, model)
        id = model_id(source.name) if id is None else _checked_id(id)
        _check_adapter(self._record(base), id)
        name = f"lora-{id}.gguf"
        async with staged(self._root, {name: source}, share, on_bytes) as (stage, copied):
            info = await anyio.to_thread.run_sync(look_at_adapter, stage / name, model)
            added = AdapterRecord(id, StoredFile(name, info.size, copied.get(name) or _told(source, hashes)))
            await anyio.to_thread.run_sync(self._commit_adapter, stage, base, added)
        return self.get(base)

    def delete_adapter(self, id: str, adapter: str) -> None:
        """Delete an adapter of a model. Raises ModelNotFound, ModelReadOnly, StorageError."""
        with self._changing:
            record = self._record(id)
            kept = [each for each in record.adapters if each.id != adapter]
            gone = [each for each in record.adapters if each.id == adapter]
            if not gone:
                known = [each.id for each in record.adapters]
                has = ", ".join(known) or "none"
                raise ModelNotFound(f"{id} has no adapter {adapter!r}; it has: {has}", known=known)
            try:
                write_record(self._root / id, msgspec.structs.replace(record, adapters=kept))
                (self._root / id / gone[0].file.name).unlink(missing_ok=True)
            except OSError as failure:
                raise StorageError(f"{adapter} could not be deleted: {failure.strerror or failure}") from failure

    def configure(self, id: str, options: dict[str, Any]) -> InstalledModel:
        """Keep what a model is loaded with. Raises ModelNotFound, ModelReadOnly, StorageError."""
        with self._changing:
            record = self._record(id)
            try:
                write_record(self._root / id, msgspec.structs.replace(record, options=options))
            except OSError as failure:
                raise StorageError(f"{id} could not be configured: {failure.strerror or failure}") from failure
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
        self._check_own(id, "deleted")

    def _check_own(self, id: str, what: str) -> None:
        if id == EMBEDDED_ID:
            raise ModelReadOnly(f"{id} is embedded and cannot be {what}", id=id)
        self.get(id)

    def sweep(self) -> None:
        """Delete what interrupted imports and deletions left: things a day old, as another process may be at work."""
        for pattern in (".staging-*", ".trash-*"):
            for left in self._root.glob(pattern):
                with suppress(OSError):  # another process may be sweeping, too
                    if time.time() - left.stat().st_mtime > _ABANDONED:
                        shutil.rmtree(left, ignore_errors=True)

    def _commit_adapter(self, stage: Path, base: str, added: AdapterRecord) -> None:
        with self._changing:  # the record is another one by now, perhaps: copying takes its time
            record = self._record(base)
            _check_adapter(record, added.id)
            (stage / added.file.name).rename(self._root / base / added.file.name)
            write_record(self._root / base, msgspec.structs.replace(record, adapters=[*record.adapters, added]))

    def _commit(self, stage: Path, id: str, record: ModelRecord) -> None:
        write_record(stage, record)
        final = self._root / id
        if final.is_dir():
            there = read_record(final)
            if isinstance(there, str) and "newer" in there:  # not ours to delete
                raise StorageError(f"{final} holds a model this version cannot read; move it away first")
            if isinstance(there, str):  # a directory that does not count
                doomed = self._root / f".trash-{uuid.uuid4().hex}"
                final.rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)
        try:
            stage.rename(final)
        except OSError:
            if isinstance(read_record(final), ModelRecord):
                raise ModelExists(f"there is a model {id!r} already", id=id) from None
            raise

    def _record(self, id: str) -> ModelRecord:
        """The record of a model that may be changed. Raises ModelNotFound, ModelReadOnly, StorageError."""
        self._check_own(id, "changed")
        record = read_record(self._root / id)
        if isinstance(record, str):
            raise StorageError(f"{id} cannot be changed: {record}")
        return record

    def _describe(self, id: str) -> InstalledModel | None:
        if not _is_id(id):
            return None
        directory = self._root / id
        record = read_record(directory)
        if isinstance(record, str):
            return _damaged(directory, record) if record else None
        error = ""
        for file in record.files:
            try:
                size = (directory / file.name).stat().st_size
            except OSError:
                error = error or f"its file {file.name} is gone"
                continue
            if size != file.size:
                error = error or f"its file {file.name} has {size} bytes instead of {file.size}"
        return InstalledModel(
            id=id,
            name=record.name,
            path=str(directory / record.file),
            size=record.size,
            state="failed" if error else "available",
            architecture=record.architecture,
            parameters=record.parameters,
            quantization=record.quantization,
            context_length=record.context_length,
            license=record.license,
            imported_at=record.imported_at,
            error=error,
            files=len(record.model_files),
            projector=str(directory / record.projector.name) if record.projector else "",
            adapters=[
                ModelAdapter(each.id, str(directory / each.file.name), each.file.size) for each in record.adapters
            ],
            options=record.options,
            origin=record.origin,
            hashes=[each.sha256 for each in record.files if each.sha256],
            unchecked=record.unchecked,
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


def _told(path: Path, hashes: Mapping[str, str]) -> str:
    """The SHA-256 that somebody told: whoever brings the file, or whose cache it is from; "" when nobody did."""
    named = _BLOB.fullmatch(path.resolve().name)
    return hashes.get(path.name, named[1] if named else "")


def _damaged(directory: Path, problem: str) -> InstalledModel:
    """A model whose record cannot be read: shown with what to do about it, instead of not at all."""
    found = sorted(directory.glob("*.gguf"))
    again = f"import it again (its file is {found[0]})" if found else "import it again"
    return InstalledModel(
        id=directory.name,
        name=directory.name,
        path=str(found[0]) if found else str(directory),
        size=sum(file.stat().st_size for file in found),
        state="failed",
        error=f"{problem}; {again}, or delete it",
    )


def _is_id(text: str) -> bool:
    return bool(_ID.fullmatch(text)) and ".." not in text and not _RESERVED.fullmatch(text)


def _check_adapter(record: ModelRecord, id: str) -> None:
    if any(adapter.id == id for adapter in record.adapters):
        raise ModelExists(f"{record.id} has an adapter {id!r} already", id=id)


def _checked_id(text: str) -> str:
    if not _is_id(text):
        raise InvalidModelId(f"{text!r} cannot be a model's id: use a-z, 0-9, dots, dashes and underscores", id=text)
    return text


def _name(info: GGUFInfo, source: Path) -> str:
    """The name in the file; when there is none, the source's, not that of our copy."""
    name = info.metadata.get("general.name")
    return name if isinstance(name, str) and name else source.stem
