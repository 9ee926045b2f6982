"""A running host goes over to another overlay: the path, the extensions, and what cannot be taken over.

A process can hold one version of a package only. Where something that it has imported is another version in the new
overlay, nothing is taken over: the process goes on with all of the old overlay, which stays on disk as long as it
lives, and the new one serves from the next start.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
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
from .threads import off_loop

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
    if serving == number:
        return Taken()
    if serving != before:
        return Taken(reason="this process was started without the installed extensions, or before they were changed")
    try:
        old, new, reason = await off_loop(_compare, overlays, serving, number)
    except Damaged as damage:
        return Taken(reason=f"what this process runs is damaged: {damage}")
    if reason:
        return Taken(reason=reason)
    off = await _remove(host, old)
    for module, _, path in _loaded(overlays):
        if any(path in package.paths for package in old):
            del sys.modules[module]  # so that the next import is of what is installed then
    overlays.serve(number)
    importlib.invalidate_caches()
    taken = Taken()
    for package in new:
        for id, entry in package.entries:
            if id not in off:
                host.remember_disabled(id, False)  # of one of that name that was here once
            source = PackageSource.of(EntryPoint(id, entry, GROUP))
            extension = await host.lifecycle.add(source, disabled=id in off)
            taken.ids.append(extension.id)
    return taken


def _compare(overlays: Overlays, serving: int, number: int) -> tuple[list[Installed], list[Installed], str]:
    """The packages with extensions that go, those that come, and what is in the way."""
    old = scan(overlays[serving].site) if serving else {}
    new = scan(overlays[number].site) if number else {}
    changed = sorted(name for name in {*old, *new} if _record(old.get(name)) != _record(new.get(name)))
    going = [old[name] for name in changed if name in old and old[name].entries]
    coming = [new[name] for name in changed if name in new and new[name].entries]
    # What was imported may come from an overlay before the old one, as far as it was the same there.
    origins = {number: scan(overlays[number].site) for _, number, _ in _loaded(overlays)}
    for package in new.values():
        for _, number, path in _loaded(overlays):
            was = origins[number].get(package.name)
            if path not in package.paths or _record(was) == package.record:
                continue
            if package not in coming:
                version = was.version if was else "another version"
                return going, coming, f"{package.name} {version} is in use, and {package.version} is installed now"
            if path.name.endswith(tuple(EXTENSION_SUFFIXES)):
                return going, coming, f"{package.name} has native code, which a process can load only once"
    return going, coming, ""


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


def _loaded(overlays: Overlays) -> list[tuple[str, int, Path]]:
    """The modules that this process has imported from any overlay: name, the overlay's number, the file in its site."""
    root, found = str(overlays.root) + os.sep, []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith(root):
            number, _, *inner = Path(file).relative_to(root).parts
            found.append((name, int(number), Path(*inner)))
    return found


def _origin(package: Installed, id: str) -> str:
    return dict(package.entries)[id].partition(":")[0].partition(".")[0]


def _record(package: Installed | None) -> str:
    return package.record if package else ""
