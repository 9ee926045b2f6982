"""A running host goes over to another overlay: the path, the extensions, and what cannot be taken over.

A process can hold one version of a package only. Where something that it has imported is another version in the new
overlay, nothing is taken over: the process goes on with all of the old overlay, which stays on disk as long as it
lives, and the new one serves from the next start.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING

from ..extension import State
from ..loader import PackageSource
from ..manifest import GROUP
from .overlay import Damaged, Overlays
from .packages import Installed, scan

if TYPE_CHECKING:
    from ..host import Host

__all__ = ["Taken", "take_over"]


@dataclass
class Taken:
    """How it went: the ids of the extensions that are new here, or why it has to wait for a restart."""

    ids: list[str] = field(default_factory=list)
    reason: str = ""


async def take_over(host: Host, overlays: Overlays, before: int, number: int) -> Taken:
    """Serve from overlay `number`, which has just been switched to from `before` (0: none)."""
    serving = overlays.serving_from()
    if serving != before:
        return Taken(reason="this process was started without the installed extensions, or before they were changed")
    try:
        old = scan(overlays[serving].site) if serving else {}
        new = scan(overlays[number].site) if number else {}
    except Damaged as damage:
        return Taken(reason=f"what this process runs is damaged: {damage}")
    changed = {name for name in {*old, *new} if _record(old.get(name)) != _record(new.get(name))}
    extensions = {name for name in changed if any(p.entries for p in (old.get(name), new.get(name)) if p)}
    if reason := _in_the_way(old, new, changed, extensions):
        return Taken(reason=reason)
    off = await _remove(host, [old[name] for name in extensions if name in old])
    _forget([old[name] for name in extensions if name in old])
    overlays.serve(number)
    importlib.invalidate_caches()
    taken = Taken()
    for name in sorted(extensions & set(new)):
        for id, entry in new[name].entries:
            if id not in off:
                host.remember_disabled(id, False)  # of one of that name that was here once
            extension = await host.lifecycle.add(PackageSource.of(EntryPoint(id, entry, GROUP)))
            if id in off:
                await host.lifecycle.disable(extension)
            taken.ids.append(extension.id)
    return taken


def _in_the_way(
    old: Mapping[str, Installed], new: Mapping[str, Installed], changed: Iterable[str], extensions: Iterable[str]
) -> str:
    for name in sorted(changed):
        if name in old and name in new and name not in extensions and _loaded(old[name]):
            return f"{name} {old[name].version} is in use, and {new[name].version} is installed now"
        if name in extensions and name in new and name in old and any(_native(m) for m in _loaded(old[name]).values()):
            return f"{name} has native code, which a process can load only once"
    return ""


async def _remove(host: Host, packages: Iterable[Installed]) -> set[str]:
    """End the extensions of packages; returns those that were switched off."""
    off = set()
    for package in packages:
        for id, _ in package.entries:
            extension = host.lifecycle.extensions.get(id)
            if extension is not None and extension.source.origin == _origin(package, id):
                if extension.state is State.DISABLED:
                    off.add(id)
                await host.lifecycle.remove(id)
    return off


def _forget(packages: Iterable[Installed]) -> None:
    """Drop what was imported from packages, so that their next import is of what is installed then."""
    for package in packages:
        for module in _loaded(package):
            del sys.modules[module]


def _loaded(package: Installed) -> dict[str, str]:
    """The modules that this process has imported from a package, each with its file."""
    mine = {str(package.site / path) for path, _ in package.files() if path.suffix in (".py", *_NATIVE)}
    files = {name: getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items())}
    return {name: file for name, file in files.items() if file in mine}


_NATIVE = tuple({Path(f"x{suffix}").suffix for suffix in EXTENSION_SUFFIXES})


def _native(file: str) -> bool:
    return file.endswith(tuple(EXTENSION_SUFFIXES))


def _origin(package: Installed, id: str) -> str:
    return dict(package.entries)[id].partition(":")[0].partition(".")[0]


def _record(package: Installed | None) -> str:
    return package.record if package else ""
