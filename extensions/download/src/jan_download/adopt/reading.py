"""Looking at what belongs to other programs, with no trust in it: what cannot be read is not there."""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_file", "small_text"]

_LIMIT = 1 << 20


def is_file(path: Path) -> bool:
    """Whether this is a plain file, or a link to one, that can be looked at."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def small_text(path: Path) -> str:
    """The text of a file of at most 1 MiB; "" when there is none, it cannot be read, or it is longer or no UTF-8."""
    try:
        if not is_file(path):  # not a pipe, which would be waited for
            return ""
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
        return content.decode() if len(content) <= _LIMIT else ""
    except (OSError, ValueError):
        return ""
