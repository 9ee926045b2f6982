"""Damages a GGUF file's header in the ways files are damaged: by bits, by lengths, by types, by numbers that lie.

Knows where each field of a sound header is, so that most damage hits what a reader looks at and not the vocabulary,
which is most of the bytes.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Header", "damage", "parse"]

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_NUMBERS = (0, 1, 2, 3, 7, 31, 33, 127, 255, 256, 512, 513, 1000, 4096, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1)
_LARGE = (2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


@dataclass
class Pair:
    """A key with its value: the places of its parts. `end` is after it."""

    key: str
    start: int
    type_at: int
    value_at: int
    kind: int
    end: int


@dataclass
class Tensor:
    start: int
    dims_at: int
    n_dims: int
    type_at: int
    offset_at: int
    end: int


@dataclass
class Header:
    """A sound file: its bytes, and where its header's parts are."""

    data: bytes
    pairs: list[Pair] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    end: int = 0


def parse(path: Path) -> Header:
    """Of a file that is known to be sound."""
    data = path.read_bytes()
    found = Header(data)
    _, _, n_tensors, n_pairs = struct.unpack_from("<IIQQ", data)
    at = 24
    for _ in range(n_pairs):
        start = at
        at, key = _text(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        end = _skip(data, at + 4, kind)
        found.pairs.append(Pair(key, start, at, at + 4, kind, end))
        at = end
    for _ in range(n_tensors):
        start = at
        at, _ = _text(data, at)
        (n_dims,) = struct.unpack_from("<I", data, at)
        type_at = at + 4 + 8 * n_dims
        found.tensors.append(Tensor(start, at + 4, n_dims, type_at, type_at + 4, type_at + 12))
        at = type_at + 12
    found.end = at
    return found


def _text(data: bytes, at: int) -> tuple[int, str]:
    (length,) = struct.unpack_from("<Q", data, at)
    return at + 8 + length, data[at + 8 : at + 8 + length].decode()


def _skip(data: bytes, at: int, kind: int) -> int:
    if kind == _STRING:
        return _text(data, at)[0]
    if kind != _ARRAY:
        return at + _SIZES[kind]
    inner, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if inner != _STRING:
        return int(at + count * _SIZES[inner])
    for _ in range(count):
        at += 8 + struct.unpack_from("<Q", data, at)[0]
    return at


def damage(sound: Header, chance: random.Random) -> tuple[str, bytes]:
    """A damaged copy, and the name of what was done to it."""
    kinds = (_bit, _bit_of_the_structure, _cut, _number, _count, _type, _pair, _tensor, _string, _run, _float, _several)
    kind = chance.choice(kinds)
    return kind.__name__.strip("_"), bytes(kind(sound, chance))


def _small(sound: Header, chance: random.Random) -> Pair:
    """A pair that is no vocabulary."""
    return chance.choice([pair for pair in sound.pairs if pair.end - pair.start < 4096])


def _bit(sound: Header, chance: random.Random) -> bytearray:
    data = bytearray(sound.data)
    data[chance.randrange(sound.end)] ^= 1 << chance.randrange(8)
    return data


def _bit_of_the_structure(sound: Header, chance: random.Random) -> bytearray:
    data = bytearray(sound.data)
    part: Pair | Tensor = chance.choice((_small(sound, chance), chance.choice(sound.tensors)))
    for _ in range(chance.choice((1, 1, 2, 5))):
        data[chance.randrange(part.start, part.end)] ^= 1 << chance.randrange(8)
    return data


def _cut(sound: Header, chance: random.Random) -> bytearray:
    data = bytearray(sound.data)
    match chance.randrange(3):
        case 0:
            del data[chance.randrange(len(data)) :]
        case 1:
            del data[chance.randrange(sound.end) :]
        case _:
            at = chance.randrange(sound.end)
            del data[at : at + chance.randint(1, 64)]
    return data


def _number(sound: Header, chance: random.Random) -> bytearray:
    """One of the model's numbers is another."""
    data = bytearray(sound.data)
    pair = chance.choice([pair for pair in sound.pairs if _SIZES.get(pair.kind, 0) >= 4 and pair.kind != 6])
    size = _SIZES[pair.kind]
    value = chance.choice(_NUMBERS + (_LARGE if size == 8 else ()))
    data[pair.value_at : pair.end] = struct.pack("<Q", value)[:size]
    return data


def _float(sound: Header, chance: random.Random) -> bytearray:
    data = bytearray(sound.data)
    pair = chance.choice([pair for pair in sound.pairs if pair.kind == 6])
    value = chance.choice((0.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e-45, 3e38))
    data[pair.value_at : pair.end] = struct.pack("<f", value)
    return data


def _count(sound: Header, chance: random.Random) -> bytearray:
    """A count or a length is another: of tensors, of keys, of a text, of an array."""
    data = bytearray(sound.data)
    lengths = [8, 16]
    lengths += [pair.start for pair in sound.pairs]
    lengths += [pair.value_at for pair in sound.pairs if pair.kind == _STRING]
    lengths += [pair.value_at + 4 for pair in sound.pairs if pair.kind == _ARRAY]
    at = chance.choice(lengths)
    (before,) = struct.unpack_from("<Q", data, at)
    value = chance.choice((before + 1, max(before - 1, 0), before * 2, 0, *_NUMBERS, *_LARGE))
    struct.pack_into("<Q", data, at, value % 2**64)
    return data


def _type(sound: Header, chance: random.Random) -> bytearray:
    """A value's type is another, the bytes being what they were."""
    data = bytearray(sound.data)
    pair = chance.choice(sound.pairs)
    at = pair.value_at if pair.kind == _ARRAY and chance.random() < 0.5 else pair.type_at
    struct.pack_into("<I", data, at, chance.choice((*range(14), 99, 2**31, 2**32 - 1)))
    return data


def _pair(sound: Header, chance: random.Random) -> bytearray:
    """A key is gone, there twice, renamed, or has a value of another type."""
    data = bytearray(sound.data)
    pair = _small(sound, chance)
    (count,) = struct.unpack_from("<Q", data, 16)
    match chance.randrange(4):
        case 0:
            del data[pair.start : pair.end]
            count -= 1
        case 1:
            data[pair.start : pair.start] = data[pair.start : pair.end]
            count += 1
        case 2:
            data[pair.type_at - 1] ^= 1
        case _:
            data[pair.type_at : pair.end] = _value(chance)
    struct.pack_into("<Q", data, 16, count)
    return _padded(sound, data)


def _value(chance: random.Random) -> bytes:
    """A value of any type; some nest arrays, which llama.cpp does not know."""
    text = struct.pack("<Q", 3) + b"abc"
    number = struct.pack("<I", 7)
    return chance.choice(
        (
            struct.pack("<I", _STRING) + text,
            struct.pack("<II", 4, chance.choice(_NUMBERS)),
            struct.pack("<Ii", 5, -1),
            struct.pack("<IB", 7, chance.choice((0, 1, 2, 255))),
            struct.pack("<IQ", 10, chance.choice(_LARGE)),
            struct.pack("<Id", 12, float("nan")),
            struct.pack("<IIQ", _ARRAY, 4, 2) + number * 2,
            struct.pack("<IIQ", _ARRAY, 4, 0),
            struct.pack("<IIQ", _ARRAY, _STRING, 1) + text,
            struct.pack("<IIQ", _ARRAY, _ARRAY, 1) + struct.pack("<IQ", 4, 1) + number,
            struct.pack("<IIQ", _ARRAY, 7, 3) + b"\x01\x00\x05",
        )
    )


def _tensor(sound: Header, chance: random.Random) -> bytearray:
    """A tensor has other dimensions, another type or place, is gone, renamed or there twice."""
    data = bytearray(sound.data)
    tensor, other = chance.choice(sound.tensors), chance.choice(sound.tensors)
    (count,) = struct.unpack_from("<Q", data, 8)
    match chance.randrange(8):
        case 0:
            at = tensor.dims_at + 8 * chance.randrange(tensor.n_dims)
            struct.pack_into("<Q", data, at, chance.choice(_NUMBERS + _LARGE))
        case 1:
            struct.pack_into("<I", data, tensor.type_at, chance.choice((*range(45), 2**31, 2**32 - 1)))
        case 2:
            value = chance.choice((0, 32, 31, 2**20, len(data), *_LARGE))
            struct.pack_into("<Q", data, tensor.offset_at, value)
        case 3:  # over another one
            data[tensor.offset_at : tensor.end] = data[other.offset_at : other.end]
        case 4:
            struct.pack_into("<I", data, tensor.dims_at - 4, chance.choice((0, 1, 3, 4, 5, 2**31, 2**32 - 1)))
        case 5:
            del data[tensor.start : tensor.end]
            count -= 1
        case 6:
            data[tensor.start : tensor.start] = data[tensor.start : tensor.end]
            count += 1
        case _:  # the shape of another one, in its own place
            data[tensor.start : tensor.offset_at] = data[other.start : other.offset_at]
    struct.pack_into("<Q", data, 8, count)
    return _padded(sound, data)


def _string(sound: Header, chance: random.Random) -> bytearray:
    """A text holds other bytes."""
    data = bytearray(sound.data)
    pair = chance.choice([pair for pair in sound.pairs if pair.kind == _STRING and pair.end - pair.value_at > 8])
    at = chance.randrange(pair.value_at + 8, pair.end)
    data[at : min(pair.end, at + 4)] = chance.randbytes(min(4, pair.end - at))
    return data


def _run(sound: Header, chance: random.Random) -> bytearray:
    """A run of bytes is something else, anywhere in the header."""
    data = bytearray(sound.data)
    at, size = chance.randrange(sound.end), chance.choice((1, 4, 8, 64, 512))
    data[at : at + size] = chance.choice((chance.randbytes(size), bytes(size), b"\xff" * size))
    return data


def _several(sound: Header, chance: random.Random) -> bytearray:
    data = bytearray(sound.data)
    for _ in range(chance.randint(2, 4)):
        one = chance.choice((_number, _type, _tensor))(sound, chance)
        if len(one) != len(data):
            continue
        for at in range(sound.end):
            if one[at] != sound.data[at]:
                data[at] = one[at]
    return data


def _padded(sound: Header, data: bytearray) -> bytearray:
    """After a change of the header's length: the tensors' data where a reader looks for it."""
    changed = len(data) - len(sound.data)
    before, end = -sound.end % 32, sound.end + changed
    data[end : end + before] = bytes(-end % 32)
    return data
