"""The overlays of a data folder: numbered sets of third-party packages, and the pointer that says which one serves.

    <data>/extensions/overlays/current           the number that serves; switched by one rename
    <data>/extensions/overlays/<n>/site/         the packages, as on sys.path
    <data>/extensions/overlays/<n>/wheels/       the wheels that were installed from files
    <data>/extensions/overlays/<n>/overlay.json  the record
    <data>/extensions/overlays/.stage-*/         being made; means nothing

Each overlay is a complete set and is never changed once it serves. The one before is kept, so that going back is a
switch too. Nothing in here knows how an overlay is made (`installer.py`).

This module is imported by every start of the product: it must stay light.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path

import msgspec
from msgspec import Struct

from . import lock

__all__ = ["Damaged", "Overlay", "Overlays", "Package", "Record", "Requirement", "activate", "python_tag"]

log = logging.getLogger(__name__)


class Damaged(Exception):
    """The overlays' folder is not as it was left. The text says what is wrong."""


class Requirement(Struct, omit_defaults=True):
    """One thing a person asked for. `spec` is what `uv` was asked; for a wheel file `wheel` is its name in `wheels/`,
    with its SHA-256, and `spec` where it came from. `needs` are the overlay's packages it stands on, itself included.
    """

    name: str
    spec: str
    wheel: str = ""
    sha256: str = ""
    indexes: list[str] = []
    find_links: list[str] = []
    needs: list[str] = []


class Package(Struct, omit_defaults=True):
    """One package in the overlay. `record` is the SHA-256 of its RECORD, which has those of all its files; `source` is
    the wheel file or address it came from, empty for an index."""

    name: str
    version: str
    record: str
    source: str = ""


class Record(Struct, omit_defaults=True):
    """`overlay.json`. `made` is in seconds since 1970. `extensions` are package names by id. `product` are the versions
    of the product's packages it was made for, `python` the interpreter's; `consent` the permissions a person agreed to,
    by extension."""

    number: int
    made: float
    python: str
    previous: int = 0
    requirements: list[Requirement] = []
    packages: list[Package] = []
    extensions: dict[str, str] = {}
    product: dict[str, str] = {}
    consent: dict[str, list[str]] = {}

    def versions(self) -> dict[str, str]:
        """Package versions by name."""
        return {package.name: package.version for package in self.packages}


class Overlay:
    """One numbered folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = folder / "site"
        self.wheels = folder / "wheels"
        self.in_use = folder / ".in-use"

    def record(self) -> Record:
        """Raises Damaged."""
        path = self.folder / "overlay.json"
        try:
            record = msgspec.json.decode(path.read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Damaged(f"{path}: {error}") from error
        if not self.site.is_dir():
            raise Damaged(f"{self.site} is not there")
        return record


class Overlays:
    """The overlays of one data folder. Whoever changes anything holds `lock`."""

    def __init__(self, data_dir: Path) -> None:
        self.root = data_dir / "extensions" / "overlays"
        self.lock = self.root / ".lock"
        self._pointer = self.root / "current"

    def __getitem__(self, number: int) -> Overlay:
        return Overlay(self.root / str(number))

    def current(self) -> int:
        """The number that serves; 0: none. Raises Damaged."""
        try:
            text = self._pointer.read_text("ascii").strip()
        except FileNotFoundError:
            return 0
        except (OSError, UnicodeDecodeError) as error:
            raise Damaged(f"{self._pointer}: {error}") from error
        if not text.isdecimal() or len(text) > 9:
            raise Damaged(f"{self._pointer}: {text[:40]!r} is no number")
        return int(text)

    def numbers(self) -> list[int]:
        """The overlays there are, whether they serve or not."""
        if not self.root.is_dir():
            return []
        names = [entry.name for entry in os.scandir(self.root)]
        return sorted(int(name) for name in names if name.isdecimal() and len(name) <= 9 and name == str(int(name)))

    def stage(self) -> Overlay:
        """A fresh folder to make an overlay in, on the same file system. What earlier makers left is removed."""
        for left in [*self.root.glob(".stage-*"), *self.root.glob(".current-*")]:
            _delete(left)
        overlay = Overlay(self.root / f".stage-{os.urandom(6).hex()}")
        overlay.site.mkdir(parents=True)
        overlay.wheels.mkdir()
        return overlay

    def next_number(self, current: int) -> int:
        """The number of an overlay that is made now."""
        return max([current, *self.numbers()]) + 1

    def adopt(self, stage: Overlay, record: Record) -> None:
        """Make a finished stage an overlay; it does not serve yet. Raises OSError."""
        path = stage.folder / "overlay.json"
        with path.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(record), indent=1))
            file.flush()
            os.fsync(file.fileno())
        sync(stage.folder)
        stage.folder.rename(self[record.number].folder)

    def switch(self, number: int) -> None:
        """Make an overlay the one that serves: the old one until the rename, the new one after it. Raises OSError."""
        fresh = self.root / f".current-{os.urandom(6).hex()}"
        with fresh.open("wb") as file:
            file.write(b"%d\n" % number)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._pointer)
        sync(self.root)

    def prune(self, keep: set[int]) -> None:
        """Remove the overlays not in `keep` that no process serves from. What cannot be removed stays for next time."""
        for number in self.numbers():
            overlay = self[number]
            if number not in keep:
                try:
                    unused = lock.free(overlay.in_use)
                except OSError:
                    continue
                if unused:
                    _delete(overlay.folder)

    def serving_from(self) -> int:
        """The number whose packages this process can import; 0: none."""
        for path in map(Path, sys.path):
            if path.name == "site" and path.parent.parent == self.root and path.parent.name.isdecimal():
                return int(path.parent.name)
        return 0

    def serve(self, number: int) -> None:
        """Let this process import the packages of an overlay, instead of those of another one. 0: of none.

        They come last on the path, so that they can never stand in for the product's; `.pth` files in them are not
        executed. The overlay is kept from removal until the process ends, since what was imported from it may import
        more of it later.
        """
        before = self.serving_from()
        if number and number != before:
            try:
                lock.share(self[number].in_use)
            except OSError as error:  # a data folder that cannot be written: nobody removes anything either
                log.debug("the overlay in use cannot be marked: %s", error)
            sys.path.append(str(self[number].site))
        if before and number != before:
            sys.path.remove(str(self[before].site))


def activate(data_dir: Path) -> list[str]:
    """Put the overlay that serves on this process's path; returns what was added to it.

    For the start of a process, before extensions are discovered. Never fails: an overlay that is damaged, or was made
    for another Python, is left out with a warning, and `system.doctor` says what to do.
    """
    overlays = Overlays(data_dir)
    try:
        number = overlays.current()
        if not number:
            return []
        made_for = overlays[number].record().python
    except Damaged as error:
        log.warning("the installed extensions are left out: %s", error)
        return []
    if made_for != python_tag():
        log.warning("the installed extensions are left out: they are for %s, this is %s", made_for, python_tag())
        return []
    overlays.serve(number)
    return [str(overlays[number].site)]


def python_tag() -> str:
    """What a set of packages is made for: the interpreter's version and the machine."""
    machine = os.uname().machine if hasattr(os, "uname") else os.environ.get("PROCESSOR_ARCHITECTURE", "")
    return f"{sys.implementation.cache_tag}-{sys.platform}-{machine.lower()}"


def sync(folder: Path) -> None:
    """Force a folder's entries to the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
