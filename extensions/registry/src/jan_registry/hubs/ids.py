"""Ids and file names that are the same whatever order a hub lists things in, and safe wherever they are written.

Pure: text in, text out. It knows nothing of hubs, and keeps no list of what was given before.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable

__all__ = ["distinct", "file_name", "model_id", "slug"]

_NOT_ID = re.compile(r"[^a-z0-9._+-]+")
_NOT_NAME = re.compile(r"[^A-Za-z0-9._+() -]+")
_RESERVED = re.compile(r"(?i)(?:con|prn|aux|nul|conin\$|conout\$|com[0-9]|lpt[0-9])(?:\.|$)")
_ID_LENGTH, _SLUG_LENGTH, _NAME_LENGTH = 128, 96, 180


def slug(text: str, limit: int = _SLUG_LENGTH) -> str:
    """One part of an id: lower case, letters, digits and `._+-` of ASCII, none of `.+-` first or last.

    What differs only in case has one id, as on the hubs. Where anything else is lost (other scripts, a cut end), a hash
    of the whole is put behind, so that two names that look alike when reduced stay two. Never empty.
    """
    whole = unicodedata.normalize("NFC", text).lower()
    kept = _NOT_ID.sub("-", whole.replace(" ", "-"))
    kept = re.sub(r"\.{2,}", ".", kept).strip(".+-")
    if kept == whole.replace(" ", "-") and 0 < len(kept) <= limit:
        return kept
    cut = kept[: limit - 9].rstrip(".+-")
    return f"{cut}-{_hash(whole)}" if cut else _hash(whole)


def model_id(*parts: str) -> str:
    """A model's id from its names on a hub: `model_id("janhq/Jan-v1-4B-GGUF")` is `janhq/jan-v1-4b-gguf`.

    Parts, and what `/` divides within them, are reduced each by itself; `:` may divide off a variant in the last one.
    At most 128 characters.
    """
    pieces = [piece for part in parts for piece in part.split("/") if piece.strip(".+- ")]
    if not pieces:
        return slug("/".join(parts))
    *places, last = pieces
    name, _, variant = last.partition(":")
    tail = slug(name) + (":" + slug(variant) if variant else "")
    whole = "/".join([*map(slug, places), tail])
    if len(whole) <= _ID_LENGTH:
        return whole
    return f"{whole[: _ID_LENGTH - 9].rstrip('.+-/:')}-{_hash('/'.join(pieces).lower())}"


def file_name(stem: str, suffix: str = "") -> str:
    """A plain file name that every file system takes: `suffix` stays as it is, what else is lost has a hash put behind.

    `stem` may hold `/`, which becomes `-`.
    """
    whole = unicodedata.normalize("NFC", stem)
    kept = _NOT_NAME.sub("-", whole.replace("/", "-")).strip(" .-+()") if stem else ""
    if kept == whole.replace("/", "-") and kept and len(kept) + len(suffix) <= _NAME_LENGTH:
        safe = kept
    else:
        cut = kept[: _NAME_LENGTH - len(suffix) - 9].rstrip(" .-+()")
        safe = f"{cut}-{_hash(whole)}" if cut else _hash(whole)
    return ("_" if _RESERVED.match(safe + suffix) else "") + safe + suffix


def distinct(names: Iterable[str], reduce: Callable[[str], str]) -> dict[str, str]:
    """Each name -> what `reduce` makes of it, no two alike in lower case.

    Of those that come out alike, the first in the order of their bytes keeps it, and the others get a hash of theirs
    behind: the order in which they are listed does not count.
    """
    taken: set[str] = set()
    chosen: dict[str, str] = {}
    for name in sorted(set(names)):
        reduced = reduce(name)
        if reduced.lower() in taken:
            reduced = f"{reduced}-{_hash(name)}"
        while reduced.lower() in taken:
            reduced = f"{reduced[:-8]}{_hash(reduced)}"
        taken.add(reduced.lower())
        chosen[name] = reduced
    return chosen


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
