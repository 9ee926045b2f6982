"""How a form writes something, as a pattern that a text can be held against while it comes.

A pattern is what the model would write, with slots: `<function={name}>`. Where it has white space, and at its edges,
a text may have any or none; around `{value}` white space belongs to the value.
"""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

__all__ = ["More", "Pattern", "Span", "endings", "partial"]

_PARTS = re.compile(r"(\{\w+\}|\s+)")
_SPACE = re.compile(r"\s{0,100}")
_WORD = re.compile(r"[^\s<>{}\[\]\"'`]{0,128}")
"""What a slot may hold: the name of a tool, or an id."""
_KEY = re.compile(r"[^<>\"\r\n]{0,128}")
"""What `{key}` may hold, the name of an argument."""

More = Literal["more"]


class Span(Struct, frozen=True):
    """A pattern ends at `end` of the text; what stands in its slots."""

    end: int
    slots: dict[str, str]


class Pattern:
    """A pattern, or several after each other. `tight`: white space after it is not its own."""

    def __init__(self, *written: str, tight: bool = False) -> None:
        self._parts = [" "]
        for each in written:
            self._parts += [" " if part.isspace() else part for part in _PARTS.split(each) if part]
            self._parts.append(" ")
        if tight:
            self._parts.pop()

    @property
    def first(self) -> str:
        """The text it begins with; empty when it begins with a slot, or is empty."""
        part = next((part for part in self._parts if part != " "), "{")
        return "" if part.startswith("{") else part

    def match(self, text: str, at: int = 0) -> Span | More | None:
        """Where it ends in `text`, if it begins at `at`; `more` when that depends on what comes."""
        slots: dict[str, str] = {}
        for part, after in zip(self._parts, [*self._parts[1:], " "], strict=True):
            if part == " ":
                space = _SPACE.match(text, at)
                assert space is not None
                at = space.end()
            elif part.startswith("{"):
                word = (_KEY if part == "{key}" else _WORD).match(text, at)
                assert word is not None
                end = word.end()
                if after != " ":
                    found = text.find(after, at, end + len(after))
                    if found < 0:
                        return "more" if after.startswith(text[end:]) and end - at < 128 else None
                    end = found
                elif end == len(text) and end - at < 128:
                    return "more"
                if end == at:
                    return None
                slots[part[1:-1]], at = text[at:end], end
            elif text.startswith(part, at):
                at += len(part)
            else:
                return "more" if part.startswith(text[at:]) else None
        return Span(at, slots)


def endings(written: str) -> list[Pattern]:
    """What stands after something, token by token: a model may leave some of it out at its answer's end."""
    return [Pattern(part, tight=True) for part in re.split(r"\s+|(?=<)", written) if part]


def partial(text: str, *markers: str) -> int:
    """How many of the last characters of `text` could begin one of the markers."""
    longest = 0
    for marker in markers:
        for size in range(min(len(marker) - 1, len(text)), longest, -1):
            if text.endswith(marker[:size]):
                longest = size
                break
    return longest
