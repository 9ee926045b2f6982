"""The cache of the Hugging Face Hub, which its own library, llama.cpp and others share.

Layout and variables: https://huggingface.co/docs/hub/local-cache and huggingface_hub's `constants.py`:
`<hub>/models--OWNER--NAME/{blobs,refs,snapshots}`. A blob is named by its ETag, which is the SHA-256 for large (LFS and
Xet) files and git's SHA-1 for small ones; `snapshots/<commit>/<path>` are links to blobs, or the files themselves where
links cannot be made (Windows). What is being fetched ends in `.incomplete`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .places import Places
from .reading import is_file

__all__ = ["folders", "named"]

_KINDS = ("models--", "datasets--", "spaces--")


def named(places: Places, sha256: str) -> Iterator[Path]:
    """Blobs that bear this hash as their name: one look per repository."""
    for repository in _repositories(places):
        blob = repository / "blobs" / sha256
        if is_file(blob):
            yield blob


def folders(places: Places) -> Iterator[Path]:
    """Where the files are whose name is not their SHA-256."""
    for repository in _repositories(places):
        yield repository / "blobs"
        yield repository / "snapshots"


def _repositories(places: Places) -> Iterator[Path]:
    for hub in dict.fromkeys(_hubs(places)):
        with contextlib.suppress(OSError), os.scandir(hub) as entries:
            names = sorted(entry.name for entry in entries if entry.name.startswith(_KINDS))
            yield from (hub / name for name in names)


def _hubs(places: Places) -> Iterator[Path]:
    """The hub folder as the library finds it; and the usual one too, since other programs of the same person may run
    without these variables."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if hub := places.variable(name):
            yield hub
    if home := places.variable("HF_HOME"):
        yield home / "hub"
    if cache := places.variable("XDG_CACHE_HOME"):  # read on every system, unlike elsewhere
        yield cache / "huggingface" / "hub"
    if usual := places.below_home(".cache", "huggingface", "hub"):
        yield usual
