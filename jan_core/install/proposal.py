"""The next overlay, filled and checked off to the side: nothing of it has run, and it does not serve."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from .. import API_VERSION
from ..errors import InstallFailed
from . import claims, packages
from .overlay import Damaged, Overlay, Overlays, Package, Record
from .packages import Contributed, Installed
from .resolve import Pin, Uv
from .threads import off_loop

__all__ = ["Proposal", "complete", "link_wheels"]


@dataclass
class Proposal:
    """The next overlay as it would be: staged and checked, nothing of it run, not serving."""

    stage: Overlay
    record: Record
    before: Record | None
    extensions: list[Contributed]
    """Those that are new or in another version."""
    fetched: list[Installed]
    """The packages that are."""
    tried: list[str]
    """Ids of the extensions that have to be tried: those, and what now gets another version of a dependency."""

    @property
    def changes_something(self) -> bool:
        """Whether it is another set than the one before."""
        if self.before is None:
            return bool(self.record.packages)
        return bool(self.fetched) or _content(self.record) != _content(self.before)

    def agree(self, permissions: Sequence[str]) -> None:
        """Note that a person has agreed to these permissions, beside what was agreed to for a version before.

        Raises InstallFailed when more are declared.
        """
        agreed = {e.id: {*permissions, *self.record.consent.get(e.id, [])} for e in self.extensions}
        if missing := sorted({p for e in self.extensions for p in e.manifest.permissions if p not in agreed[e.id]}):
            raise InstallFailed(
                f"nobody has agreed to what it declares to do: {', '.join(missing)}",
                reason="consent",
                permissions=missing,
            )
        self.record.consent |= {e.id: sorted(e.manifest.permissions) for e in self.extensions}


async def complete(
    overlays: Overlays,
    uv: Uv,
    stage: Overlay,
    record: Record,
    before: Record | None,
    target: dict[str, Pin],
    *,
    anew: bool = False,
) -> Proposal:
    """Fill the stage with `target` and check it: taken over from the overlay before where it is the same, unless
    `anew`. Raises InstallFailed, Damaged, ManifestError."""
    for name in target:
        if name in record.product:
            raise InstallFailed(f"the application's {name} would have to be replaced", reason="conflict")
    sources = {r.name: f"sha256:{r.sha256}" for r in record.requirements if r.wheel}
    carried: set[str] = set()
    if before and not anew:
        there = {p.name: p for p in before.packages} if before.python == record.python else {}
        same = {n for n, pin in target.items() if n in there and _same(pin, there[n], sources.get(n, ""))}
        await off_loop(link_wheels, record, overlays[before.number], stage)
        carried = await off_loop(_carry_over, overlays[before.number], stage, same)
    missing = [pin for name, pin in target.items() if name not in carried]
    if missing:
        uv.show(f"fetching {', '.join(pin.name for pin in missing)}")
        await uv.fetch(missing, stage.site)
    try:
        found = await off_loop(_checked, stage, set(target))
    except Damaged:
        # What was damaged in an overlay is so in uv's cache too: the files are the same ones, by hard links.
        await uv.fetch(missing, stage.site, cached=False)
        found = await off_loop(_checked, stage, set(target))
    record.packages = [
        Package(p.name, p.version, p.record, sources.get(p.name, target[p.name].url)) for p in found.values()
    ]
    fetched = [found[pin.name] for pin in missing]
    extensions = await off_loop(_contributed, overlays, [found[name] for name in sorted(carried)], fetched)
    record.extensions = {id: name for name, p in found.items() for id, _ in p.entries}
    record.consent = {id: agreed for id, agreed in record.consent.items() if id in record.extensions}
    moved = {p.name for p in fetched if not p.entries} & set(before.versions() if before else {})
    tried = list(record.extensions) if moved else [e.id for e in extensions]
    return Proposal(stage, record, before, extensions, fetched, tried)


def _contributed(overlays: Overlays, carried: Sequence[Installed], fetched: Sequence[Installed]) -> list[Contributed]:
    extensions = [e for package in fetched for e in packages.contributed(package, API_VERSION)]
    claims.check(overlays.root, carried, extensions)
    return extensions


def link_wheels(record: Record, old: Overlay, stage: Overlay) -> None:
    """Keep the wheels of requirements that came from files. Raises Damaged."""
    for requirement in record.requirements:
        if requirement.wheel and not (stage.wheels / requirement.wheel).exists():
            try:
                shutil.copyfile(old.wheels / requirement.wheel, stage.wheels / requirement.wheel)
            except FileNotFoundError:
                raise Damaged(f"the wheel of {requirement.name} is lost; remove it or install it again") from None


def _same(pin: Pin, package: Package, source: str) -> bool:
    """Whether a planned package is one that is there: the same wheel file, or the same version from elsewhere."""
    if source or package.source.startswith("sha256:"):
        return source == package.source
    return not pin.url and pin.version == package.version


def _content(record: Record) -> object:
    """What makes two overlays the same for who uses them."""
    wanted = sorted((r.name, "" if r.wheel else r.spec, r.sha256) for r in record.requirements)
    return wanted, sorted((p.name, p.version, p.record) for p in record.packages), record.python


def _carry_over(old: Overlay, stage: Overlay, names: set[str]) -> set[str]:
    """Put packages of the old overlay into the stage; returns which: not those that are damaged."""
    carried = set()
    for name, package in packages.scan(old.site).items():
        if name in names:
            with suppress(Damaged):
                package.verify()
                package.link_into(stage.site)
                carried.add(name)
    return carried


def _checked(stage: Overlay, expected: set[str]) -> dict[str, Installed]:
    """What lies in the stage, every file compared with its hash. Raises Damaged, InstallFailed."""
    found = packages.scan(stage.site)
    if set(found) != expected:
        wrong = ", ".join(sorted(set(found) ^ expected))
        raise InstallFailed(f"what was fetched is not what was planned: {wrong}", reason="uv")
    for package in found.values():
        package.verify()
    return found
