"""What lies in a folder of packages: whose files they are, whether they are whole, and which extensions are among them.

Nothing is imported; the files' own records are read: `RECORD` (PyPA's "Recording installed projects"), `METADATA`,
`entry_points.txt` and the extensions' manifests.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import Distribution, distributions
from pathlib import Path

from ..loader import PackageSource
from ..manifest import GROUP, Manifest, ManifestError, manifest_file, read_manifest
from .overlay import Damaged

__all__ = ["Contributed", "Installed", "canonical", "contributed", "paths", "product", "product_extensions", "scan"]


def canonical(name: str) -> str:
    """A package's name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True)
class Installed:
    """One package in a folder of packages."""

    name: str
    version: str
    site: Path
    info: Path
    """Its `.dist-info` folder."""
    entries: tuple[tuple[str, str], ...]
    """Its extensions: id and `module:attribute`."""

    @property
    def record(self) -> str:
        """SHA-256 of its RECORD. Raises Damaged."""
        return hashlib.sha256(self._record()).hexdigest()

    def files(self) -> Iterator[tuple[Path, str]]:
        """Its files, relative to the folder, each with the hash RECORD has for it (`sha256=…`, or empty).

        Raises Damaged, also for a file that lies elsewhere.
        """
        try:
            rows = list(csv.reader(self._record().decode("utf-8", "replace").splitlines()))
        except csv.Error as error:
            raise Damaged(f"{self.name} has a RECORD that cannot be read: {error}") from error
        for row in rows:
            if len(row) < 2:
                continue
            path = Path(row[0])
            if path.is_absolute() or ".." in path.parts or "\0" in row[0]:
                raise Damaged(f"{self.name} has a file outside of its folder: {row[0]}")
            yield path, row[1]

    @cached_property
    def paths(self) -> frozenset[Path]:
        """Its files, relative to the folder. Raises Damaged."""
        return frozenset(path for path, _ in self.files())

    def verify(self) -> None:
        """Compare every file with its hash. Raises Damaged."""
        for path, expected in self.files():
            kind, _, digest = expected.partition("=")
            if not expected or path.suffix == ".pyc":
                continue
            if kind not in ("sha256", "sha384", "sha512"):
                raise Damaged(f"{self.name}: {path} has a hash of an unknown kind, {kind[:20]}")
            try:
                with (self.site / path).open("rb") as file:
                    actual = hashlib.file_digest(file, kind).digest()
            except OSError as error:
                raise Damaged(f"{self.name}: {path}: {error.strerror or error}") from error
            if base64.urlsafe_b64encode(actual).rstrip(b"=") != digest.encode():
                raise Damaged(f"{self.name}: {path} is not as it was packaged")

    def link_into(self, site: Path) -> None:
        """Put the package into another folder too: as hard links where the file system can, else as copies.

        Raises Damaged, OSError.
        """
        for path, _ in self.files():
            source, target = self.site / path, site / path
            if not source.exists():
                continue  # bytecode, or missing: `verify` says
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:
                shutil.copy2(source, target)

    def sync(self) -> None:
        """Force its files to the disk. Raises OSError."""
        for path, _ in self.files():
            if (self.site / path).exists():
                descriptor = os.open(self.site / path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                except OSError:  # a file system that only syncs what was opened for writing
                    pass
                finally:
                    os.close(descriptor)

    def _record(self) -> bytes:
        try:
            return (self.info / "RECORD").read_bytes()
        except OSError as error:
            raise Damaged(f"{self.name} has no RECORD: {error.strerror}") from error


def scan(site: Path) -> dict[str, Installed]:
    """The packages in a folder, by canonical name; without those that do not say which package they are."""
    found: dict[str, Installed] = {}
    for info in sorted(site.glob("*.dist-info")):
        distribution = Distribution.at(info)
        name, version = _identity(distribution)
        if name:
            found[name] = Installed(name, version, site, info, tuple(_entries(distribution)))
    return found


@dataclass(frozen=True)
class Contributed:
    """An extension in a folder of packages that is not on the path yet."""

    id: str
    entry: str
    package: str
    version: str
    manifest: Manifest


def contributed(package: Installed, api_version: str) -> list[Contributed]:
    """The extensions that a package contributes, their manifests read and checked. Raises ManifestError."""
    found = []
    for id, entry in package.entries:
        name = entry.partition(":")[0].partition(".")[0]
        root = package.site / name
        if not name.isidentifier() or not root.is_dir():
            raise ManifestError(f"{package.name} names {entry!r} as extension {id}, and has no package {name!r}")
        try:
            project = read_manifest(manifest_file(root), api_version=api_version, id=id)
        except ManifestError as error:  # where it lies off to the side tells a person nothing
            raise ManifestError(str(error).replace(f"{package.site}{os.sep}", "")) from None
        found.append(Contributed(id, entry, package.name, package.version, project.manifest))
    return found


def product(overlays: Path) -> dict[str, str]:
    """The versions of everything this process can import without an overlay, by canonical name."""
    found: dict[str, str] = {}
    for distribution in distributions(path=paths(overlays)):
        name, version = _identity(distribution)
        if name and version:
            found.setdefault(name, version)  # the first on the path is the one that is imported
    return found


def product_extensions(overlays: Path, api_version: str) -> dict[str, Manifest | None]:
    """The extensions that are there without an overlay, by id; None for one whose manifest cannot be read."""
    found: dict[str, Manifest | None] = {}
    for distribution in distributions(path=paths(overlays)):
        for id, entry in _entries(distribution):
            try:
                found[id] = PackageSource(id, entry, live=False).manifest(api_version)[0]
            except ManifestError:
                found[id] = None
    return found


def paths(overlays: Path) -> list[str]:
    return [path for path in sys.path if overlays not in Path(path).parents]


def _identity(distribution: Distribution) -> tuple[str, str]:
    try:
        metadata = distribution.metadata
        return canonical(metadata["Name"] or ""), metadata["Version"] or ""
    except Exception:  # whatever somebody left there: a folder without metadata is None in one Python, raises in others
        return "", ""


def _entries(distribution: Distribution) -> Iterator[tuple[str, str]]:
    for entry in distribution.entry_points.select(group=GROUP):
        yield entry.name, entry.value.partition("[")[0].strip()
