"""What `engine.json` says about an installed build. Types only; `installed.py` reads and writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import Struct

from jan_core.types import Variant

__all__ = ["EngineRecord", "InstalledEngine", "Library"]


class Library(Struct, frozen=True):
    """One native library: its path inside the engine directory (with `/`), size in bytes, SHA-256 as hex."""

    path: str
    size: int
    sha256: str


class EngineRecord(Struct, frozen=True, kw_only=True):
    """The content of `engine.json`.

    `origin`: compiled here from source, a prebuilt wheel of the variant's index, or a wheel file given by the person.
    `pinned`: the engine's own package was checked against a SHA-256 shipped with this software; a wheel never is, and
    its libraries' hashes below are then what arrived, not what was expected. `devices`: what the engine listed when it
    was checked. `installed_at`: RFC 3339, UTC. `generation` counts the installations of this build, from 1.

    Of a wheel: `wheel` is its file's name, `sha256` what it hashed to, and `verified` who told that hash beforehand:
    the index, the person, or nobody.
    """

    format: Literal[1] = 1
    id: str
    generation: int = 1
    variant: Variant
    version: str
    origin: Literal["source", "wheel", "wheel-file"]
    pinned: bool
    installed_at: str
    devices: list[str]
    libraries: list[Library]
    wheel: str = ""
    sha256: str = ""
    verified: Literal["index", "person", "nobody"] = "nobody"


class InstalledEngine(Struct, frozen=True):
    """A usable build: `path` goes first on a worker's `sys.path`; the name of that folder tells it from the build's
    other generations."""

    path: Path
    record: EngineRecord

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        """Of the folder: the build's id, from its second generation on with `~<generation>`."""
        return self.path.name
