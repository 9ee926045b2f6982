"""Where programs keep the things of the person who runs this one, by each system's own convention.

Everything comes from the environment that is passed in, so that a test (or a service) decides whose home is looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Places"]


@dataclass(frozen=True, slots=True)
class Places:
    """Folders by purpose; None where the environment does not tell. They need not exist.

    Linux and others: the XDG base directories. macOS: `Library`. Windows: `APPDATA` and `LOCALAPPDATA`.
    """

    environment: Mapping[str, str]
    platform: str = sys.platform

    @property
    def home(self) -> Path | None:
        return self.variable("USERPROFILE" if self.platform == "win32" else "HOME")

    @property
    def data(self) -> Path | None:
        return self._folder("XDG_DATA_HOME", ".local/share", "Library/Application Support", "APPDATA")

    @property
    def config(self) -> Path | None:
        return self._folder("XDG_CONFIG_HOME", ".config", "Library/Application Support", "APPDATA")

    @property
    def cache(self) -> Path | None:
        return self._folder("XDG_CACHE_HOME", ".cache", "Library/Caches", "LOCALAPPDATA")

    def variable(self, name: str) -> Path | None:
        """The folder that a variable names; without the quotes that people put around it."""
        value = self.environment.get(name, "").strip().strip("\"'")
        return _absolute(value) if name in ("HOME", "USERPROFILE") else self.expanded(value)

    def expanded(self, value: str) -> Path | None:
        """An absolute folder as a person writes it, `~` for the home; None for any other."""
        if value == "~" or value.startswith(("~/", "~\\")):
            return self.home / value[2:] if self.home else None
        return _absolute(value)

    def below_home(self, *parts: str) -> Path | None:
        return self.home.joinpath(*parts) if self.home else None

    def _folder(self, xdg: str, linux: str, macos: str, windows: str) -> Path | None:
        if self.platform == "win32":
            return self.variable(windows)
        if self.platform == "darwin":
            return self.below_home(macos)
        return self.variable(xdg) or self.below_home(linux)


def _absolute(value: str) -> Path | None:
    path = Path(value)
    return path if path.is_absolute() else None
