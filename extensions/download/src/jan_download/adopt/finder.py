"""Who on this machine may have a file already: all places of other programs, the cheapest to look at first.

It yields candidates. Whether one is the file shows when it is taken in, see `taking`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jan_core.types import AdoptedFile

from ..settings import DownloadSettings
from . import huggingface, jan, llamacpp, lmstudio, ollama
from .folders import Search, unfinished
from .known import KnownHashes
from .places import Places

if TYPE_CHECKING:
    from ..storage.store import Store

__all__ = ["find", "known_hashes"]

_LONGEST = 5.0
_SHORTEST = 0.5
_RATE = 20e6
"""Bytes/s: a small file is looked for no longer than fetching it takes on a fast line."""


def find(
    sha256: str, size: int, settings: DownloadSettings, environment: Mapping[str, str], store: Store
) -> Iterator[AdoptedFile]:
    """Files that may be the one wanted; blocks while it looks. `size` 0: unknown, then only names are gone by.

    First what bears the hash as its name (Ollama, the Hugging Face cache) or in its record (Jan), then what has the
    size (LM Studio, Jan, llama.cpp, `settings.adopt_folders`), for 5 s at most: files known to hash to `sha256` before
    those never read. What is known to be another file is left out. Writes nothing; what cannot be read is not there.
    """
    if not sha256 or not settings.adopt:
        return
    places, known = Places(environment), known_hashes(store)
    search = Search(sha256, size, seconds=min(_LONGEST, max(_SHORTEST, size / _RATE)))
    search.leave_out(store.root)
    for origin, path in _named(places, sha256):
        if _may_be(path, size) and known.of(path) in ("", sha256):
            search.leave_out(path)
            yield AdoptedFile(str(path), origin)
    if not size:
        return
    unread = []
    for origin, folder in _folders(places, settings):
        for path in search.below(folder):
            before = known.of(path)
            if before == sha256:
                yield AdoptedFile(str(path), origin)
            elif not before:
                unread.append(AdoptedFile(str(path), origin))
    yield from unread


def known_hashes(store: Store) -> KnownHashes:
    """What is remembered of files of other programs."""
    return KnownHashes(store.root / "adopted.json")


def _named(places: Places, sha256: str) -> Iterator[tuple[str, Path]]:
    for origin, named in (("Ollama", ollama.named), ("Hugging Face cache", huggingface.named), ("Jan", jan.named)):
        for path in named(places, sha256):
            yield origin, path


def _folders(places: Places, settings: DownloadSettings) -> Iterator[tuple[str, Path]]:
    for chosen in settings.adopt_folders:
        if folder := places.expanded(chosen):
            yield chosen, folder
    for origin, folders in (
        ("LM Studio", lmstudio.folders),
        ("Jan", jan.folders),
        ("llama.cpp", llamacpp.folders),
        ("Hugging Face cache", huggingface.folders),
    ):
        for folder in folders(places):
            yield origin, folder


def _may_be(path: Path, size: int) -> bool:
    try:
        return not unfinished(path.name) and path.is_file() and size in (0, path.stat().st_size)
    except (OSError, ValueError):
        return False
