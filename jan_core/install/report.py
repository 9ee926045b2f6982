"""What the overlays look like to a person: rows of a list, and findings with what to do about them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from . import packages
from .overlay import Damaged, Overlays, Record, python_tag

__all__ = ["findings", "rows"]

REPAIR = "fetch the installed extensions anew: jan ext repair; or go back: jan ext undo"


def rows(data_dir: Path) -> list[dict[str, Any]]:
    """The overlays on disk, oldest first: the fields of `methods.OverlayInfo`."""
    overlays = Overlays(data_dir)
    try:
        current = overlays.current()
        previous = overlays[current].record().previous if current else 0
    except Damaged:
        current = previous = 0
    found = []
    for number in overlays.numbers():
        state = {current: "serving", previous: "previous"}.get(number, "kept")
        row: dict[str, Any] = {"number": number, "state": state}
        try:
            record = overlays[number].record()
        except Damaged as damage:
            row["problem"] = str(damage)
        else:
            row |= {
                "made": record.made,
                "requirements": [requirement.spec for requirement in record.requirements],
                "packages": [f"{package.name} {package.version}" for package in record.packages],
                "problem": _unfit(record),
            }
        found.append(row)
    return found


def findings(data_dir: Path) -> Iterator[tuple[Literal["ok", "warn", "fail"], str, str]]:
    """What is wrong with the overlay that serves, as (status, message, advice): warn or fail; reads every file of it.

    One `ok` when nothing is; nothing at all when no extensions are installed.
    """
    overlays = Overlays(data_dir)
    try:
        number = overlays.current()
        if not number:
            return
        record = overlays[number].record()
        if problem := _unfit(record):
            yield "fail", f"the installed extensions are left out: {problem}", REPAIR
            return
        found = packages.scan(overlays[number].site)
        for package in record.packages:
            if package.name not in found or found[package.name].record != package.record:
                raise Damaged(f"{package.name} is not what was installed")
            found[package.name].verify()
    except Damaged as damage:
        yield "fail", f"the installed extensions are damaged: {damage}", REPAIR
        return
    held = packages.product(overlays.root)
    both = sorted(name for name in record.versions() if name in held)
    if both:
        yield "warn", f"the application has its own {', '.join(both)} now, which is used instead", REPAIR
    moved = sorted(n for n, version in record.product.items() if held.get(n, version) != version)
    if moved:
        yield "warn", f"the application was updated since ({', '.join(moved[:5])}{', …' * (len(moved) > 5)})", REPAIR
    if not both and not moved:
        yield "ok", f"{len(record.packages)} packages, every file as it was packaged", ""


def _unfit(record: Record) -> str:
    return "" if record.python == python_tag() else f"they are for {record.python}, this is {python_tag()}"
