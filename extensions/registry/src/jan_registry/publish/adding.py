"""One model into the operator's folder, from what a person says, a URL, or the file itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from jan_core import InvalidParams

from ..collections import File, Record, Variant
from ..hubs.grouping import quantization_of
from .answers import Changed
from .changes import Changes
from .conditions import condition
from .editing import put_model
from .gguf import Facts, read_facts
from .importing import source_of
from .pieces import split, store
from .shapes import Add

__all__ = ["add"]


def add(folder: Path, given: Add, progress: Callable[[int, int], None]) -> Changed:
    """Raises InvalidParams, WorkspaceUnknown, WorkspaceInvalid, StorageError."""
    changes = Changes(folder)
    present = changes.held.entries["models"].get(given.id)
    record: Record = present.value if present else Record(id=given.id, name="")
    said: dict[str, object] = {
        name: value
        for name in ("name", "description", "publisher", "license", "tags", "params", "ctx")
        if (value := getattr(given, name))
    }
    note = ""
    if given.file:
        path = Path(given.file)
        if not path.is_absolute():
            raise InvalidParams("the path must be absolute", path="$.file")
        facts = _facts(path)
        found = {"name": facts.name, "arch": facts.arch, "license": facts.license, "params": facts.params}
        found["ctx"] = facts.ctx
        # What a person says counts more than what the file says, and that more than nothing.
        said = {name: value for name, value in found.items() if value and not getattr(record, name)} | said
        if facts.shards > 1:
            note = f"it is one of {facts.shards} parts: add each of them"
        pieced = split(path, progress)
        _hold(given, "size", pieced.size)
        _hold(given, "sha256", pieced.sha256)
        file = File(path=path.name, size=pieced.size, sha256=pieced.sha256, pieces=pieced.pieces)
        store(pieced, folder / "pieces")
    elif given.url:
        file = File(path=unquote(urlsplit(given.url).path).rpartition("/")[2], size=given.size, sha256=given.sha256)
    elif given.size or given.sha256 or given.variant:
        raise InvalidParams("a size, a hash or a variant is for a file: give its url", path="$.url")
    else:
        file = None
    if file and given.url:
        file.sources = [source_of(given.url)]
    if file:
        said |= _with(record, file, given.variant)
    if given.where:
        said["target"] = [condition(text) for text in given.where]
    if not record.name and not said.get("name"):
        said["name"] = given.id.rpartition("/")[2]
    put_model(changes, msgspec.structs.replace(record, **said), keep=())
    return Changed(changes.save(), note)


def _with(record: Record, file: File, named: str) -> dict[str, object]:
    """The record's files and variants with this one, in place of one of the same name."""
    quant = quantization_of(file.path)
    id = named or quant.lower() or "default"
    files = [one for one in record.files if one.path != file.path]
    place = next((n for n, one in enumerate(record.files) if one.path == file.path), len(files))
    files.insert(place, file)
    variants = list(record.variants)
    number = next((n for n, one in enumerate(variants) if one.id == id), None)
    if number is None:
        variants.append(Variant(id=id, quant=quant, files=[place]))
    elif place not in variants[number].files:
        split = re.search(r"-\d{5}-of-\d{5}\.gguf$", file.path)
        kept = variants[number].files if split else []
        variants[number] = msgspec.structs.replace(variants[number], files=[*kept, place])
    return _without_unused(files, variants)


def _without_unused(files: list[File], variants: list[Variant]) -> dict[str, object]:
    used = sorted({place for variant in variants for place in variant.files})
    places = {old: new for new, old in enumerate(used)}
    moved = [msgspec.structs.replace(one, files=[places[place] for place in one.files]) for one in variants]
    return {"files": [files[place] for place in used], "variants": moved}


def _facts(path: Path) -> Facts:
    try:
        return read_facts(path)
    except ValueError as error:
        raise InvalidParams(f"{path}: {error}", path="$.file") from error


def _hold(given: Add, name: str, found: int | str) -> None:
    said = getattr(given, name)
    if said and said != found:
        raise InvalidParams(f"the file's {name} is {found}, not {said}", path=f"$.{name}")
