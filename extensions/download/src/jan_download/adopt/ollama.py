"""Ollama's store of models.

Layout: `manifest/paths.go` (`BlobsPath`) and `envconfig/config.go` (`Models`) of github.com/ollama/ollama, and its FAQ:
`<models>/blobs/sha256-HEX`, by `OLLAMA_MODELS`, else `~/.ollama/models` (on Windows too), and where the Linux service
runs as a user of its own, `/usr/share/ollama/.ollama/models`. What is being fetched ends in `-partial`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .places import Places
from .reading import is_file

__all__ = ["named"]

_SERVICES = (
    "/usr/share/ollama/.ollama/models",  # its installer for Linux
    "/var/lib/ollama/.ollama/models",  # packages of distributions, by the service user's home
    "/var/lib/ollama/models",
    "/var/snap/ollama/common/models",
)


def named(places: Places, sha256: str) -> Iterator[Path]:
    """The blob of this hash in each store there is."""
    for models in _stores(places):
        blob = models / "blobs" / f"sha256-{sha256}"
        if is_file(blob):  # a service's folder may be closed to everybody else
            yield blob


def _stores(places: Places) -> Iterator[Path]:
    if chosen := places.variable("OLLAMA_MODELS"):
        yield chosen
    if usual := places.below_home(".ollama", "models"):
        yield usual
    if places.platform.startswith("linux"):
        yield from map(Path, _SERVICES)
