"""What is installed: reading, checking and removing engine directories.

A directory counts only with a valid `engine.json` whose libraries are all there; whatever else lies in
`<data>/engines/` is invisible. Each installation of a build is a generation in a folder of its own: `cpu-0.3.36`,
`cpu-0.3.36~2`, … The newest one that is not set aside (`choice.py`) is the one in use, so the rename that brings a new
generation is the switch to it, and setting one aside is the way back. Nothing is installed here (`installer.py`) and no
engine is imported.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
import uuid
from pathlib import Path

import msgspec

from . import choice
from .builds import version_key
from .durable import replace
from .errors import EngineNotFound
from .record import EngineRecord, InstalledEngine, Library

__all__ = [
    "damage",
    "discard",
    "find",
    "generations",
    "kept",
    "libraries",
    "list_earlier",
    "list_installed",
    "next_generation",
    "prune",
    "remove",
    "write_record",
]

RECORD = "engine.json"
_LIBRARIES = ("*.so", "*.so.*", "*.dylib", "*.dll")


def is_name(build: str) -> bool:
    """Whether a build's id can name a folder beside the others: any extension may propose builds."""
    return bool(build) and not build.startswith(".") and Path(build).name == build and "~" not in build


def find(engines: Path, build: str) -> InstalledEngine | None:
    """The generation of this build that is in use, or None. Compares sizes; hashes: `damage`."""
    aside = choice.read(engines).aside
    return next((engine for engine in generations(engines, build) if engine.name not in aside), None)


def generations(engines: Path, build: str) -> list[InstalledEngine]:
    """Every whole generation of this build, newest first, those set aside included."""
    if not is_name(build):
        return []
    found = [_read(path) for path in (engines / build, *engines.glob(f"{glob.escape(build)}~*"))]
    return sorted((engine for engine in found if engine), key=lambda engine: engine.record.generation, reverse=True)


def list_installed(engines: Path) -> list[InstalledEngine]:
    """What is in use of every installed build, newest version first."""
    found = [engine for name in _builds(engines) if (engine := find(engines, name))]
    return sorted(found, key=_newest_last, reverse=True)


def list_earlier(engines: Path) -> list[InstalledEngine]:
    """The whole generations that are not in use, those set aside included, newest version first."""
    used = {engine.name for engine in list_installed(engines)}
    found = [engine for name in _builds(engines) for engine in generations(engines, name) if engine.name not in used]
    return sorted(found, key=_newest_last, reverse=True)


def next_generation(engines: Path, build: str) -> tuple[int, Path]:
    """The number and the folder of the next installation. What lies in that folder does not count."""
    used = [engine.record.generation for engine in generations(engines, build)]
    number = max(used, default=0) + 1
    return number, engines / (build if number == 1 else f"{build}~{number}")


def prune(engines: Path, build: str) -> None:
    """Keep the generation in use and the one before it that is not set aside; whatever cannot go now stays."""
    aside = choice.read(engines).aside
    keep = [engine.path for engine in generations(engines, build) if engine.name not in aside][:2]
    for path in (engines / build, *engines.glob(f"{glob.escape(build)}~*")):
        if path not in keep:
            with contextlib.suppress(OSError):  # Windows does not rename what is in use
                discard(path)


def kept(engines: Path, build: str) -> Path:
    """The folder of what an unfinished installation fetched and compiled, for the next attempt to go on with."""
    return engines / f".kept-{build}"


def damage(engine: InstalledEngine) -> list[str]:
    """The libraries that are not what was installed (read and hashed whole); empty: all well."""
    bad = []
    for lib in engine.record.libraries:
        try:
            same = _sha256(engine.path / lib.path) == lib.sha256
        except OSError:
            same = False
        if not same:
            bad.append(lib.path)
    return bad


def remove(engines: Path, build: str) -> None:
    """Take all generations of the build out of use, each in one rename, then delete them, and what was kept of an
    unfinished installation. Raises EngineNotFound when there is nothing.
    """
    paths = [engine.path for engine in generations(engines, build)]
    if is_name(build) and kept(engines, build).exists():
        paths.append(kept(engines, build))
    if not paths:
        known = [engine.id for engine in list_installed(engines)]
        raise EngineNotFound(f"the engine build {build!r} is not installed", build=build, known=known)
    for path in paths:
        discard(path)


def discard(path: Path) -> None:
    """Rename a directory out of the way and delete it: a crash in between leaves something that does not
    count.
    """
    doomed = path.with_name(f".trash-{uuid.uuid4().hex}")
    try:
        path.rename(doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed, ignore_errors=True)


def write_record(directory: Path, record: EngineRecord) -> None:
    """Write `engine.json` and force it and its directory to the disk: the rename that follows must not come
    first.
    """
    replace(directory / RECORD, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


def libraries(directory: Path) -> list[Library]:
    """Every native library of the engine in `directory`, hashed, in the order of their paths."""
    files = {file for pattern in _LIBRARIES for file in (directory / "llama_cpp").rglob(pattern) if file.is_file()}
    return [
        Library(file.relative_to(directory).as_posix(), file.stat().st_size, _sha256(file)) for file in sorted(files)
    ]


def _read(path: Path) -> InstalledEngine | None:
    try:
        record = msgspec.json.decode((path / RECORD).read_bytes(), type=EngineRecord)
        whole = all((path / lib.path).stat().st_size == lib.size for lib in record.libraries)
    except (OSError, ValueError):  # msgspec's errors are ValueErrors
        return None
    named = record.id if record.generation == 1 else f"{record.id}~{record.generation}"
    return InstalledEngine(path, record) if whole and named == path.name and record.libraries else None


def _builds(engines: Path) -> set[str]:
    """The ids that folders are named after, whatever is in them."""
    try:
        return {entry.name.partition("~")[0] for entry in os.scandir(engines) if entry.is_dir()}
    except OSError:
        return set()


def _newest_last(engine: InstalledEngine) -> tuple[object, str, int]:
    return version_key(engine.record.version), engine.id, engine.record.generation


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
