"""Models in several files: `NAME-00001-of-00003.gguf` and its siblings, as llama.cpp names and finds them."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from ..errors import InvalidModelFile
from .info import GGUFInfo, check_model, read_info

__all__ = ["read_model", "shard_name", "shards_of"]

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)
_MOST = 1024


def shard_name(prefix: str, number: int, count: int) -> str:
    """The name of file `number` (from 0) of `count`; a model in one file is `prefix` with its ending."""
    return f"{prefix}.gguf" if count == 1 else f"{prefix}-{number + 1:05d}-of-{count:05d}.gguf"


def shards_of(path: Path) -> list[Path]:
    """All files of the model that `path` is one of, the first one first. Whether they exist is not looked at."""
    named = _SHARD.fullmatch(path.name)
    if named is None or not 1 < int(named[3]) <= _MOST:
        return [path]
    return [path.with_name(shard_name(named[1], number, int(named[3]))) for number in range(int(named[3]))]


def read_model(path: Path) -> GGUFInfo:
    """Read and check the headers of all files of a model, `path` being any of them: what is told is of all together.

    Raises InvalidModelFile; a file that is missing is named.
    """
    info = read_info(path)
    count = info.split[1]
    if count == 1:
        return info
    files = shards_of(path)
    if len(files) != count:
        message = f"{path.name} is one of {count} files of a model; their names must end in -00001-of-{count:05d}.gguf"
        raise InvalidModelFile(message, path=str(path), reason="shard")
    parts = [_part(file, number, count) for number, file in enumerate(files)]
    first = parts[0]
    tensors = dict(first.tensors)
    for part in parts[1:]:
        if twice := tensors.keys() & part.tensors.keys():
            message = f"the tensor {min(twice)} is in more than one file"
            raise InvalidModelFile(message, path=part.path, reason="tensor")
        tensors |= part.tensors
    whole = msgspec.structs.replace(
        first,
        kind="model",
        size=sum(part.size for part in parts),
        n_params=sum(part.n_params for part in parts),
        n_tensors=len(tensors),
        tensors=tensors,
    )
    check_model(whole)
    return whole


def _part(file: Path, number: int, count: int) -> GGUFInfo:
    if not file.exists():
        message = f"{file.name} is missing: the model is made of {count} files, which must lie beside each other"
        raise InvalidModelFile(message, path=str(file), reason="shard")
    part = read_info(file)
    if part.split != (number, count):
        here = f"{part.split[0] + 1} of {part.split[1]}"
        message = f"{file.name} says of itself that it is file {here}"
        raise InvalidModelFile(message, path=str(file), reason="shard")
    return part
