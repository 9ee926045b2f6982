"""Going back by hand: from the build in use to what was used before it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from . import choice, installed
from .errors import EngineNotFound
from .record import InstalledEngine

__all__ = ["go_back"]


def go_back(engines: Path, build: str, usable: Collection[str]) -> InstalledEngine:
    """Switch from this build to its generation before, which is set aside, or else to the build of `usable` that loaded
    a model last before it. Returns what is in use now. Raises EngineNotFound when there is nothing to go back to.
    """
    decided = choice.read(engines)
    good = [engine for engine in installed.generations(engines, build) if engine.name not in decided.aside]
    if len(good) > 1:
        current, earlier = good[:2]
        reason = f"a person went back to generation {earlier.record.generation}"
        choice.change(engines, lambda decided: decided.set_aside(current.name, build, reason, "person"))
        return earlier
    for name in reversed(decided.proven):
        id = name.partition("~")[0]
        if id != build and id in usable and (engine := installed.find(engines, id)):
            choice.change(engines, lambda decided: setattr(decided, "use", engine.id))
            return engine
    known = [engine.id for engine in installed.list_installed(engines)]
    raise EngineNotFound(f"there is nothing to go back to from {build!r}: no other build has run here", known=known)
