"""Control tokens written out in a conversation, kept from becoming control tokens.

Before a template is rendered, every such text in the messages is replaced by a mark; afterwards the rendering is cut
at the marks, and what they stand for is tokenised as plain text. What the template itself writes stays what it is.
Knows nothing of models: the texts are given to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

__all__ = ["Controls", "cut"]

MARK = "\U0010fffe"
"""A noncharacter: no template writes it, and in messages it is replaced."""
_MARKED = re.compile(f"{MARK}([0-9]{{1,8}}){MARK}")


class Controls:
    """The texts of a vocabulary's control tokens."""

    def __init__(self, texts: Iterable[str]) -> None:
        longest_first = sorted((re.escape(text) for text in set(texts) if text), key=len, reverse=True)
        self._pattern = re.compile("|".join(longest_first)) if longest_first else None

    def hide(self, value: Any, found: list[str]) -> Any:
        """`value` (of JSON) with a mark for each control text in its strings and keys; they are added to `found`."""
        if isinstance(value, str):
            return self._hidden(value, found)
        if isinstance(value, list):
            return [self.hide(each, found) for each in value]
        if isinstance(value, dict):
            return {self.hide(key, found): self.hide(each, found) for key, each in value.items()}
        return value

    def _hidden(self, text: str, found: list[str]) -> str:
        def mark(match: re.Match[str]) -> str:
            found.append(match[0])
            return f"{MARK}{len(found) - 1}{MARK}"

        text = text.replace(MARK, "\ufffd")
        return self._pattern.sub(mark, text) if self._pattern else text


def cut(text: str, found: list[str]) -> list[tuple[str, bool]]:
    """A rendering as its parts, in order; with each, whether it is the template's (and not a hidden text)."""
    parts: list[tuple[str, bool]] = []
    for at, part in enumerate(_MARKED.split(text)):
        if at % 2 == 0:
            parts.append((part, True))
        elif int(part) < len(found):
            parts.append((found[int(part)], False))
    return [(part, own) for part, own in parts if part]
