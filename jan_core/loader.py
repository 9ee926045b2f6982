"""Brings an extension's source into the process and checks it, off to the side: nothing here is reachable yet.

Runs in a worker thread. Whatever goes wrong, `SystemExit` at import included, ends as a `StageError` with data in it.
Making a staged generation serve is `lifecycle.py`'s business.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Protocol

import msgspec

from . import manifest as manifests
from .extension import Failure, Generation
from .hookimpls import validate_plugin
from .manifest import Manifest, ManifestError
from .methods import Method
from .package import NativeCode, Snapshot, drop, qualified

__all__ = ["DependenciesChanged", "PackageSource", "Source", "StageError", "folder_source", "installed", "stage"]


class Source(Protocol):
    """Where an extension comes from."""

    @property
    def id(self) -> str: ...

    @property
    def origin(self) -> str:
        """Who provides it, as a person would recognise it: the package's name."""
        ...

    @property
    def watched(self) -> Sequence[Path]:
        """The folders and files it consists of. Empty: it cannot change while the process runs."""
        ...

    def manifest(self, api_version: str) -> tuple[Manifest, str]:
        """The manifest and the version, without importing anything. Raises ManifestError."""
        ...

    def read(self, previous: Snapshot | None) -> Snapshot | None:
        """Its code as it stands now, compiled, for a generation after the first; None when there is no code to read.

        Raises SyntaxError, SelfImport, NativeCode, OSError.
        """
        ...

    def load(self, number: int, snapshot: Snapshot | None) -> tuple[object, Snapshot | None]:
        """Make the plugin object of generation `number` from `snapshot` (None: whatever is there). May raise anything.

        Returns it and the snapshot that says what was loaded.
        """
        ...

    def package(self, number: int) -> str:
        """The name under which its package was imported for generation `number`; empty when there is none."""
        ...

    def release(self, number: int) -> None:
        """Forget what was imported for generation `number`."""
        ...


class DependenciesChanged(ManifestError):
    """What is settled when the process begins is another now: the packages it depends on, or its entry point."""


class PackageSource:
    """A package with a manifest: an installed distribution, or a project's folder.

    `entry` is `module:attribute`, a class (which is instantiated) or an object. The first generation of an installed
    package is imported under its ordinary name, as debuggers and tests expect, unless it is `live`: being edited, so
    that even code imported late must be of the generation that asks for it.
    """

    def __init__(self, id: str, entry: str, *, root: Path | None = None, file: Path | None = None, live: bool) -> None:
        module, _, self._attribute = entry.partition(":")
        self.origin, _, self._module = module.partition(".")
        self._id, self._root, self._file, self.live = id, root, file, live
        self._entry = entry
        self._dependencies: tuple[str, ...] | None = None
        self._names: dict[int, str] = {}

    @classmethod
    def of(cls, entry: EntryPoint) -> PackageSource:
        """The source behind an installed entry point."""
        return cls(entry.name, entry.value.partition("[")[0].strip(), live=False)

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> PackageSource:
        """The same source in another interpreter."""
        paths = {name: Path(recipe[name]) if recipe[name] else None for name in ("root", "file")}
        return cls(recipe["id"], recipe["entry"], live=recipe["live"], **paths)

    @property
    def recipe(self) -> dict[str, Any]:
        """What `from_recipe` takes, as plain data."""
        paths = {name: str(path) if path else "" for name, path in (("root", self._root), ("file", self._file))}
        return {"id": self._id, "entry": self._entry, "live": self.live, **paths}

    @property
    def id(self) -> str:
        return self._id

    @property
    def root(self) -> Path:
        """The package's folder. Raises ManifestError."""
        return self._root or manifests.find_package(self.origin)

    @property
    def file(self) -> Path:
        """The manifest file. Raises ManifestError."""
        return self._file or manifests.manifest_file(self.root)

    @property
    def watched(self) -> Sequence[Path]:
        try:
            return [self.root, self.file]
        except ManifestError:
            return []

    def manifest(self, api_version: str) -> tuple[Manifest, str]:
        project = manifests.read_manifest(self.file, api_version=api_version, id=self._id)
        if self._dependencies is None:
            self._dependencies = project.dependencies
        elif self._dependencies != project.dependencies:
            raise DependenciesChanged(f"the dependencies of {self._id} have changed; restart to take them over")
        if self._file is not None and project.entry_points.get(self._id) != self._entry:
            raise DependenciesChanged(f"the entry point of {self._id} has changed; restart to take it over")
        return project.manifest, project.version

    def read(self, previous: Snapshot | None) -> Snapshot:
        return Snapshot.take(self.origin, self.root, [self.file], previous=previous)

    def load(self, number: int, snapshot: Snapshot | None) -> tuple[object, Snapshot | None]:
        if snapshot is None and (number > 1 or self.live):
            snapshot = self.read(None)
        if snapshot is not None:
            self._names[number] = qualified(self.origin, number)
            module = snapshot.load(self._names[number], self._module)
        else:
            snapshot = self.seen()
            if self.origin not in sys.modules:  # what was there before us is somebody else's too
                self._names[number] = self.origin
            module = importlib.import_module(f"{self.origin}.{self._module}" if self._module else self.origin)
        found: Any = module
        for name in filter(None, self._attribute.split(".")):
            found = getattr(found, name)
        return found() if isinstance(found, type) else found, snapshot

    def package(self, number: int) -> str:
        return self._names.get(number, "")

    def release(self, number: int) -> None:
        if name := self._names.pop(number, ""):
            drop(name)

    def seen(self) -> Snapshot | None:
        """What lies on the disk, by its digests alone; None for native code, which is not read."""
        try:
            return Snapshot.take(self.origin, self.root, [self.file], compiled=False)
        except NativeCode:
            return None


