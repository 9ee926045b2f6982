"""Brings an extension's source into the process and checks it, off to the side: nothing here is reachable yet.

Runs in a worker thread. Whatever goes wrong, `SystemExit` at import included, ends as a `StageError` with data in it.
Making a staged generation serve is `lifecycle.py`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any, Protocol

import msgspec

from . import manifest as manifests
from .dispatch import validate_plugin
from .extension import Failure, Generation
from .manifest import Manifest
from .methods import Method

__all__ = ["EntryPointSource", "Source", "StageError", "installed", "stage"]


class Source(Protocol):
    """Where an extension comes from."""

    @property
    def id(self) -> str: ...

    @property
    def origin(self) -> str:
        """Who provides it, as a person would recognise it: the package's name."""
        ...

    def manifest(self, api_version: str) -> tuple[Manifest, str]:
        """The manifest and the version, without importing anything. Raises ManifestError."""
        ...

    def load(self, generation: int) -> object:
        """Import the source and make the plugin object. May raise anything."""
        ...


class EntryPointSource:
    """An installed distribution, found through its entry point."""

    def __init__(self, entry: EntryPoint) -> None:
        self._entry = entry

    @property
    def id(self) -> str:
        return self._entry.name

    @property
    def origin(self) -> str:
        return self._entry.value.partition(":")[0].partition(".")[0]

    def manifest(self, api_version: str) -> tuple[Manifest, str]:
        return manifests.read_manifest(self._entry, api_version=api_version)

    def load(self, generation: int) -> object:
        """The first generation is imported under its ordinary name, as debuggers and tests expect."""
        loaded = self._entry.load()
        return loaded() if isinstance(loaded, type) else loaded


def installed() -> list[Source]:
    """Every extension installed here, by id; where two claim one id, the package named after it comes first."""
    sources = [EntryPointSource(entry) for entry in manifests.discover()]
    return sorted(sources, key=lambda s: (s.id, s.origin != f"jan_{s.id}", s.origin))


class StageError(Exception):
    """A generation could not be made; `failure` says at which stage and why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def stage(source: Source, manifest: Manifest, number: int) -> Generation:
    """Import one generation and check everything about it that can be checked without running it.

    Raises StageError.
    """
    plugin = _guard("import", source.load, number)
    generation = Generation(source.id, number, plugin)
    _guard("validate", validate_plugin, plugin, generation.name)
    generation.methods = _guard("validate", _methods, plugin, manifest, generation)
    generation.settings_type = _guard("settings", _settings, plugin)
    return generation


def _methods(plugin: Any, manifest: Manifest, generation: Generation) -> list[Method]:
    contribute: Callable[[], Iterable[Method]] | None = getattr(plugin, "jan_methods", None)
    methods = list(contribute()) if contribute else []
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
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # SystemExit included: a plugin that calls sys.exit() at import must not end the host.
        raise StageError(Failure.of(stage_name, error)) from error
