"""What an extension says of itself without being imported.

The manifest is the table `[tool.jan.extension]` of the extension's own `pyproject.toml`, which its wheel carries as
`jan-extension.toml` inside the package. In an editable install the project file itself is read, so there is one source
in both cases, and name and version are the distribution's.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from .versions import satisfies

__all__ = [
    "GROUP",
    "Manifest",
    "ManifestError",
    "Project",
    "discover",
    "find_package",
    "manifest_file",
    "read_manifest",
]

GROUP = "jan.extensions"
"""The entry point group; an entry's name is the extension's id, its value the class to instantiate."""

CORE = "core"
"""The owner of the host's own methods and settings."""

_ID = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class ManifestError(Exception):
    """The manifest is missing or wrong. The text says where and what."""


class Manifest(msgspec.Struct, rename="kebab", forbid_unknown_fields=True, kw_only=True):
    """`[tool.jan.extension]`.

    `requires_core` is a range of host API versions; outside it the extension is refused. `activation` is `startup`
    (right after the client's `initialized`) or `on-method` (when a method it owns is first called). `methods` are the
    name prefixes it owns, `permissions` what it declares to do: shown and consented to, not enforced. `isolation` is
    where its code runs: `none` in the host's process, `process` in a child of its own.
    """

    id: str
    requires_core: str
    activation: Literal["startup", "on-method"] = "on-method"
    methods: list[Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*\.$")]] = []
    permissions: list[str] = []
    isolation: Literal["none", "process"] = "none"

    def owns(self, method: str) -> bool:
        """Whether `method` lies under one of the claimed prefixes."""
        return any(method.startswith(prefix) for prefix in self.methods)


class _Project(msgspec.Struct, rename="kebab"):
    version: str = "0"
    dependencies: list[str] = []
    entry_points: dict[str, dict[str, str]] = {}


class _Jan(msgspec.Struct):
    extension: Manifest | None = None


class _Tool(msgspec.Struct):
    jan: _Jan = msgspec.field(default_factory=_Jan)


class _Document(msgspec.Struct):
    """The parts of a pyproject.toml that are read."""

    project: _Project = msgspec.field(default_factory=_Project)
    tool: _Tool = msgspec.field(default_factory=_Tool)


def discover(group: str = GROUP) -> Iterator[EntryPoint]:
    """The entry points of installed extensions. Nothing is imported.

    A name that is claimed twice is yielded twice: deciding what that means is not the finder's business.
    """
    yield from entry_points(group=group)


@dataclass(frozen=True)
class Project:
    """What a manifest file says: the manifest, and what its distribution is. `entry_points` are those of our group."""

    path: Path
    manifest: Manifest
    version: str
    dependencies: tuple[str, ...]
    entry_points: dict[str, str]


def read_manifest(path: Path, *, api_version: str, id: str = "") -> Project:
    """Read and check a manifest file; `id` is what it must name, as the entry point does.

    Raises ManifestError when there is none, when it does not fit, or when the extension does not support this host.
    """
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ManifestError(f"{path}: {error}") from error
    try:
        parsed = msgspec.convert(document, _Document)
        manifest = parsed.tool.jan.extension
        if manifest is None:
            raise ManifestError(f"{path}: no table [tool.jan.extension]")
        supported = satisfies(api_version, manifest.requires_core)
    except (msgspec.ValidationError, ValueError) as error:
        raise ManifestError(f"{path}: {error}{_choices(str(error))}") from error
    if not _ID.fullmatch(manifest.id) or (id and manifest.id != id):
        raise ManifestError(f"{path}: id {manifest.id!r} must be the entry point's name, {id or 'in small letters'!r}")
    if manifest.id == CORE:
        raise ManifestError(f"{path}: {CORE!r} is the host itself, no extension's id")
    if not supported:
        raise ManifestError(
            f"{manifest.id} requires host API {manifest.requires_core}, this host has {api_version}; "
            "update the extension or the application"
        )
    project = parsed.project
    return Project(path, manifest, project.version, tuple(project.dependencies), project.entry_points.get(GROUP, {}))


def _choices(told: str) -> str:
    """What a value or a key that was refused could be; empty when it was refused for something else."""
    key = told.rpartition("$.tool.jan.extension")[2].strip(".`")
    if "unknown field" in told and not key:
        return f"; its keys are {', '.join(field.encode_name for field in msgspec.structs.fields(Manifest))}"
    if key.startswith("methods["):
        return ": a prefix is of a-z, 0-9 and _, and ends with a dot, as in 'my_tool.'"
    if "enum" in told:
        return next(
            f"; {key} is one of {', '.join(map(repr, get_args(field.type)))}"
            for field in msgspec.structs.fields(Manifest)
            if field.encode_name == key
        )
    return ""


def find_package(name: str) -> Path:
    """The folder of an installed package, without importing it. Raises ManifestError."""
    spec = PathFinder.find_spec(name)
    locations = list(spec.submodule_search_locations or []) if spec else []
    if not locations:
        raise ManifestError(f"package {name} is not there, or is a single module")
    return Path(locations[0])


def manifest_file(root: Path) -> Path:
    """The manifest of the package in folder `root`. Raises ManifestError."""
    # Beside the code in a wheel; in an editable install the package lies in the project, or in its src/ folder.
    candidates = [root / "jan-extension.toml", root.parent / "pyproject.toml", root.parent.parent / "pyproject.toml"]
    for path in candidates:
        if path.is_file():
            return path
    raise ManifestError(f"package {root.name} carries no jan-extension.toml")
