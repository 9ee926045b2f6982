"""An extension that is an object at hand instead of an installed package."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..manifest import Manifest

__all__ = ["InlineSource"]


class InlineSource:
    """A `loader.Source` without a package.

    `plugin` is an instance, or a class to make one of. `methods` are the prefixes it owns.
    """

    def __init__(self, id: str, plugin: Any, methods: Iterable[str] = (), activation: Any = "startup") -> None:
        self._id, self._plugin = id, plugin
        self._manifest = Manifest(id=id, requires_core=">=1", methods=list(methods), activation=activation)

    @property
    def id(self) -> str:
        return self._id

    @property
    def origin(self) -> str:
        return "inline"

    def manifest(self, api_version: str) -> tuple[Manifest, str]:
        return self._manifest, "0"

    def load(self, generation: int) -> object:
        return self._plugin() if isinstance(self._plugin, type) else self._plugin
