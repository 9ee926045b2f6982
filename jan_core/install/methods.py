"""The methods about installing: what an installation would bring, doing it, and going back.

This module is imported by every start: what does the work is imported when it is asked for.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from ..errors import ExtensionNotFound, InstallFailed, InvalidParams
from ..extension import ExtensionInfo
from ..methods import Call, Empty, method
from .threads import seen_through

if TYPE_CHECKING:
    from ..host import Host
    from .installer import Installer
    from .overlay import Record
    from .proposal import Proposal
    from .resolve import Places

__all__ = ["InstallMethods"]


class InstallQuery(Struct, rename="camel", forbid_unknown_fields=True):
    """`source`: a requirement (`name`, `name[extra]>=1`), the address of a wheel, or the absolute path of a wheel, a
    source archive or a project's folder. `index_url`: an index that is asked first. `find_links`: absolute paths of
    folders with wheels. `offline`: use no network, only these folders and uv's cache."""

    source: str
    index_url: str = ""
    find_links: list[str] = []
    offline: bool = False


class InstallRequest(InstallQuery):
    """`permissions`: those that a person has agreed to; an extension that declares more is refused."""

    permissions: list[str] = []


class UninstallQuery(Struct, forbid_unknown_fields=True):
    """`purge`: delete its data folder too."""

    id: str
    purge: bool = False


class RepairQuery(Struct, forbid_unknown_fields=True):
    """`offline`: use no network. `permissions`: those agreed to beside what was agreed to before."""

    offline: bool = False
    permissions: list[str] = []


class OfferedExtension(Struct, rename="camel"):
    """What an extension says of itself in its manifest. Nothing of it has run."""

    id: str
    version: str
    package: str
    permissions: list[str]
    methods: list[str]
    activation: str
    requires_core: str
    isolation: str


class PackageChange(Struct, omit_defaults=True):
    """One package that is not as before: `version` is the new one, `before` the old one."""

    name: str
    change: Literal["added", "updated", "removed"]
    version: str = ""
    before: str = ""


class Offer(Struct):
    """What an installation would bring: its extensions, and the packages beside the application's. Both are empty when
    it is installed already."""

    extensions: list[OfferedExtension]
    packages: list[PackageChange]


class Change(Struct, rename="camel", omit_defaults=True):
    """What was done. `overlay` is the number of the set that serves from now on (0: none). `extensions` are the new
    ones as they are now. `restart_required`: this process goes on with the set before, for the `reason`."""

    overlay: int
    changed: bool
    packages: list[PackageChange] = []
    extensions: list[ExtensionInfo] = []
    restart_required: bool = False
    reason: str = ""


class OverlayInfo(Struct, rename="camel", omit_defaults=True):
    """One set of installed packages. `made` is in seconds since 1970; `state` is `serving` for the one of the pointer,
    `previous` for the one to go back to, else `kept` (a process still uses it). `problem`: why it cannot serve."""

    number: int
    state: Literal["serving", "previous", "kept"]
    made: float = 0.0
    requirements: list[str] = []
    packages: list[str] = []
    problem: str = ""


class OverlayList(Struct):
    overlays: list[OverlayInfo]


