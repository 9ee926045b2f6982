"""What is installed: reading, checking and removing engine directories.

A directory counts only with a valid `engine.json` whose libraries are all there; whatever else lies in
`<data>/engines/` is invisible. Nothing is installed here (`installer.py`) and no engine is imported.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from pathlib import Path

import msgspec

from .builds import version_key
from .errors import EngineNotFound
from .record import EngineRecord, InstalledEngine, Library

__all__ = ["damage", "discard", "find", "libraries", "list_installed", "remove", "sync_directory", "write_record"]

RECORD = "engine.json"
_LIBRARIES = ("*.so", "*.so.*", "*.dylib", "*.dll")


def is_name(build: str) -> bool:
    """Whether a build's id can name a folder beside the others: any extension may propose builds."""
    return bool(build) and not build.startswith(".") and Path(build).name == build


def find(engines: Path, build: str) -> InstalledEngine | None:
    """The installed build of this id under `engines`, or None. Compares sizes; hashes: `damage`."""
    if not is_name(build):
        return None
    path = engines / build
    try:
        record = msgspec.json.decode((path / RECORD).read_bytes(), type=EngineRecord)
        whole = all((path / lib.path).stat().st_size == lib.size for lib in record.libraries)
    except (OSError, ValueError):  # msgspec's errors are ValueErrors
        return None
    return InstalledEngine(path, record) if whole and record.id == build and record.libraries else None


def list_installed(engines: Path) -> list[InstalledEngine]:
    """Every usable build under `engines`, newest version first."""
    try:
        names = [entry.name for entry in os.scandir(engines) if entry.is_dir()]
    except OSError:
        return []
    found = [engine for name in names if (engine := find(engines, name))]
    return sorted(found, key=lambda engine: (version_key(engine.record.version), engine.id), reverse=True)


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
    """Take the build out of use in one rename, then delete it. Raises EngineNotFound."""
    engine = find(engines, build)
    if engine is None:
        known = [engine.id for engine in list_installed(engines)]
        raise EngineNotFound(f"the engine build {build!r} is not installed", build=build, known=known)
    discard(engine.path)


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
    with (directory / RECORD).open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """Force a directory's entries to the disk, where the system can (Windows cannot)."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def libraries(directory: Path) -> list[Library]:
    """Every native library of the engine in `directory`, hashed, in the order of their paths."""
    files = {file for pattern in _LIBRARIES for file in (directory / "llama_cpp").rglob(pattern) if file.is_file()}
    return [
        Library(file.relative_to(directory).as_posix(), file.stat().st_size, _sha256(file)) for file in sorted(files)
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
