"""A new extension project: `template/` copied under another name. What `jan ext new` does.

The template is an ordinary extension called `brand-new`, linted, type-checked and tested as it stands; making a project
of it replaces that one name in its three spellings. Nothing here installs, loads or runs anything.
"""

from __future__ import annotations

import keyword
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

__all__ = ["NameRefused", "check_name", "class_name", "module_name", "new_project", "prefix"]

TEMPLATE = Path(__file__).parent / "template"

LONGEST = 40
"""Characters of a name: it becomes part of method names and folders that people type."""

RESERVED = frozenset({"core", "direct", "extensions", "host", "jan", "logs", "rpc", "settings", "sidecar", "system"})
"""The host's own names: its method prefixes, its packages, and what lies in the data folder beside the extensions'."""

DEVICES = re.compile(r"aux|con|nul|prn|(com|lpt)[0-9]")
"""Names that cannot be a file's on Windows."""

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


class NameRefused(ValueError):
    """No extension can have this name; the text says why."""


def check_name(name: str, taken: Mapping[str, str]) -> None:
    """Raise NameRefused unless an extension can be called `name`.

    `taken` are the method prefixes and ids that are somebody's, and whose.
    """
    if not _NAME.fullmatch(name):
        raise NameRefused(
            f"{name!r} cannot be an extension's name: use a-z, 0-9 and single hyphens, beginning with a letter, "
            "as in my-tool"
        )
    if len(name) > LONGEST:
        raise NameRefused(f"the name has {len(name)} characters; {LONGEST} are allowed")
    if name.startswith(("jan-", "jan_")):
        raise NameRefused(f"leave out the jan in {name!r}: the package is called jan-NAME by itself")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise NameRefused(f"{name!r} is a word of Python")
    if name in RESERVED:
        raise NameRefused(f"{name!r} is a name of the host's own")
    if DEVICES.fullmatch(name):
        raise NameRefused(f"{name!r} is the name of a device on Windows")
    for claim in (name, prefix(name)):
        if claim in taken:
            raise NameRefused(f"{claim!r} is taken by the extension {taken[claim]}, which is installed here")


def module_name(name: str) -> str:
    """The package of an extension: `my-tool` -> `jan_my_tool`."""
    return f"jan_{name.replace('-', '_')}"


def prefix(name: str) -> str:
    """The method prefix of an extension: `my-tool` -> `my_tool.`."""
    return f"{name.replace('-', '_')}."


def class_name(name: str) -> str:
    """The class of an extension: `my-tool` -> `MyToolExtension`."""
    return "".join(part.capitalize() for part in re.split("[-_]", name)) + "Extension"


def new_project(name: str, folder: Path) -> list[Path]:
    """Write a project for `name`, which `check_name` has passed, into `folder`: there is the whole of it, or nothing.

    Returns the files, relative to `folder`. Raises FileExistsError when the folder holds something already, or OSError.
    """
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise FileExistsError(f"{folder} is there already, and not an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = folder.parent / f".{folder.name}.{os.getpid()}"
    staging.mkdir()
    try:
        written = [_copy(source, name, staging) for source in sorted(TEMPLATE.rglob("*")) if _wanted(source)]
        if folder.exists():
            folder.rmdir()
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return written


def _wanted(source: Path) -> bool:
    """Caches may lie in it where its own tests were run."""
    return source.is_file() and not any(
        p.startswith(".") or p == "__pycache__" for p in source.relative_to(TEMPLATE).parts
    )


def _copy(source: Path, name: str, folder: Path) -> Path:
    relative = Path(_renamed(source.relative_to(TEMPLATE).as_posix(), name))
    target = folder / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(_renamed(source.read_text("utf-8"), name), "utf-8", newline="\n")
    return relative


def _renamed(text: str, name: str) -> str:
    """All spellings in one pass: what was put in is not looked at again, whatever the name."""
    spellings = {"brand-new": name, "brand_new": name.replace("-", "_"), "BrandNewExtension": class_name(name)}
    return re.sub("|".join(spellings), lambda found: spellings[found[0]], text)
