"""What was decided about the builds: which one the person wants, which ones worked, which ones are set aside and why.

One small file, `<data>/engines/choice.json`, replaced by one rename; the engines themselves are in `installed.py`. It
outlives the folders it speaks of: a build that failed here is not installed again by itself. A file that cannot be
read counts as empty, which loses preferences and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, field

from .builds import ENGINE_VERSION
from .durable import replace
from .lock import held_now

__all__ = ["Choice", "SetAside", "change", "read"]

_FILE = "choice.json"
_MODELS = 64


class SetAside(Struct, frozen=True):
    """A folder that is not used any more. `at`: RFC 3339, UTC. `by`: its installation, its use, the person. `worker`:
    the version of the engine that the worker it does not suit is written for; with another one it counts no more.
    """

    id: str
    reason: str
    by: Literal["install", "use", "person"]
    at: str
    worker: str = ""


class Choice(Struct, omit_defaults=True):
    """`use`: the build the person chose, empty: the house chooses. The keys are names of engines' folders.

    `proven`: the models each engine has loaded, the engine that was taken into use last at the end.
    """

    format: Literal[1] = 1
    use: str = ""
    proven: dict[str, list[str]] = field(default_factory=dict)
    aside: dict[str, SetAside] = field(default_factory=dict)

    def refusal(self, build: str) -> str:
        """Why this build is set aside; empty: it is not. Only of weight when no generation of it is in use."""
        reasons = [entry.reason for entry in self.aside.values() if entry.id == build]
        return reasons[-1] if reasons else ""

    def set_aside(
        self, name: str, id: str, reason: str, by: Literal["install", "use", "person"], worker: str = ""
    ) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.aside.pop(name, None)
        self.aside[name] = SetAside(id, reason, by, now, worker)

    def take_back(self, id: str) -> None:
        """Forget what set the generations of this build aside."""
        self.aside = {name: entry for name, entry in self.aside.items() if entry.id != id}

    def removed(self, id: str) -> None:
        """The build is gone: so is what a person decided about it. What it failed of is kept."""
        if self.use == id:
            self.use = ""
        self.aside = {name: entry for name, entry in self.aside.items() if (entry.id, entry.by) != (id, "person")}

    def forget(self, name: str) -> None:
        """Forget what is known of this folder: another engine comes into it, or it is gone."""
        self.aside.pop(name, None)
        self.proven.pop(name, None)

    def prove(self, name: str, model: str) -> None:
        models = [known for known in self.proven.pop(name, []) if known != model]
        self.proven[name] = [*models, model][-_MODELS:]

    def is_latest(self, name: str, model: str) -> bool:
        """Whether `prove` would tell nothing new."""
        return next(reversed(self.proven), "") == name and model in self.proven[name]


def read(engines: Path) -> Choice:
    """The decisions about the builds in `engines` that count for this version of the software."""
    try:
        choice = msgspec.json.decode((engines / _FILE).read_bytes(), type=Choice)
    except (OSError, ValueError):
        return Choice()
    choice.aside = {name: entry for name, entry in choice.aside.items() if entry.worker in ("", ENGINE_VERSION)}
    return choice


def change(engines: Path, edit: Callable[[Choice], None]) -> Choice:
    """Apply `edit` to what the file says now, and write it. Blocks; other processes wait. Raises OSError."""
    engines.mkdir(parents=True, exist_ok=True)
    with held_now(engines / ".lock"):
        choice = read(engines)
        edit(choice)
        replace(engines / _FILE, msgspec.json.format(msgspec.json.encode(choice), indent=2) + b"\n")
    return choice
