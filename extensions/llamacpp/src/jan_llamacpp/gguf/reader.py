"""A bounded cursor over the beginning of a file.

Buffered reads, not a memory map: a file that another process truncates must give an error here, not a SIGBUS.
Never more than `HEADER_LIMIT` bytes are read, and nothing is allocated by a count the file claims: whatever a
count announces must fit into what is left of the file, before anything is done with it.
"""

from __future__ import annotations

import functools
import os
import re
from struct import Struct
from typing import BinaryIO

from ..errors import InvalidModelFile
from .types import ARRAY, BOOL, SCALARS, STRING, VALUE_NAMES

__all__ = ["HEADER_LIMIT", "Cursor", "Scalar", "Value"]

HEADER_LIMIT = 64 * 1024 * 1024
_FIRST_READ = 256 * 1024
_KEPT_ARRAY = 1024  # longer arrays (vocabularies) are skipped; per-layer values are shorter
_KEPT_STRING = 1024 * 1024
_RUN = 4096  # strings stepped over at once
_USUAL_STRING = 20  # bytes of a string in a vocabulary, with its length; most are shorter

Scalar = int | float | bool | str
Value = Scalar | list[int] | list[float] | list[bool] | None
"""A metadata value; None for an array that was skipped because it is long or holds strings."""

_U32, _U64 = Struct("<I"), Struct("<Q")


class Cursor:
    """Reads forward through the header of one open file. `pos` is the next byte to read."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self.pos = 0
        self.size = os.fstat(file.fileno()).st_size
        self._file = file
        self._path = path
        self._data = b""

    def fail(self, reason: str, message: str) -> InvalidModelFile:
        """The error to raise at this place."""
        return InvalidModelFile(message, path=self._path, reason=reason, offset=self.pos)

    def need(self, count: int) -> None:
        """Make the next `count` bytes available. Raises InvalidModelFile when the file or the limit ends
        before.
        """
        end = self.pos + count
        if end <= len(self._data):
            return
        if end > self.size:
            raise self.fail("truncated", f"truncated: {end - self.size} bytes missing")
        if end > HEADER_LIMIT:
            raise self.fail("limit", f"the header is longer than {HEADER_LIMIT} bytes")
        # Doubling keeps the copying linear; vocabularies make headers of some MiB.
        self._read_to(max(end, 2 * len(self._data), _FIRST_READ))
        if len(self._data) < end:
            raise self.fail("truncated", f"truncated: {end - len(self._data)} bytes missing")

    def _read_to(self, end: int) -> None:
        wanted = min(end, HEADER_LIMIT, self.size) - len(self._data)
        if wanted > 0:
            self._data += self._file.read(wanted)

    def take(self, count: int) -> bytes:
        self.need(count)
        taken = self._data[self.pos : self.pos + count]
        self.pos += count
        return taken

    def scalar(self, form: Struct) -> int | float:
        self.need(form.size)
        value: int | float = form.unpack_from(self._data, self.pos)[0]
        self.pos += form.size
        return value

    def u32(self) -> int:
        return int(self.scalar(_U32))

    def u64(self) -> int:
        return int(self.scalar(_U64))

    def count(self, what: str, least: int, limit: int) -> int:
        """A count from the file, refused unless that many things of at least `least` bytes could follow."""
        number = self.u64()
        if number > limit:
            raise self.fail("limit", f"{number} {what}: at most {limit} are accepted")
        if number * least > self.size - self.pos:
            missing = number * least - (self.size - self.pos)
            raise self.fail("truncated", f"truncated: {number} {what} announced, at least {missing} bytes missing")
        return number

    def text(self, what: str, limit: int) -> str:
        """A length-prefixed string; bytes that are not UTF-8 are refused."""
        length = self.count(f"bytes in {what}", 1, limit)
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise self.fail("malformed", f"{what} is not UTF-8") from None

    def value(self, key: str) -> tuple[Value, int]:
        """A metadata value with its type before it, and its number of elements (1 for one that is no array).

        Long arrays and arrays of strings are stepped over: their value is None.
        """
        kind = self.u32()
        return self._array(key) if kind == ARRAY else (self._plain(key, kind), 1)

    def _plain(self, key: str, kind: int) -> Scalar:
        if kind == STRING:
            return self.text(f"the value of {key}", _KEPT_STRING)
        form = SCALARS.get(kind)
        if form is None:
            raise self.fail("malformed", f"{key} has the unknown value type {kind}")
        value = self.scalar(form)
        return self._bool(key, value) if kind == BOOL else value

    def _bool(self, key: str, value: int | float) -> bool:
        if value not in (0, 1):
            raise self.fail("malformed", f"{key} is a bool with the value {value}")
        return bool(value)

    def _array(self, key: str) -> tuple[Value, int]:
        kind = self.u32()
        if kind == STRING:
            number = self.count(f"strings in {key}", 8, HEADER_LIMIT)
            self._skip_strings(number)
            return None, number
        form = SCALARS.get(kind)
        if form is None:
            name = VALUE_NAMES.get(kind, str(kind))
            raise self.fail("malformed", f"{key} is an array of the type {name}, which is not supported")
        number = self.count(f"values in {key}", form.size, HEADER_LIMIT)
        if number > _KEPT_ARRAY:
            self.need(number * form.size)
            self.pos += number * form.size
            return None, number
        values = [self.scalar(form) for _ in range(number)]
        return ([self._bool(key, value) for value in values] if kind == BOOL else values), number

    def _skip_strings(self, number: int) -> None:
        """Step over `number` strings: a vocabulary and its merges are some hundred thousand of them."""
        run = None
        if number >= _RUN:
            run = _run_of_strings()
            self._read_to(self.pos + _USUAL_STRING * number)  # the fast walk needs whole runs in memory
        while number:
            if run and number >= _RUN and (match := run.match(self._data, self.pos)):
                self.pos = match.end()
                number -= _RUN
            else:
                number -= self._step(min(number, _RUN))

    def _step(self, most: int) -> int:
        """Step over up to `most` strings that are wholly in memory; where there is none, read on. Returns how many."""
        unpack, data, pos, known = _U64.unpack_from, self._data, self.pos, len(self._data) - 8
        done = 0
        while done < most and pos <= known:
            after = pos + 8 + unpack(data, pos)[0]
            if after > known + 8:
                break
            pos = after
            done += 1
        self.pos = pos
        if not done:
            self.need(8)
            self.need(8 + unpack(self._data, self.pos)[0])
        return done


@functools.cache
def _run_of_strings() -> re.Pattern[bytes]:
    """Matches `_RUN` length-prefixed strings of fewer than 64 bytes each: the same walk in half the time.

    Linear whatever the bytes are: the first byte decides the branch, and the possessive repeat never goes back.
    """
    likely_first = sorted(range(64), key=lambda length: abs(length - 6))
    strings = [re.escape(bytes([n])) + rb"\x00" * 7 + (b".{%d}" % n if n else b"") for n in likely_first]
    return re.compile(b"(?:" + b"|".join(strings) + b"){%d}+" % _RUN, re.DOTALL)
