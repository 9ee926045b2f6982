"""Who decides what a flag is: the first of these that says anything.

1 `policy` (the administrator's, locked), 2 `environment`, 3 `setting` (the person's), then what the operator signed
(`signed`) or shipped with this release (`packaged`), and last what the program says itself (`default`). The phase has
two more levels between the person and the operator, which `rollout/inforce.py` adds: other extensions, and what this
machine has seen go wrong.

A value that a flag may not have is no answer. That the signed list has expired is said (`stale`): its last value
stands, and what that must not do is the business of who asks.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from msgspec import Struct

from jan_core import StorageError

from ..settings import RegistrySettings
from ..targeting import Facts
from .known import KNOWN, Value, fit
from .policy import Policy, PolicyFile, from_environment, from_settings
from .rules import FlagList

if TYPE_CHECKING:
    from .provider import FlagClient

__all__ = ["FlagAnswer", "FlagBoard", "FlagLevel", "FlagState"]

FlagLevel = Literal["policy", "environment", "setting", "signed", "packaged", "default"]


class FlagAnswer(Struct, frozen=True):
    """`level`: who decided. `reason` and `variant` are OpenFeature's for the operator's levels (TARGETING_MATCH, SPLIT,
    STATIC, DEFAULT, STALE), and STATIC for those of this machine. `note`: which answers did not count, and why."""

    name: str
    value: Value
    level: FlagLevel
    reason: str
    variant: str = ""
    note: str = ""

    @property
    def stale(self) -> bool:
        return self.reason == "STALE"


class FlagState(NamedTuple):
    """What the answers depend on: equal to an earlier one as long as none of them can be another."""

    policy: Policy
    settings: RegistrySettings
    signed: FlagList | None
    packaged: FlagList | None
    stale: bool
    looked: bool
    machine: int


class FlagBoard:
    """All flags of this machine.

    `settings`, `signed`, `packaged`: called each time; they return the same object as long as nothing has changed.
    `facts` is asked when something has, `unit` when something must be drawn. `unit` may raise StorageError: then no
    share but all of them has this machine. OpenFeature is imported when there is a flag of the operator's to evaluate.
    `looked`: False as long as nobody has read where `signed` and `packaged` come from.
    """

    def __init__(
        self,
        *,
        policy: PolicyFile,
        environment: Mapping[str, str],
        settings: Callable[[], RegistrySettings],
        signed: Callable[[], FlagList | None],
        packaged: Callable[[], FlagList | None],
        facts: Callable[[], Facts],
        unit: Callable[[], str],
        looked: Callable[[], bool] = lambda: True,
    ) -> None:
        self._policy, self._settings, self._signed, self._packaged = policy, settings, signed, packaged
        self._facts, self._unit, self._looked = facts, unit, looked
        self._environment = from_environment(environment)
        self._clients: list[tuple[FlagLevel, FlagClient]] = []
        self._built: FlagState | None = None
        self._drawn: str | None = None
        self._machine = 0
        self._evaluating = threading.Lock()

    def state(self, now: float) -> FlagState:
        signed = self._signed()
        stale = signed is not None and signed.stale(now)
        policy, settings, packaged = self._policy.read(now), self._settings(), self._packaged()
        return FlagState(policy, settings, signed, packaged, stale, self._looked(), self._machine)

    def look_again(self) -> None:
        """The facts about this machine have changed."""
        self._machine += 1

    def answer(self, name: str, now: float) -> FlagAnswer:
        """May be called in any thread. Raises KeyError for a flag that is not in `KNOWN`."""
        known = KNOWN[name]
        state = self.state(now)
        local: list[tuple[FlagLevel, Policy]] = [
            ("policy", state.policy),
            ("environment", self._environment),
            ("setting", Policy(from_settings(state.settings))),
        ]
        for level, said in local:
            if (value := said.values.get(name)) is not None:
                return FlagAnswer(name, value, level, "STATIC", note=said.note if level == "policy" else "")
        notes = []
        with self._evaluating:
            for level, client in self._evaluators(state):
                details = _details(client, name, known.default)
                if details.error_code is None:
                    try:
                        value = fit(name, details.value)
                    except ValueError as error:
                        notes.append(f"{level}: {error}")
                    else:
                        note = "; ".join(notes)
                        return FlagAnswer(name, value, level, str(details.reason), details.variant or "", note)
                elif details.error_code != "FLAG_NOT_FOUND":
                    notes.append(f"{level}: {details.error_message}")
        return FlagAnswer(name, known.default, "default", "DEFAULT", note="; ".join(notes))

    def all(self, now: float) -> dict[str, FlagAnswer]:
        return {name: self.answer(name, now) for name in KNOWN}

    def notes(self, now: float) -> list[str]:
        """What is wrong with what was said at this machine."""
        return [note for note in (self._policy.read(now).note, self._environment.note) if note]

    def close(self) -> None:
        with self._evaluating:
            self._drop()

    def _drop(self) -> None:
        for _, client in self._clients:
            client.close()
        self._clients, self._built, self._drawn = [], None, None

    def _evaluators(self, state: FlagState) -> list[tuple[FlagLevel, FlagClient]]:
        if self._built == state:
            return self._clients
        self._drop()
        lists: list[tuple[FlagLevel, FlagList | None, bool]] = [
            ("signed", state.signed, state.stale),
            ("packaged", state.packaged, False),
        ]
        if any(flags is not None and flags.flags for _, flags, _ in lists):
            from .provider import FlagClient, FlagProvider

            facts = self._facts()
            self._clients = [
                (level, FlagClient(FlagProvider(flags, facts, self._drawn_from, stale=stale)))
                for level, flags, stale in lists
                if flags is not None
            ]
        self._built = state
        return self._clients

    def _drawn_from(self) -> str | None:
        if self._drawn is None:
            with contextlib.suppress(StorageError):
                self._drawn = self._unit()
        return self._drawn


def _details(client: FlagClient, name: str, default: Value) -> Any:
    if isinstance(default, bool):
        return client.get_boolean_details(name, default)
    if isinstance(default, int):
        return client.get_integer_details(name, default)
    return client.get_string_details(name, default)
