"""From a request to the switch: makes the next overlay off to the side, checks it, and lets it serve.

Nothing that serves is changed before the switch, which is one rename; what fails or is killed before it leaves the old
overlay as it was and a staged folder that the next installation removes. It does not touch the running process
(`takeover.py`), and runs no code of an extension before a person has agreed to what it declares.
"""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .. import API_VERSION
from ..errors import ExtensionNotFound, InstallFailed
from ..manifest import ManifestError
from . import lock, packages
from .overlay import Damaged, Overlay, Overlays, Record, Requirement, python_tag, sync
from .proposal import Proposal, complete, link_wheels
from .request import requirement
from .resolve import Pin, Places, Uv
from .smoke import LIMIT, smoke_load
from .threads import off_loop

__all__ = ["Installer"]


@dataclass
class Installer:
    """Works on the overlays of one data folder. `show` is told what goes on, in words.

    All methods wait for another installer's end, raise InstallFailed, and may be cancelled: nothing has changed then.
    """

    data_dir: Path
    show: Callable[[str], None] = lambda message: None
    smoke_limit: float = LIMIT

    def __post_init__(self) -> None:
        self.overlays = Overlays(self.data_dir)

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Be the only one that changes the overlays."""
        try:
            self.overlays.root.mkdir(parents=True, exist_ok=True)
            async with lock.held(
                self.overlays.lock, lambda: self.show("another installation is under way; waiting for its end")
            ):
                yield
        except OSError as error:
            raise _storage(error) from error
        except (Damaged, ManifestError) as error:
            raise InstallFailed(str(error), reason="refused") from error

    @asynccontextmanager
    async def proposed(self, source: str, places: Places) -> AsyncIterator[Proposal]:
        """The overlay with `source` in it: a requirement (`name`, `name[extra]>=1`), the address of a wheel, or the
        absolute path of a wheel, a source archive or a project's folder.

        Raises InvalidParams for what is none of these.
        """
        before = self._before()
        async with self._staging() as stage:
            uv = Uv(stage.folder, places, self.show)
            wanted = await requirement(source, uv, stage)
            held = await off_loop(packages.product, self.overlays.root)
            if wanted.name in held:
                raise InstallFailed(
                    f"{wanted.name} is part of this installation ({held[wanted.name]})", reason="conflict"
                )
            kept = [r for r in before.requirements if r.name != wanted.name] if before else []
            record = self._new_record(before, [*kept, wanted], held)
            self.show(f"resolving {wanted.name}")
            target = await self._resolve(uv, record, before, stage, wanted)
            proposal = await complete(self.overlays, uv, stage, record, before, target)
            if wanted.name not in proposal.record.extensions.values():
                raise InstallFailed(
                    f"{wanted.name} is no extension: it has no entry point in the group jan.extensions",
                    reason="refused",
                )
            yield proposal

    @asynccontextmanager
    async def without(self, id: str) -> AsyncIterator[Proposal]:
        """The overlay without the extension `id`, and without what only it needed. Needs no network.

        Raises ExtensionNotFound.
        """
        before = self._before()
        if before is None or id not in before.extensions:
            raise await self._not_ours(id)
        package = before.extensions[id]
        kept = [r for r in before.requirements if r.name != package]
        needing = [r.name for r in kept if package in r.needs]
        if needing or len(kept) == len(before.requirements):
            raise InstallFailed(f"{id} is needed by {', '.join(needing)}; uninstall that first", reason="conflict")
        async with self._staging() as stage:
            record = self._new_record(before, kept, before.product)
            record.python = before.python
            needed = {name for r in kept for name in r.needs}
            target = {p.name: Pin(p.name, p.version) for p in before.packages if p.name in needed}
            yield await complete(self.overlays, Uv(stage.folder, Places(), self.show), stage, record, before, target)

    @asynccontextmanager
    async def renewed(self, places: Places) -> AsyncIterator[Proposal]:
        """The same extensions, resolved and fetched anew: for another Python, an updated product, damaged files."""
        before = self._before()
        if before is None:
            raise InstallFailed("no extensions are installed", reason="not_found")
        async with self._staging() as stage:
            uv = Uv(stage.folder, places, self.show)
            held = await off_loop(packages.product, self.overlays.root)
            record = self._new_record(before, before.requirements, held)
            self.show("resolving all installed extensions")
            target = await self._resolve_all(uv, record, before, stage)
            yield await complete(self.overlays, uv, stage, record, before, target, anew=True)

    async def smoke(self, proposal: Proposal) -> None:
        """Run what is new or stands on something new in a child process."""
        if proposal.tried:
            self.show(f"trying {', '.join(proposal.tried)} in a process of its own")
            await smoke_load(proposal.stage, proposal.tried, packages.paths(self.overlays.root), self.smoke_limit)

    async def commit(self, proposal: Proposal) -> None:
        """Let the proposal serve. Once begun it must be seen through: do not cancel it."""
        await off_loop(self._commit, proposal)

    async def undo(self) -> Record | None:
        """Go back to the overlay before the one that serves; returns its record, None when that was no overlay."""
        try:
            current = self.overlays.current()
            previous = self.overlays[current].record().previous if current else 0
            record = self.overlays[previous].record() if previous else None
        except Damaged:
            current, record = 1, self._newest(below=self._number)
        if not current:
            raise InstallFailed("there is nothing to undo", reason="not_found")
        await off_loop(self.overlays.switch, record.number if record else 0)
        return record

    def serving(self) -> Record | None:
        """The record of what serves; None when nothing does, or what does is damaged."""
        try:
            return self.overlays[self._number].record() if self._number else None
        except Damaged:
            return None

    # -- how -------------------------------------------------------------------------------------------------------

    @property
    def _number(self) -> int:
        try:
            return self.overlays.current()
        except Damaged:
            return 0

    def _before(self) -> Record | None:
        """The record of what serves, or where that is damaged of what did before; None when there is nothing."""
        try:
            number = self.overlays.current()
            return self.overlays[number].record() if number else None
        except Damaged as error:
            self.show(f"what is installed is damaged; going on from what was before it: {error}")
            return self._newest()

    def _newest(self, below: int = 0) -> Record | None:
        for number in reversed(self.overlays.numbers()):
            if not below or number < below:
                with suppress(Damaged):
                    return self.overlays[number].record()
        return None

    @asynccontextmanager
    async def _staging(self) -> AsyncIterator[Overlay]:
        stage = await off_loop(self.overlays.stage)
        try:
            yield stage
        finally:
            await off_loop(shutil.rmtree, stage.folder, True)

    def _new_record(self, before: Record | None, requirements: list[Requirement], held: dict[str, str]) -> Record:
        serving = self._number
        return Record(
            number=self.overlays.next_number(serving),
            made=time.time(),
            python=python_tag(),
            previous=serving,
            requirements=requirements,
            product=held,
            consent=dict(before.consent) if before else {},
        )

    async def _resolve(
        self, uv: Uv, record: Record, before: Record | None, stage: Overlay, wanted: Requirement
    ) -> dict[str, Pin]:
        """What the new overlay holds. First with everything that is there as it is, so that one installation does not
        update another; only where that cannot be, all of them together."""
        if before is None or not record.requirements[:-1] or before.python != record.python:
            return await self._resolve_all(uv, record, before, stage)
        needed = {name for r in record.requirements if r is not wanted for name in r.needs}
        there = {name: version for name, version in before.versions().items() if name in needed}
        await off_loop(link_wheels, record, self.overlays[before.number], stage)
        uv.places = _with_folder(uv.places, stage.wheels)
        try:
            pins = await uv.plan([_line(wanted, stage)], {**there, **record.product})
        except InstallFailed as failure:
            if failure.data["reason"] not in ("conflict", "not_found"):
                raise
            await uv.plan([_line(wanted, stage)], record.product)  # is it the application that it does not fit?
            return await self._resolve_all(uv, record, before, stage)
        wanted.needs = [pin.name for pin in pins]
        return {name: Pin(name, version) for name, version in there.items()} | {pin.name: pin for pin in pins}

    async def _resolve_all(self, uv: Uv, record: Record, before: Record | None, stage: Overlay) -> dict[str, Pin]:
        if before:
            await off_loop(link_wheels, record, self.overlays[before.number], stage)
        places = uv.places
        for one in record.requirements:
            places = Places(
                tuple(dict.fromkeys([*places.indexes, *one.indexes])),
                tuple(dict.fromkeys([*places.find_links, *filter(_is_folder, one.find_links)])),
                places.offline,
            )
        uv.places = _with_folder(places, stage.wheels)
        lines = [_line(one, stage) for one in record.requirements]
        pins = {pin.name: pin for pin in await uv.plan(lines, record.product)}
        fixed = {pin.name: pin.version for pin in pins.values() if pin.version}
        for one, line in zip(record.requirements, lines, strict=True):
            alone = pins.values() if len(lines) == 1 else await uv.plan([line], {**fixed, **record.product})
            one.needs = [pin.name for pin in alone]
        return pins

    def _commit(self, proposal: Proposal) -> None:
        stage, record = proposal.stage, proposal.record
        for path in stage.folder.iterdir():
            if path not in (stage.site, stage.wheels):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (stage.site / ".lock").unlink(missing_ok=True)  # uv's
        for package in proposal.fetched:
            package.sync()
        for folder in [stage.site, *(f for f in stage.site.rglob("*") if f.is_dir()), stage.wheels]:
            sync(folder)
        self.overlays.adopt(stage, record)
        self.overlays.switch(record.number)
        self.overlays.prune({record.number, record.previous})

    async def _not_ours(self, id: str) -> Exception:
        theirs = await off_loop(packages.product_extensions, self.overlays.root, API_VERSION)
        if id in theirs:
            return InstallFailed(
                f"{id} is part of this installation and was not added to it; it can be disabled", reason="conflict"
            )
        return ExtensionNotFound(f"no extension {id!r} is installed", extension=id)


def _line(requirement: Requirement, stage: Overlay) -> str:
    if requirement.wheel:
        return f"{requirement.name} @ {(stage.wheels / requirement.wheel).as_uri()}"
    return requirement.spec


def _with_folder(places: Places, folder: Path) -> Places:
    """Also wheels that were installed from files satisfy who needs them."""
    return Places(places.indexes, (*places.find_links, str(folder)), places.offline)


def _is_folder(path: str) -> bool:
    return Path(path).is_dir()


def _storage(error: OSError) -> InstallFailed:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return InstallFailed("the disk is full", reason="storage")
    return InstallFailed(f"the overlay cannot be written: {error}", reason="storage")
