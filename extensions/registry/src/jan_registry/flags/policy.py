"""What somebody at this machine has fixed: the administrator's file, the environment, the person's settings.

The administrator's file is `policy.toml` in the folder for all users' configuration (`/etc/xdg/jan`,
`/Library/Application Support/jan`, `C:\\ProgramData\\jan`):

    [flags]
    "registry.phase" = "fallback"
    "experiments.enabled" = false

It binds the person's settings and the operator, not somebody who can change the program itself. It is read strictly:
one that is damaged, unreadable or says something unknown fixes every flag at its safest value, and says so.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .known import EXPERIMENTS, KNOWN, PHASE, REFRESH, Value, fit, fit_text

if TYPE_CHECKING:
    from ..settings import RegistrySettings

__all__ = ["Policy", "PolicyFile", "from_environment", "from_settings", "policy_path"]

_LIMIT = 64 << 10
_LOOK_AGAIN = 30.0


@dataclass(frozen=True, eq=False, slots=True)
class Policy:
    """Locked values by flag. `note`: what is wrong with the file, "" for nothing."""

    values: Mapping[str, Value] = field(default_factory=dict)
    note: str = ""


class PolicyFile:
    """The file, looked at no more than every 30 seconds. `path` is for tests."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or policy_path()
        self._policy = Policy()
        self._looked = -1.0
        self._seen: tuple[int, int, int] | str | None = None

    def read(self, now: float) -> Policy:
        """The same object until the file is another. Never raises."""
        if self._looked < 0 or not 0 <= now - self._looked < _LOOK_AGAIN:
            self._looked = now
            seen = self._state()
            if seen != self._seen:
                self._seen = seen
                self._policy = Policy() if seen is None else _closed(seen) if isinstance(seen, str) else self._read()
        return self._policy

    def _state(self) -> tuple[int, int, int] | str | None:
        """What tells one state of the file from another; None: there is none; text: why it cannot be looked at."""
        try:
            state = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            return f"{self.path}: {error.strerror}"
        if not stat.S_ISREG(state.st_mode):
            return f"{self.path}: not a file"
        return state.st_mtime_ns, state.st_size, state.st_ino

    def _read(self) -> Policy:
        import tomllib

        try:
            with self.path.open("rb") as file:
                content = file.read(_LIMIT + 1)
            if len(content) > _LIMIT:
                raise ValueError(f"larger than {_LIMIT} bytes")
            document = tomllib.loads(content.decode())
            if unknown := set(document) - {"flags"}:
                raise ValueError(f"{sorted(unknown)[0]!r} is nothing that a policy has; there is [flags]")
            if not isinstance(document.get("flags"), dict):
                raise ValueError("[flags] is missing")
            return Policy({name: fit(name, value) for name, value in _flat(document["flags"], "")})
        except OSError as error:
            return _closed(f"{self.path}: {error.strerror}")
        except (ValueError, RecursionError) as error:  # TOML's and UTF-8's errors are ValueErrors
            return _closed(f"{self.path}: {' '.join(str(error).split())[:300]}")


def _flat(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    """`a.b = 1` is a table in TOML, and the flag `a.b` here."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _closed(reason: str) -> Policy:
    values = {name: known.safe for name, known in KNOWN.items() if known.safe is not None}
    return Policy(values, f"the administrator's policy cannot be used, so the safest values hold: {reason}")


def policy_path() -> Path:
    """Where an administrator puts the file. On Unix the environment has no say: `XDG_CONFIG_DIRS` would let everybody
    name another folder, and differs from desktop to desktop."""
    if sys.platform == "win32":
        import platformdirs

        return platformdirs.site_config_path("jan", appauthor=False) / "policy.toml"
    if sys.platform == "darwin":
        return Path("/Library/Application Support/jan/policy.toml")
    return Path("/etc/xdg/jan/policy.toml")


def from_environment(environment: Mapping[str, str]) -> Policy:
    """`JAN_REGISTRY_PHASE=mixed`: the flag's name in capitals, `_` for its dots. Empty is not set; what cannot be read
    is noted and does not count."""
    values, notes = {}, []
    for name in KNOWN:
        variable = f"JAN_{name.upper().replace('.', '_')}"
        if not (text := environment.get(variable, "")):
            continue
        try:
            values[name] = fit_text(name, text)
        except ValueError as error:
            notes.append(f"{variable} in the environment is not used: {error}")
    return Policy(values, "; ".join(notes))


def from_settings(settings: RegistrySettings) -> dict[str, Value]:
    """What the person has chosen. What stands at its default was not chosen, and may be somebody else's to say."""
    values: dict[str, Value] = {}
    if settings.phase:
        values[PHASE] = settings.phase
    if settings.refresh_seconds != KNOWN[REFRESH].default:
        values[REFRESH] = settings.refresh_seconds
    if not settings.experiments:
        values[EXPERIMENTS] = False
    return values
