"""A machine on which flags are decided: everybody who has a say can be made to say something."""

from __future__ import annotations

from pathlib import Path

from jan_registry.collections import Flag
from jan_registry.flags.known import CEILING, PERCENT, PHASE, Value
from jan_registry.flags.policy import PolicyFile
from jan_registry.flags.precedence import FlagBoard
from jan_registry.flags.rules import FlagList
from jan_registry.local import open_local
from jan_registry.rollout.phase import PhaseKeeper
from jan_registry.settings import RegistrySettings
from jan_registry.sqlite import Database
from jan_registry.targeting import Facts

__all__ = ["UNIT", "Machine", "flag_list"]

UNIT = "0123456789abcdef0123456789abcdef"


def flag_list(expires_at: float = 0.0, **values: Value) -> FlagList:
    """`phase`, `ceiling`, `percent`: the values of those flags."""
    names = {"phase": PHASE, "ceiling": CEILING, "percent": PERCENT}
    return FlagList({names[key]: Flag(id=names[key], value=value) for key, value in values.items()}, expires_at)


class Machine:
    """What is said can be replaced at any time; `restart` forgets all but the files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.policy = folder / "policy.toml"
        self.settings = RegistrySettings()
        self.environment: dict[str, str] = {}
        self.signed: FlagList | None = None
        self.packaged: FlagList | None = None
        self.facts: Facts = {"os": "linux"}
        self.unit = UNIT
        self.looked = True
        self.start()

    def start(self) -> None:
        self.db: Database = open_local(self.folder / "data")
        self.flags = FlagBoard(
            policy=PolicyFile(self.policy),
            environment=self.environment,
            settings=lambda: self.settings,
            signed=lambda: self.signed,
            packaged=lambda: self.packaged,
            facts=lambda: self.facts,
            unit=lambda: self.unit,
            looked=lambda: self.looked,
        )
        self.keeper = PhaseKeeper(self.flags, self.db, lambda: self.unit)

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        self.flags.close()
        self.db.close()
