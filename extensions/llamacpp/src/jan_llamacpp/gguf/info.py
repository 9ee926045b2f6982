"""What a GGUF file is: read from its header, with everything checked that native code would trip over.

Beyond the format itself: the tensors lie inside the file, a model's blocks are really there (llama.cpp aborts
the process on a header with more blocks than it supports), and the vocabulary's arrays are equally long.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from stat import S_ISREG
from typing import TypeVar

from msgspec import Struct

from ..errors import InvalidModelFile
from .reader import Cursor, Value
from .types import FILE_TYPES, TENSOR_TYPES

__all__ = ["GGUFInfo", "TensorInfo", "check_model", "read_info"]

_MAX_KEYS = 1 << 16
_MAX_TENSORS = 1 << 17
_MAX_KEY = (1 << 16) - 1
_MAX_TENSOR_NAME = 63  # GGML_MAX_NAME counts the closing zero
_MAX_DIMS = 4  # GGML_MAX_DIMS
_MAX_BLOCKS = 512  # LLAMA_MAX_LAYERS, asserted by llama.cpp
_MAX_ELEMENTS = 1 << 48
_BLOCK = re.compile(r"(?:enc\.|dec\.)?blk\.(\d{1,6})\.")
_PER_TOKEN = ("tokenizer.ggml.scores", "tokenizer.ggml.token_type")

T = TypeVar("T", int, str)


class TensorInfo(Struct, frozen=True, array_like=True):
    """A tensor of the file: its dimensions in ggml's order (`dims[0]` is a row), its type's name, its bytes."""

    dims: list[int]
    type: str
    size: int


class GGUFInfo(Struct, frozen=True, kw_only=True):
    """A checked GGUF file.

    `size` is the file's in bytes, `n_params` counts tensor elements, `context_length` is in tokens as
    trained. `kind` is `model`, `adapter` (LoRA), `projector` (images, sound) or `shard` (one file of several;
    only its own part is checked). `quantization` is the file type's name (`Q4_K_M`), or that of the type most
    bytes have. `metadata` holds every value but long arrays; `lengths` the number of elements of each array.
    `split`: which part of how many the file is (counted from 0; (0, 1) for a whole model).
    """

    path: str
    size: int
    version: int
    kind: str
    architecture: str
    name: str
    n_params: int
    n_tensors: int
    quantization: str
    context_length: int
    embedding_length: int
    block_count: int
    tokenizer: str
    n_vocab: int
    eos_token_id: int | None
    has_chat_template: bool
    license: str
    metadata: dict[str, Value]
    lengths: dict[str, int]
    tensors: dict[str, TensorInfo]
    split: tuple[int, int]


def read_info(path: Path) -> GGUFInfo:
    """Read and check the header of `path`. Raises InvalidModelFile with the reason and the place."""
    try:
        if not S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            raise OSError("it is not a file")
        with path.open("rb") as file:
            return _parse(Cursor(file, str(path)), path)
    except (OSError, ValueError) as failure:  # ValueError: no path at all (a zero byte, a lone surrogate)
        why = failure.strerror if isinstance(failure, OSError) and failure.strerror else str(failure)
        raise InvalidModelFile(f"{path.name} cannot be read: {why}", path=str(path), reason="unreadable") from None


def check_model(info: GGUFInfo, offset: int = 0) -> None:
    """Check what is true of a whole model only, not of one file of several. Raises InvalidModelFile, at `offset`."""

    def fail(reason: str, message: str) -> InvalidModelFile:
        return InvalidModelFile(message, path=info.path, reason=reason, offset=offset)

    for key, number in (
        ("context_length", info.context_length),
        ("embedding_length", info.embedding_length),
        ("block_count", info.block_count),
    ):
        if not 0 < number < 1 << 31:
            raise fail("malformed", f"{info.architecture}.{key} is {number}")
    for key, value in info.metadata.items():
        if type(value) is not float or not key.startswith(f"{info.architecture}."):
            continue
        if not math.isfinite(value) or (value < 0 and key.endswith("epsilon")):  # NaN in every answer, or an abort
            raise fail("malformed", f"{key} is {value}")
    blocks = info.block_count
    if blocks > _MAX_BLOCKS:
        message = f"{info.architecture}.block_count is {blocks}: at most {_MAX_BLOCKS} blocks are supported"
        raise fail("limit", message)
    there = {int(block[1]) for name in info.tensors if (block := _BLOCK.match(name))}
    absent = [block for block in range(blocks) if block not in there]
    if absent:
        message = f"{blocks} blocks are promised, but {len(absent)} have no tensors (blk.{absent[0]}, …)"
        raise fail("missing_tensors", message)
    tokens = info.lengths.get("tokenizer.ggml.tokens")
    if info.tokenizer not in ("none", "no_vocab"):
        if not info.tokenizer:
            raise fail("missing_key", "the key tokenizer.ggml.model is missing")
        if not tokens:
            raise fail("missing_key", "the key tokenizer.ggml.tokens is missing")
        for key in _PER_TOKEN:
            if info.lengths.get(key, tokens) != tokens:
                raise fail("malformed", f"{key} has {info.lengths[key]} entries for {tokens} tokens")


def _parse(cursor: Cursor, path: Path) -> GGUFInfo:
    version = _version(cursor)
    n_tensors = cursor.count("tensors", 24, _MAX_TENSORS)
    n_keys = cursor.count("metadata keys", 13, _MAX_KEYS)
    metadata: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    for _ in range(n_keys):
        key = cursor.text("a metadata key", _MAX_KEY)
        if key in metadata:
            raise cursor.fail("malformed", f"the key {key} is there twice")
        value, length = cursor.value(key)
        metadata[key] = value
        if value is None or isinstance(value, list):
            lengths[key] = length
    tensors = _Tensors(cursor, n_tensors, _alignment(cursor, metadata))
    return _Checker(cursor, metadata, lengths, tensors).info(path, version)


def _version(cursor: Cursor) -> int:
    magic = cursor.take(4) if cursor.size >= 4 else b""
    if magic != b"GGUF":
        raise cursor.fail("not_gguf", "this is not a GGUF file: it does not begin with GGUF")
    version = cursor.u32()
    if version not in (2, 3):
        if int.from_bytes(version.to_bytes(4, "little"), "big") in (1, 2, 3):
            raise cursor.fail("big_endian", "this GGUF file was made for big-endian machines")
        raise cursor.fail("version", f"GGUF version {version} is not supported: 2 and 3 are")
    return version


def _alignment(cursor: Cursor, metadata: dict[str, Value]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise cursor.fail("malformed", f"general.alignment is {alignment!r}, not a power of two of at least 8")
    return alignment


class _Tensors:
    """The tensor table: reads it and checks it against the file's size."""

    def __init__(self, cursor: Cursor, number: int, alignment: int) -> None:
        self.by_name: dict[str, TensorInfo] = {}
        self.elements = 0
        self.bytes_by_type: dict[str, int] = {}
        end, last = 0, ""
        for _ in range(number):
            name, offset, size = self._tensor(cursor, alignment)
            if offset + size > end:
                end, last = offset + size, name
        data = -(-cursor.pos // alignment) * alignment
        missing = data + end - cursor.size
        if number and missing > 0:
            raise cursor.fail(
                "truncated", f"truncated: {missing} bytes missing (the tensor {last} ends after the file)"
            )

    def _tensor(self, cursor: Cursor, alignment: int) -> tuple[str, int, int]:
        name = cursor.text("a tensor's name", _MAX_TENSOR_NAME)
        if name in self.by_name:
            raise cursor.fail("tensor", f"the tensor {name} is there twice")
        n_dims = cursor.u32()
        if n_dims > _MAX_DIMS:
            raise cursor.fail("tensor", f"the tensor {name} has {n_dims} dimensions: at most {_MAX_DIMS} exist")
        dims = [cursor.u64() for _ in range(n_dims)]
        elements = 1
        for dim in dims:
            elements *= dim
        if not 0 < elements < _MAX_ELEMENTS:
            raise cursor.fail("tensor", f"the tensor {name} has impossible dimensions")
        kind = TENSOR_TYPES.get(cursor.u32())
        if kind is None:
            raise cursor.fail("tensor", f"the tensor {name} has a type this version does not know")
        type_name, per_block, block_bytes = kind
        if (dims[0] if dims else 1) % per_block:
            raise cursor.fail("tensor", f"a row of the tensor {name} is not a whole number of {type_name} blocks")
        offset = cursor.u64()
        if offset % alignment:
            raise cursor.fail("tensor", f"the tensor {name} lies at {offset}, which is not a multiple of {alignment}")
        size = elements // per_block * block_bytes
        self.by_name[name] = TensorInfo(dims, type_name, size)
        self.elements += elements
        self.bytes_by_type[type_name] = self.bytes_by_type.get(type_name, 0) + size
        return name, offset, size


class _Checker:
    """Checks the metadata of one file against itself and its tensors, and says what the file is."""

    def __init__(self, cursor: Cursor, metadata: dict[str, Value], lengths: dict[str, int], tensors: _Tensors) -> None:
        self._cursor = cursor
        self._metadata = metadata
        self._lengths = lengths
        self._tensors = tensors

    def info(self, path: Path, version: int) -> GGUFInfo:
        read = self._optional if self._split()[0] else self._required  # only the first of several files says
        architecture = read("general.architecture", str) or ""
        kind = self._kind(architecture)
        whole = self._required if kind == "model" else self._optional
        context = whole(f"{architecture}.context_length", int) or 0
        embedding = whole(f"{architecture}.embedding_length", int) or 0
        blocks = whole(f"{architecture}.block_count", int) or 0
        tokenizer = whole("tokenizer.ggml.model", str) or ""
        eos = self._optional("tokenizer.ggml.eos_token_id", int)
        n_vocab = self._lengths.get("tokenizer.ggml.tokens", 0)
        info = GGUFInfo(
            path=str(path),
            size=self._cursor.size,
            version=version,
            kind=kind,
            architecture=architecture,
            name=self._optional("general.name", str) or path.stem,
            n_params=self._tensors.elements,
            n_tensors=len(self._tensors.by_name),
            quantization=self._quantization(),
            context_length=context,
            embedding_length=embedding,
            block_count=blocks,
            tokenizer=tokenizer,
            n_vocab=n_vocab,
            eos_token_id=eos if eos is not None and 0 <= eos < n_vocab else None,  # as llama.cpp does
            has_chat_template=bool(self._optional("tokenizer.chat_template", str)),
            license=self._optional("general.license", str) or "",
            metadata=self._metadata,
            lengths=self._lengths,
            tensors=self._tensors.by_name,
            split=self._split(),
        )
        if kind == "model":
            check_model(info, self._cursor.pos)
        return info

    def _kind(self, architecture: str) -> str:
        if self._split()[1] > 1:
            return "shard"
        declared = self._optional("general.type", str)
        if declared == "adapter":
            return "adapter"
        return "projector" if architecture == "clip" or declared == "mmproj" else "model"

    def _split(self) -> tuple[int, int]:
        number, count = self._optional("split.no", int) or 0, self._optional("split.count", int) or 1
        if not 0 <= number < max(count, 1):
            raise self._cursor.fail("malformed", f"split.no is {number}, of split.count {count}")
        return number, max(count, 1)

    def _quantization(self) -> str:
        file_type = self._optional("general.file_type", int)
        named = FILE_TYPES.get(file_type) if file_type is not None else None
        if named or not self._tensors.bytes_by_type:
            return named or ""
        return max(self._tensors.bytes_by_type.items(), key=lambda item: item[1])[0]

    def _required(self, key: str, kind: type[T]) -> T:
        value = self._optional(key, kind)
        if value is None:
            raise self._cursor.fail("missing_key", f"the key {key} is missing")
        return value

    def _optional(self, key: str, kind: type[T]) -> T | None:
        value = self._metadata.get(key)
        if value is None:
            return None
        if type(value) is not kind:
            raise self._cursor.fail("malformed", f"{key} is not {'a number' if kind is int else 'a text'}")
        return value