class InstallMethods:
    """Bound to one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @method("extensions.inspect", errors=[InstallFailed])
    async def inspect(self, params: InstallQuery, call: Call) -> Offer:
        """Say what installing an extension would bring, before any of its code runs. Installs nothing.

        It is resolved, fetched and checked in full; a conflict is found here. A project's folder is built for that,
        which runs the code of its build.
        """
        installer = self._installer(call)
        async with installer.locked(), installer.proposed(params.source, _places(params)) as proposal:
            return Offer(_offered(proposal), _changes(proposal.before, proposal.record))

    @method("extensions.install", errors=[InstallFailed])
    async def install(self, params: InstallRequest, call: Call) -> Change:
        """Install or update an extension, check it in a process of its own, and take it into service.

        Nothing has changed when it fails or is cancelled. Dependencies that the application has are satisfied by the
        application's versions, or the installation is refused.
        """
        installer = self._installer(call)
        async with installer.locked(), installer.proposed(params.source, _places(params)) as proposal:
            return await self._finish(installer, proposal, params.permissions)

    @method("extensions.uninstall", errors=[InstallFailed, ExtensionNotFound])
    async def uninstall(self, params: UninstallQuery, call: Call) -> Change:
        """Remove an installed extension and what only it needed. Its data folder stays, unless `purge`."""
        installer = self._installer(call)
        async with installer.locked(), installer.without(params.id) as proposal:
            change = await self._finish(installer, proposal, [])
        if params.purge and params.id not in self._host.lifecycle.extensions:  # else this process still runs it
            await asyncio.to_thread(shutil.rmtree, self._host.data_dir / params.id, ignore_errors=True)
        return change

    @method("extensions.undo", errors=[InstallFailed])
    async def undo(self, params: Empty, call: Call) -> Change:
        """Go back to the set of extensions before the last installation or removal, without the network. One step."""
        installer = self._installer(call)

        async def back() -> Change:
            before = installer.serving()
            after = await installer.undo()
            return await self._take_over(installer, before, after)

        async with installer.locked():
            return await seen_through(back())

    @method("extensions.repair", errors=[InstallFailed])
    async def repair(self, params: RepairQuery, call: Call) -> Change:
        """Fetch all installed extensions anew: after an update of the application or of Python, or when files are
        damaged."""
        from .resolve import Places

        installer = self._installer(call)
        async with installer.locked(), installer.renewed(Places(offline=params.offline)) as proposal:
            return await self._finish(installer, proposal, params.permissions)

    @method("extensions.overlays")
    async def overlays(self, params: Empty) -> OverlayList:
        """The sets of installed packages on disk: the one that serves, and the one to go back to."""
        from .report import rows

        return OverlayList([OverlayInfo(**row) for row in await asyncio.to_thread(rows, self._host.data_dir)])

    def _installer(self, call: Call) -> Installer:
        from .installer import Installer

        return Installer(self._host.data_dir, call.progress)

    async def _finish(self, installer: Installer, proposal: Proposal, permissions: list[str]) -> Change:
        if not proposal.changes_something:
            return Change(proposal.before.number if proposal.before else 0, changed=False)
        proposal.agree(permissions)
        await installer.smoke(proposal)

        async def commit() -> Change:
            before = installer.serving()
            await installer.commit(proposal)
            return await self._take_over(installer, before, proposal.record)

        return await seen_through(commit())

    async def _take_over(self, installer: Installer, before: Record | None, after: Record | None) -> Change:
        from .takeover import take_over

        number = after.number if after else 0
        taken = await take_over(self._host, installer.overlays, before.number if before else 0, number)
        there = self._host.lifecycle.extensions
        return Change(
            number,
            changed=True,
            packages=_changes(before, after),
            extensions=[there[id].info() for id in taken.ids],
            restart_required=bool(taken.reason),
            reason=taken.reason,
        )


def _places(params: InstallQuery) -> Places:
    from .resolve import Places

    for folder in params.find_links:
        if not Path(folder).is_absolute() or not Path(folder).is_dir():
            raise InvalidParams(f"{folder!r} is no absolute path of a folder", path="$.findLinks")
    if params.index_url and not re.fullmatch(r"(https?|file)://[^\s\0-\x1f]+", params.index_url):
        raise InvalidParams("an index is an address: https://…", path="$.indexUrl")
    return Places((params.index_url,) if params.index_url else (), tuple(params.find_links), params.offline)


def _offered(proposal: Proposal) -> list[OfferedExtension]:
    return [
        OfferedExtension(
            e.id,
            e.version,
            e.package,
            e.manifest.permissions,
            e.manifest.methods,
            e.manifest.activation,
            e.manifest.requires_core,
            e.manifest.isolation,
        )
        for e in proposal.extensions
    ]


def _changes(before: Record | None, after: Record | None) -> list[PackageChange]:
    old = {p.name: p for p in before.packages} if before else {}
    new = {p.name: p for p in after.packages} if after else {}
    rows = []
    for name in sorted({*old, *new}):
        was, now = old.get(name), new.get(name)
        if now is None and was is not None:
            rows.append(PackageChange(name, "removed", before=was.version))
        elif was is None and now is not None:
            rows.append(PackageChange(name, "added", now.version))
        elif was is not None and now is not None and was.record != now.record:
            rows.append(PackageChange(name, "updated", now.version, was.version))
    return rows
