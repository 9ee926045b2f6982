"""`jan models pull`: the names under which files are fetched, and what the model is called here.

Half of all hubs call every file `model.gguf`, and two publishers call different files the same: what is fetched lies
under a name of its own, and a name that says nothing becomes no model's id.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from .app import Failed
from .following import begin, fetch
from .session import Session
from .standing import Record

__all__ = ["pull_file", "pull_model"]

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_SAYS_NOTHING = re.compile(r"(ggml-?)?(model|weights|consolidated|gguf|ggml)?([-_.]?(i?q\d\w*|bf16|f16|f32|fp16))?")


async def pull_model(
    session: Session, model: str, variant: str, source: str, id: str, how: dict[str, Any], again: str
) -> Record:
    """Have a model of the registry, or of the hub `source`. `id`: what it is called here; "": made from its names.
    `how`: what `downloads.start_group` is to know of priority, limit and time; `again`: the command that goes on.

    Returns its `models` record.
    """
    found = await session.call("registry.resolve", {"id": model, "variant": variant, "source": source})
    files = sorted(found["files"], key=lambda file: str(file["name"]))
    projectors = [file for file in files if _is_projector(file)]
    weights = [file for file in files if file not in projectors] or files
    told = _slug(f"{model.rpartition('/')[2]}-{found['variant']}".removesuffix("-"))
    own = _own_name(weights[0]["name"])
    names = [id] if id else [name for name in (own, told, _slug(f"{model}-{found['variant']}")) if name]
    name = await _free(session, names, model)
    # The files of a split model are taken in from beside the first, so they lie together.
    wanted = _placed(weights)
    for projector in projectors[:1]:
        wanted += _placed([{**projector, "role": "projector"}])
    records = await _fetch(session, wanted, name, how, again)
    beside = records[len(weights) :]
    more = {"origin": model, "projector": beside[0]["path"] if beside else ""}
    return await _take_in(session, records[: len(weights)], beside, name, more)


async def pull_file(session: Session, file: Record, id: str, how: dict[str, Any], again: str) -> Record:
    """Have the model in a file, as `downloads.start` describes it; the rest as for `pull_model`."""
    name = await _free(session, [id or _own_name(file["name"]) or _slug(Path(file["name"]).stem)], "")
    place = {"file": file, "destination": f"{_key(file['url'])}-{file['name']}"}
    return await _take_in(session, await _fetch(session, [place], name, how, again), [], name, {})


async def _free(session: Session, names: list[str], origin: str) -> str:
    """The first of the names that no installed model has. Asked before gigabytes are fetched."""
    installed = {each["id"]: each for each in (await session.call("models.list"))["models"]}
    for name in names:
        if name not in installed:
            return name
        if origin and installed[name].get("origin") == origin:
            raise Failed(f"{origin} is installed already, as {name}", "have it once more under another id: --id ID")
    raise Failed(f"there is a model {names[0]} already", "give this one another id: --id ID")


def _placed(files: list[Record]) -> list[Record]:
    """Files and the names they are kept under, which their hashes or addresses make: the same ones always come to lie
    in the same place, and others never do."""
    key = _key(*(file.get("sha256") or file["url"] for file in files))
    return [{"file": file, "destination": f"{key}-{file['name']}"} for file in files]


def _key(*told: str) -> str:
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:8]


async def _fetch(session: Session, wanted: list[Record], name: str, how: dict[str, Any], again: str) -> list[Record]:
    """The files, all of them or none, in this order."""
    group = await begin(session, "downloads.start_group", {"files": wanted, "name": name}, how)
    records = {record["destination"]: record for record in await fetch(session, group, again)}
    return [records[place["destination"]] for place in wanted]


async def _take_in(
    session: Session, records: list[Record], beside: list[Record], id: str, more: dict[str, Any]
) -> Record:
    files = [*records, *beside]
    hashes = {Path(record["path"]).name: sha256 for record in files if (sha256 := record["actual_sha256"])}
    unchecked = not all(record["verified"] for record in files)
    params = {"path": records[0]["path"], "id": id, "hashes": hashes, "unchecked": unchecked, **more}
    model: Record = await session.call("models.import", params)
    return model


def _is_projector(file: dict[str, Any]) -> bool:
    return file.get("role") == "projector" or "mmproj" in file["name"].lower()


def _own_name(file: str) -> str:
    """The id that a file's name makes; "" for a name that says nothing."""
    stem = _SHARD.sub("", file.lower().removesuffix(".gguf"))
    return "" if _SAYS_NOTHING.fullmatch(stem) else _slug(stem)


def _slug(text: str) -> str:
    """As an id is written: small letters, digits, dots and dashes."""
    return re.sub(r"\.{2,}", ".", re.sub(r"[^a-z0-9._]+", "-", text.lower()))[:96].strip("-._")
