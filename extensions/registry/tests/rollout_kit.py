"""A roll-out on one machine, with a clock that stands still until somebody sleeps."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from anyio.abc import TaskGroup
from jan_registry.collections import Flag
from jan_registry.flags.policy import PolicyFile
from jan_registry.flags.precedence import FlagBoard
from jan_registry.flags.rules import FlagList
from jan_registry.local import open_local
from jan_registry.rollout.arm import Arm
from jan_registry.rollout.phase import PhaseKeeper
from jan_registry.rollout.rollout import Rollout
from jan_registry.rollout.shadow import Answer
from jan_registry.settings import RegistrySettings

from jan_core.types import DownloadFile, ModelRecord, Phase

BEGINNING = 1_700_000_000.0


class Clock:
    """Seconds since the epoch. `sleep` passes at once."""

    def __init__(self) -> None:
        self.now = BEGINNING

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def record(id: str, sha256: str = "a" * 64) -> ModelRecord:
    return ModelRecord(id, id.title(), files=[DownloadFile("w.gguf", f"https://hub.test/{id}", sha256, 10)])


def answer(models: Sequence[ModelRecord], seq: int = 1, age: int = 60) -> Answer:
    by_id = {model.id: model for model in models}
    return Answer(models, by_id.get, models, seq, age)


Ask = Callable[[str], Awaitable[Answer]]


class Machine:
    """`builtin` and `dynamic` are what the two lists do; the operator asks for `phase`."""

    def __init__(
        self,
        folder: Path,
        tasks: TaskGroup,
        *,
        phase: Phase = "mixed",
        setting: Phase | None = None,
        shadow: bool = True,
    ) -> None:
        self.clock = Clock()
        self.db = open_local(folder)
        flags = {
            "registry.phase": Flag(id="registry.phase", value=phase),
            "registry.phase.ceiling": Flag(id="registry.phase.ceiling", value="dynamic"),
            "registry.mixed.percent": Flag(id="registry.mixed.percent", value=100),
            "registry.shadow.enabled": Flag(id="registry.shadow.enabled", value=shadow),
        }
        signed, settings = FlagList(flags), RegistrySettings(phase=setting or "")
        board = FlagBoard(
            policy=PolicyFile(folder / "policy.toml"),
            environment={},
            settings=lambda: settings,
            signed=lambda: signed,
            packaged=lambda: None,
            facts=dict,
            unit=lambda: "unit",
        )
        self.keeper = PhaseKeeper(board, self.db, lambda: "unit")
        self.models = [record("a"), record("b")]
        self.asked: list[str] = []
        self.builtin: Ask = self.good
        self.dynamic: Ask = self.good
        self.rollout: Rollout[str] = Rollout(
            self.db,
            self.keeper,
            lambda question: self.ask("builtin", question),
            lambda question: self.ask("dynamic", question),
            "usual",
            tasks.start_soon,
            logging.getLogger("test"),
            clock=self.clock,
            monotonic=self.clock,
            sleep=self.clock.sleep,
        )

    async def good(self, question: str) -> Answer:
        self.clock.now += 0.001
        return answer(self.models)

    async def ask(self, arm: Arm, question: str) -> Answer:
        self.asked.append(arm)
        return await (self.builtin if arm == "builtin" else self.dynamic)(question)

    @property
    def phase(self) -> str:
        return self.keeper.effective(self.clock.now).phase

    def serve(self, arm: Arm = "builtin", micros: int = 1_000, error: str = "") -> None:
        """Somebody was answered."""
        effective = self.keeper.effective(self.clock.now)
        self.rollout.served(effective, arm, micros, "question", None if error else answer(self.models), error)
