"""Who decides what a flag is."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jan_registry.collections import Constraint, Flag, Rule
from jan_registry.flags.known import EXPERIMENTS, KNOWN, PERCENT, PHASE, REFRESH, SHADOW
from jan_registry.flags.policy import PolicyFile
from jan_registry.flags.precedence import FlagBoard
from jan_registry.flags.rules import FlagList
from jan_registry.settings import RegistrySettings

from jan_core import StorageError

from .board import UNIT, Machine, flag_list

PHASES = ("fallback", "mixed", "dynamic")
NOW = 1_000.0


def test_the_first_that_says_anything_decides_whatever_the_others_say(tmp_path: Path) -> None:
    """Every combination of what the six levels can say, expired or not, against the rule in its plainest form."""
    said: tuple[Any, ...] = (None, *PHASES)
    files = {}
    for value in said:
        files[value] = tmp_path / f"{value}.toml"
        if value:
            files[value].write_text(f'[flags]\n"registry.phase" = "{value}"\n')
    lists: list[tuple[Any, FlagList | None]] = [(None, None), (None, FlagList()), (None, flag_list(phase="turbo"))]
    lists += [(None, flag_list(phase=3)), *((value, flag_list(phase=value)) for value in PHASES)]
    expired: list[tuple[Any, FlagList | None]] = [(value, flag_list(NOW, phase=value)) for value in PHASES]
    combinations = 0
    for policy, environment, setting in itertools.product(said, said, said):
        current: list[FlagList | None] = [None, None]
        board = FlagBoard(
            policy=PolicyFile(files[policy]),
            environment={"JAN_REGISTRY_PHASE": environment} if environment else {},
            settings=lambda setting=setting: RegistrySettings(phase=setting or ""),  # type: ignore[misc]
            signed=lambda current=current: current[0],  # type: ignore[misc]
            packaged=lambda current=current: current[1],  # type: ignore[misc]
            facts=dict,
            unit=lambda: UNIT,
        )
        for (signed, signed_list), (packaged, packaged_list) in itertools.product(lists + expired, lists):
            current[:] = signed_list, packaged_list
            answer = board.answer(PHASE, NOW)
            levels = ("policy", "environment", "setting", "signed", "packaged", "default")
            values = (policy, environment, setting, signed, packaged, "fallback")
            level, value = next((level, value) for level, value in zip(levels, values, strict=True) if value)
            assert (answer.level, answer.value) == (level, value)
            assert answer.stale == (level == "signed" and signed_list in [flags for _, flags in expired])
            assert answer.reason == ("DEFAULT" if level == "default" else "STALE" if answer.stale else "STATIC")
            combinations += 1
    assert combinations == 4 * 4 * 4 * 10 * 7


def test_an_answer_that_a_flag_may_not_have_is_passed_over_and_said(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.signed, machine.packaged = flag_list(phase="turbo", percent=True), flag_list(phase="mixed")
    answer = machine.flags.answer(PHASE, NOW)
    assert (answer.value, answer.level) == ("mixed", "packaged")
    assert answer.note.startswith("signed: registry.phase: must be one of")
    answer = machine.flags.answer(PERCENT, NOW)
    assert (answer.value, answer.level) == (KNOWN[PERCENT].default, "default")
    assert "registry.mixed.percent is a bool" in answer.note


def test_the_operators_answer_says_why_this_machine_has_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    linux = [Constraint("os", "in", ["linux"])]
    flag = Flag(id=PHASE, value="fallback", rules=[Rule(value="mixed", target=linux)])
    machine.signed = FlagList({PHASE: flag})
    answer = machine.flags.answer(PHASE, NOW)
    assert (answer.value, answer.reason, answer.variant) == ("mixed", "TARGETING_MATCH", "mixed")


def test_a_damaged_policy_holds_every_flag_at_its_safest_and_says_so(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.policy.write_text("[flags")
    machine.environment["JAN_REGISTRY_PHASE"] = "dynamic"
    machine.settings = RegistrySettings(phase="dynamic")
    machine.signed = flag_list(phase="dynamic")
    machine.restart()
    answer = machine.flags.answer(PHASE, NOW)
    assert (answer.value, answer.level) == ("fallback", "policy")
    assert "the safest values hold" in answer.note
    assert machine.flags.notes(NOW) == [answer.note]
    assert machine.flags.answer(REFRESH, NOW).level == "default", "there is no safer time between refreshes"


def test_flags_that_are_no_phase_go_the_same_way(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.settings = RegistrySettings(experiments=False, refresh_seconds=900)
    machine.signed = FlagList(
        {name: Flag(id=name, value=value) for name, value in ((EXPERIMENTS, True), (REFRESH, 60), (SHADOW, False))}
    )
    found = machine.flags.all(NOW)
    assert set(found) == set(KNOWN)
    assert {name: (answer.value, answer.level) for name, answer in found.items() if answer.level != "default"} == {
        EXPERIMENTS: (False, "setting"),
        REFRESH: (900, "setting"),
        SHADOW: (False, "signed"),
    }


def test_without_an_id_of_this_machine_only_what_is_for_everybody_counts(tmp_path: Path) -> None:
    def gone() -> str:
        raise StorageError("the disk is full")

    board = FlagBoard(
        policy=PolicyFile(tmp_path / "none"),
        environment={},
        settings=RegistrySettings,
        signed=lambda: shares,
        packaged=lambda: None,
        facts=dict,
        unit=gone,
    )
    shares = FlagList({PHASE: Flag(id=PHASE, value="fallback", rules=[Rule(value="dynamic", percent=99)])})
    assert board.answer(PHASE, NOW).value == "fallback"


def test_openfeature_is_imported_when_the_operator_has_said_something(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
import jan_registry.rollout.phase_methods
from board import Machine, flag_list
machine = Machine(Path(sys.argv[1]))
heavy = {"openfeature", "packaging.version", "platformdirs", "sqlite3", "tuf", "httpx"}
assert machine.keeper.effective(1000.0).phase == "fallback"
assert not heavy & set(sys.modules), heavy & set(sys.modules)
machine.signed = flag_list(phase="fallback", percent=5)
assert machine.keeper.effective(1000.0).level == "signed"
assert "openfeature" in sys.modules
assert "sqlite3" not in sys.modules, "nothing was drawn and nothing is to be remembered"
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    here = Path(__file__).parent
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=here)
    assert done.returncode == 0, done.stderr


def test_other_facts_are_looked_at_when_it_is_said_that_they_are_others(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    rule = Rule(value="mixed", target=[Constraint("app_version", "semver_gte", ["2.0"])])
    machine.signed = FlagList({PHASE: Flag(id=PHASE, value="fallback", rules=[rule])})
    assert machine.keeper.effective(NOW).phase == "fallback"
    machine.facts = {"app_version": "2.1"}
    machine.flags.look_again()
    assert machine.keeper.effective(NOW).phase == "mixed"


@pytest.mark.parametrize("name", ["registry.other", ""])
def test_a_flag_that_nobody_knows_is_a_mistake_of_the_program(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyError):
        Machine(tmp_path).flags.answer(name, NOW)
