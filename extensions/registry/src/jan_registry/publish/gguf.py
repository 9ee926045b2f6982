"""What a GGUF file says about the model in it, for the record that an operator writes.

Only the facts a catalogue shows, read from the file's beginning; whether the file can be run is the engine's business.
Format: ggml's `docs/gguf.md`, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import Struct

from .reading import plain_file

__all__ = ["Facts", "read_facts"]

_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MAX_HEADER = 256 << 20
_MAX_COUNT = 1 << 24
_MAX_TEXT = 1 << 20


class Facts(Struct, frozen=True, kw_only=True):
    """`params`: how many numbers its tensors hold; `ctx` in tokens. Empty or 0: the file does not say."""

    name: str = ""
    arch: str = ""
    license: str = ""
    params: int = 0
    ctx: int = 0
    shards: int = 1


def read_facts(path: Path) -> Facts:
    """Raises ValueError when this is no GGUF file, or a damaged one, and OSError."""
    with plain_file(path) as file:
        reader = _Reader(file)
        if reader.take(4) != b"GGUF":
            raise ValueError("it is not a GGUF file")
        version = reader.number("<I")
        if version not in (2, 3):
            raise ValueError(f"it is GGUF version {version}; this program reads 2 and 3")
        tensors, pairs = reader.count(), reader.count()
        said: dict[str, Any] = {}
        for _ in range(pairs):
            key = reader.text()
            said[key] = reader.value(reader.number("<I"))
        params = 0
        for _ in range(tensors):
            reader.text()
            dimensions = reader.number("<I")
            if dimensions > 8:
                raise ValueError("a tensor has more than 8 dimensions")
            params += math.prod(reader.number("<Q") for _ in range(dimensions))
            reader.take(12)
    arch = _text(said.get("general.architecture"))
    context = said.get(f"{arch}.context_length")
    split = said.get("split.count")
    shards = split if isinstance(split, int) and split > 1 else 1
    return Facts(
        name=_text(said.get("general.name")),
        arch=arch,
        license=_text(said.get("general.license")),
        params=params if params < 2**53 and shards == 1 else 0,  # of a part, nobody can tell the whole
        ctx=context if isinstance(context, int) and 0 < context < 2**53 else 0,
        shards=shards,
    )


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, _MAX_HEADER

    def take(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise ValueError("its header is too large")
        content = self._file.read(size)
        if len(content) < size:
            raise ValueError("it is cut off")
        return content

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def count(self) -> int:
        number: int = self.number("<Q")
        if number > _MAX_COUNT:
            raise ValueError("it is damaged: a count is too large")
        return number

    def text(self) -> str:
        size = self.number("<Q")
        if size > _MAX_TEXT:
            raise ValueError("it is damaged: a text is too long")
        return self.take(size).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        """A value; None for an array, of which none is of interest."""
        if kind == _STRING:
            return self.text()
        if kind in _FORMATS:
            return self.number(_FORMATS[kind])
        if kind != _ARRAY or depth > 3:
            raise ValueError("it is damaged: a value of no kind")
        inner, count = self.number("<I"), self.count()
        if inner in _FORMATS:
            self.take(struct.calcsize(_FORMATS[inner]) * count)
        else:
            for _ in range(count):
                self.value(inner, depth + 1)
        return None


def _text(value: Any) -> str:
    """One line that can be shown; what a file says is not to be trusted with a terminal."""
    if not isinstance(value, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())[:200]
