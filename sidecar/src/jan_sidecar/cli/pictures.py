"""Pictures as the command line takes them: a file becomes a `data:` URL; what is none is said before anything loads.

Nothing is decoded here: whether a picture is whole, and of a size the model takes, is for whoever answers to say.
"""

from __future__ import annotations

import os
import shlex
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from .app import Failed

__all__ = ["DESCRIBE", "Picture", "read_pictures", "split_path"]

DESCRIBE = "Describe this picture."
"""What is asked when nothing is."""
LARGEST = 20 << 20
"""Bytes: the engine takes no more in one request."""
_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's file, by the name the person gave it, and its bytes as a URL."""

    name: str
    url: str

    def part(self) -> dict[str, Any]:
        """As a part of a message's content."""
        return {"type": "image_url", "image_url": {"url": self.url}}


def read_pictures(paths: Sequence[Path]) -> list[Picture]:
    """Raises Failed when a file cannot be read or does not begin as a picture does, and when they are too large."""
    room = LARGEST
    pictures = []
    for path in paths:
        try:
            with path.open("rb") as file:
                data = file.read(room + 1)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise Failed(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
        kind = next((kind for magic, kind in _KINDS if data.startswith(magic)), None)
        if kind is None:
            raise Failed(f"{path} is not a picture that is read here: PNG, JPEG, GIF and BMP are")
        room -= len(data)
        if room < 0:
            raise Failed(f"{path} is too large: the pictures of a question have at most {LARGEST >> 20} MiB together")
        pictures.append(Picture(str(path), f"data:{kind};base64,{b64encode(data).decode('ascii')}"))
    return pictures


def split_path(text: str) -> tuple[Path, str]:
    """The path that `text` begins with, quoted or escaped as in a shell, and what follows it.

    Raises ValueError for a quote that is not closed, and for the home of nobody.
    """
    source = StringIO(text)
    words = shlex.shlex(source, posix=True)
    words.whitespace_split, words.commenters = True, ""
    if os.name == "nt":
        words.escape = ""  # a backslash stands between folders there
    path = words.get_token() or ""
    try:
        return Path(path).expanduser(), source.read().strip()
    except RuntimeError:
        raise ValueError(f"there is no such user: {path}") from None