def installed(*, live: bool = False) -> list[Source]:
    """Every extension installed here, by id; where two claim one id, the package named after it comes first.

    `live`: those whose code lies in a project's folder (editable installs) are loaded so that they can be edited.
    """
    sources = [PackageSource.of(entry) for entry in manifests.discover()]
    for source in sources:
        source.live = live and any(path.name == "pyproject.toml" for path in source.watched)
    return sorted(sources, key=lambda s: (s.id, s.origin != f"jan_{s.id}", s.origin))


def folder_source(folder: Path) -> Source:
    """The extension in a project's folder, installed or not; its code can be edited while it runs.

    Raises ManifestError when there is no extension in it.
    """
    from . import API_VERSION

    project = manifests.read_manifest(folder / "pyproject.toml", api_version=API_VERSION)
    id = project.manifest.id
    if id not in project.entry_points:
        raise ManifestError(f'{project.path}: no entry point {id!r} in [project.entry-points."{manifests.GROUP}"]')
    entry = project.entry_points[id]
    package = entry.partition(":")[0].partition(".")[0]
    for root in (folder / "src" / package, folder / package):
        if root.is_dir():
            return PackageSource(id, entry, root=root.resolve(), file=project.path.resolve(), live=True)
    raise ManifestError(f"{folder}: there is no package {package}, neither in src/ nor beside pyproject.toml")


class StageError(Exception):
    """A generation could not be made; `failure` says at which stage and why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def stage(source: Source, manifest: Manifest, number: int, snapshot: Snapshot | None = None) -> Generation:
    """Import one generation and check everything about it that can be checked without running it.

    Raises StageError; nothing of it is left in the process then.
    """
    load: Callable[[int, Snapshot | None], tuple[object, Snapshot | None]] = source.load
    if manifest.isolation == "process":
        from .isolation import loading

        load = loading(source, manifest)
    try:
        plugin, seen = _guard("import", load, number, snapshot)
        generation = Generation(source.id, number, plugin, snapshot=seen, manifest=manifest)
        _guard("validate", validate_plugin, plugin, generation.name)
        generation.methods = _guard("validate", _methods, plugin, manifest, generation)
        generation.settings_type = _guard("settings", _settings, plugin)
    except StageError:
        source.release(number)
        raise
    return generation


def read(source: Source, api_version: str, previous: Snapshot | None) -> tuple[Manifest, str, Snapshot | None]:
    """What a source consists of now: manifest, version, and compiled code. Raises StageError."""
    manifest, version = _guard("manifest", source.manifest, api_version)
    reader: Callable[[Snapshot | None], Snapshot | None] = source.read
    if manifest.isolation == "process":
        from .isolation import reading

        reader = reading(source)
    return manifest, version, _guard("compile", reader, previous)


def _methods(plugin: Any, manifest: Manifest, generation: Generation) -> list[Method]:
    contribute: Callable[[], Iterable[Method]] | None = getattr(plugin, "jan_methods", None)
    contributed = contribute() if contribute else []
    if contributed is None:
        raise TypeError("jan_methods returned None; return jan_core.methods_of(self)")
    methods = list(contributed)
    for method in methods:
        if not isinstance(method, Method):
            raise TypeError(f"jan_methods returned a {type(method).__name__}; use jan_core.methods_of")
        if not manifest.owns(method.name):
            raise ValueError(
                f"method {method.name} is outside of what the manifest claims: {', '.join(manifest.methods)}"
            )
    return [replace(method, owner=manifest.id, generation=generation) for method in methods]


def _settings(plugin: Any) -> type[msgspec.Struct] | None:
    name: Callable[[], Any] | None = getattr(plugin, "jan_settings", None)
    kind = name() if name else None
    if kind is None:
        return None
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        raise TypeError(f"jan_settings returned {kind!r}; it must name a msgspec.Struct")
    missing = [f.name for f in msgspec.structs.fields(kind) if f.required]
    if missing:
        raise TypeError(f"settings need defaults; {kind.__name__} has none for: {', '.join(missing)}")
    kind()
    return kind


def _guard(stage_name: str, function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except (KeyboardInterrupt, StageError):
        raise
    except BaseException as error:
        # SystemExit included: a plugin that calls sys.exit() at import must not end the host.
        raise StageError(Failure.of(stage_name, error)) from error
