"""An extension that is an object at hand instead of an installed package."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..manifest import Manifest

if TYPE_CHECKING:
    from ..package import Snapshot

__all__ = ["InlineSource"]


class InlineSource:
    """A `loader.Source` without files.

    `plugin` is a class, of which each generation gets an instance, or an instance, of which those after the first get a
    copy. `methods` are the prefixes it owns.
    """

    watched: Sequence[Path] = ()
    origin = "inline"

    def __init__(self, id: str, plugin: Any, methods: Iterable[str] = (), activation: Any = "startup") -> None:
        self.id, self.plugin = id, plugin
        self._manifest = Manifest(id=id, requires_core=">=1", methods=list(methods), activation=activation)

    def manifest(self, api_version: str) -> tuple[Manifest, str]:
        return self._manifest, "0"

    def read(self, previous: Snapshot | None) -> Snapshot | None:
        return None

    def load(self, number: int, snapshot: Snapshot | None) -> tuple[object, Snapshot | None]:
        if isinstance(self.plugin, type):
            return self.plugin(), None
        return self.plugin if number == 1 else copy.copy(self.plugin), None

    def package(self, number: int) -> str:
        return ""

    def release(self, number: int) -> None:
        pass
