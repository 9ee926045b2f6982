"""What other people's servers say, made fit to be shown: without control characters, of bounded length, on one line.

It changes how something is written, never what a program acts on: ids, names of files and addresses have rules of
their own (`ids.py`, `links.py`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

__all__ = ["line", "lines", "tags"]

# Control characters but line feed; what turns the direction of text around; halves of a surrogate pair.
_HIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def line(text: str, limit: int = 200) -> str:
    """One line of at most `limit` characters."""
    return _cut(" ".join(_HIDDEN.sub(" ", text[: limit * 8]).split()), limit)


def lines(text: str, limit: int = 4000) -> str:
    """Text with its line breaks, of at most `limit` characters."""
    return _cut(_HIDDEN.sub(" ", text[: limit * 2].replace("\r\n", "\n")).strip(), limit)


def tags(words: Iterable[str], most: int = 64) -> list[str]:
    """Lines of at most 64 characters, each once, in their order."""
    return list(dict.fromkeys(short for word in words if (short := line(word, 64))))[:most]


def _cut(text: str, limit: int) -> str:
    text = unicodedata.normalize("NFC", text)
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
