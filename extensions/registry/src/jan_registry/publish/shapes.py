"""What the methods `registry.operator.*` take and answer. Paths are absolute; times RFC 3339 in UTC."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Problem"]


class Problem(Struct):
    """Something wrong in the operator's folder. `line` counts from 1; 0: the file as a whole. `field` as in
    `files[0].sha256`."""

    file: str
    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.field}: {self.reason}" if self.field else f"{place}: {self.reason}"
