"""Which phase is in force, which list is served, and that it is the same after a restart."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jan_registry.collections import Flag, Rule
from jan_registry.flags.bucket import bucket
from jan_registry.flags.known import CEILING, PERCENT, PHASE, PHASES
from jan_registry.flags.precedence import FlagAnswer
from jan_registry.flags.rules import FlagList
from jan_registry.rollout.arm import arm
from jan_registry.rollout.inforce import Seen, in_force
from jan_registry.rollout.phase import COOL_DOWN, PhaseKeeper
from jan_registry.rollout.phase_methods import PhaseMethods, PhaseServices
from jan_registry.settings import RegistrySettings

from jan_core import StorageError, hookimpl, methods_of
from jan_core.testing import InlineSource
from jan_core.types import Evidence, Phase, PhaseChoice

from .board import UNIT, Machine, flag_list

NOW = 1_800_000_000.0
HOUR = 3600.0
EXAMPLES = int(os.environ.get("JAN_TEST_EXAMPLES", "60"))
LOCAL = ("policy", "environment", "setting")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.stop()


# -- pure
# -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "bucket", "percent", "listed", "cooling", "served"),
    [
        ("fallback", None, 100, True, False, "dynamic"),
        ("fallback", None, 100, False, False, "builtin"),
        ("fallback", None, 100, True, True, "builtin"),
        ("fallback", None, 100, False, True, "builtin"),
        ("mixed", 499, 5, True, False, "dynamic"),
        ("mixed", 500, 5, True, False, "builtin"),
        ("mixed", 499, 5, True, True, "dynamic"),
        ("mixed", 499, 5, False, False, "builtin"),
        ("mixed", 0, 0, True, False, "builtin"),
        ("mixed", 9999, 100, True, False, "dynamic"),
        ("mixed", None, 100, True, False, "builtin"),
        ("dynamic", None, 0, True, False, "dynamic"),
        ("dynamic", 9999, 0, False, True, "dynamic"),
    ],
)
def test_which_list_is_served(
    phase: Phase, bucket: int | None, percent: int, listed: bool, cooling: bool, served: str
) -> None:
    assert arm(phase, bucket, percent, listed=listed, cooling=cooling) == served


def answers(name: str) -> list[FlagAnswer]:
    """Everything that precedence can answer for a flag that is a phase."""
    found = [FlagAnswer(name, phase, level, "STATIC") for level in (*LOCAL, "signed", "packaged") for phase in PHASES]  # type: ignore[arg-type]
    found += [FlagAnswer(name, phase, "signed", "STALE") for phase in PHASES]
    return [*found, FlagAnswer(name, "fallback", "default", "DEFAULT")]


def number(phase: Any) -> int:
    return PHASES.index(phase)


def test_every_combination_of_what_is_said_and_seen_gives_the_phase_of_the_rule() -> None:
    choices: tuple[Any, ...] = (None, *((phase, "theirs: because") for phase in PHASES))
    caps: tuple[Any, ...] = (None, *PHASES)
    combinations = 0
    for floor, ceiling, choice in itertools.product(answers(PHASE), answers(CEILING), choices):
        for earned, fresh, cap in itertools.product(PHASES, PHASES, caps):
            found = in_force(floor, ceiling, choice, Seen(earned, fresh, cap, "it broke"))
            pinned = True
            if floor.level in LOCAL:
                expected, rank = number(floor.value), LOCAL.index(floor.level)
            elif choice is not None:
                expected, rank = number(choice[0]), 3
            else:
                asked = min(number(floor.value), number(fresh) if floor.stale else 9)
                own = min(number(earned), number(ceiling.value), number(fresh) if ceiling.stale else 9)
                expected, rank, pinned = min(max(asked, own), 9 if cap is None else number(cap)), 9, False
            if ceiling.level in LOCAL and LOCAL.index(ceiling.level) < rank and expected > number(ceiling.value):
                expected, pinned = number(ceiling.value), True
            assert (number(found.phase), found.pinned) == (expected, pinned), (floor, ceiling, choice, found)
            assert found.reason
            combinations += 1
    assert combinations == 19 * 19 * 4 * 36


phases = st.sampled_from(PHASES)
seen = st.builds(Seen, phases, phases, st.none() | phases, st.just("it broke"))


@given(st.sampled_from(answers(CEILING)), st.none() | st.tuples(phases, st.just("x")), seen, phases, phases)
def test_the_operator_raises_nothing_above_what_is_allowed_here(
    ceiling: FlagAnswer, choice: Any, remembered: Seen, one: Phase, other: Phase
) -> None:
    low, high = sorted((one, other), key=number)
    found = [
        in_force(FlagAnswer(PHASE, asked, "signed", "STATIC"), ceiling, choice, remembered) for asked in (low, high)
    ]
    assert number(found[0].phase) <= number(found[1].phase), "asking for more must not give less"
    for answer in found:
        if choice is None and remembered.cap is not None:
            assert number(answer.phase) <= number(remembered.cap)
        if ceiling.level in LOCAL:
            assert number(answer.phase) <= number(ceiling.value)
    expired = in_force(FlagAnswer(PHASE, high, "signed", "STALE"), ceiling, choice, remembered)
    assert number(expired.phase) <= number(found[1].phase)


# -- a machine
# -----------------------------------------------------------------------------------------------------------------


def test_a_fresh_profile_is_in_fallback_and_writes_nothing(machine: Machine) -> None:
    assert machine.keeper.peek(NOW) is None
    effective = machine.keeper.effective(NOW)
    assert (effective.phase, effective.level, effective.since) == ("fallback", "default", 0)
    assert machine.keeper.peek(NOW + 1) is effective
    assert effective.arm(listed=True) == "dynamic"
    assert effective.arm(listed=False) == "builtin"
    assert not machine.db.path.exists()


def test_in_mixed_the_arm_follows_the_bucket_and_stays_over_restarts(machine: Machine) -> None:
    drawn = bucket("flags", "registry.mixed.percent:arm", UNIT)
    percent = drawn // 100 + 1
    machine.signed = flag_list(phase="mixed", percent=percent)
    effective = machine.keeper.effective(NOW)
    assert (effective.phase, effective.level, effective.bucket) == ("mixed", "signed", drawn)
    assert (effective.shadow, effective.percent, effective.since) == (True, percent, int(NOW))
    assert effective.arm(listed=True) == "dynamic"
    machine.restart()
    assert machine.keeper.effective(NOW + HOUR) == effective
    machine.signed = flag_list(phase="mixed", percent=drawn // 100)
    assert machine.keeper.effective(NOW + HOUR).arm(listed=True) == "builtin"


def test_a_share_of_the_flag_and_the_arm_are_drawn_apart(machine: Machine) -> None:
    served = []
    for i in range(400):
        machine.unit = f"{i:032x}"
        flag = Flag(id=PERCENT, value=0, rules=[Rule(value=50, percent=20)])
        machine.signed = FlagList({PHASE: Flag(id=PHASE, value="mixed"), PERCENT: flag})
        effective = machine.keeper.effective(NOW)
        if effective.percent == 50:
            served.append(effective.arm(listed=True))
    assert 0.3 < served.count("dynamic") / len(served) < 0.7


def test_a_demotion_is_immediate_one_step_and_ends_after_a_day(machine: Machine) -> None:
    machine.signed = flag_list(phase="dynamic")
    assert machine.keeper.effective(NOW).phase == "dynamic"
    effective = machine.keeper.demote("conflicts:\n3", NOW + 1)
    assert (effective.phase, effective.level, effective.reason) == ("mixed", "demotion", "conflicts: 3")
    assert (effective.cap, effective.until) == ("mixed", int(NOW + 1 + COOL_DOWN))
    machine.restart()
    assert machine.keeper.effective(NOW + 23 * HOUR).phase == "mixed"
    assert machine.keeper.demote("errors in a row", NOW + 23 * HOUR).phase == "fallback"
    effective = machine.keeper.effective(NOW + 46 * HOUR)
    assert (effective.phase, effective.arm(listed=True)) == ("fallback", "builtin")
    effective = machine.keeper.effective(NOW + 47 * HOUR)
    assert (effective.phase, effective.level, effective.cap) == ("dynamic", "signed", None)


def test_in_fallback_a_demotion_serves_the_built_in_list_for_a_day(machine: Machine) -> None:
    effective = machine.keeper.demote("it cannot be read", NOW)
    assert (effective.phase, effective.arm(listed=True)) == ("fallback", "builtin")
    assert machine.keeper.effective(NOW + COOL_DOWN - 1).arm(listed=True) == "builtin"
    assert machine.keeper.effective(NOW + COOL_DOWN).arm(listed=True) == "dynamic"


def test_a_demotion_can_be_shorter_than_a_day_but_not_longer(machine: Machine) -> None:
    assert machine.keeper.demote("x", NOW, 60.0).until == int(NOW + 60)
    assert machine.keeper.demote("x", NOW, 1e9).until == int(NOW + COOL_DOWN)


def test_evidence_promotes_one_step_at_a_time_as_far_as_the_ceiling(machine: Machine) -> None:
    assert machine.keeper.promote(NOW).phase == "fallback"
    assert "evidence may promote to fallback at most" in machine.keeper.obstacle(NOW)
    machine.signed = flag_list(phase="fallback", ceiling="dynamic")
    assert machine.keeper.obstacle(NOW) == ""
    effective = machine.keeper.promote(NOW)
    assert (effective.phase, effective.level) == ("mixed", "evidence")
    machine.restart()
    assert machine.keeper.promote(NOW + HOUR).phase == "dynamic"
    assert machine.keeper.obstacle(NOW + HOUR) == "it is the last phase"
    machine.signed = flag_list(phase="fallback", ceiling="mixed")
    assert machine.keeper.effective(NOW + HOUR).phase == "mixed"
    machine.signed = flag_list(phase="fallback")
    assert machine.keeper.effective(NOW + HOUR).phase == "fallback"


def test_what_was_earned_is_lost_with_a_demotion(machine: Machine) -> None:
    machine.signed = flag_list(phase="fallback", ceiling="dynamic")
    machine.keeper.promote(NOW)
    assert machine.keeper.demote("slow", NOW).phase == "fallback"
    assert machine.keeper.obstacle(NOW + 1).startswith("demoted until 2027-01-16T")
    assert machine.keeper.promote(NOW + 1).phase == "fallback"
    effective = machine.keeper.effective(NOW + COOL_DOWN)
    assert (effective.phase, effective.cap) == ("fallback", None)
    assert machine.keeper.promote(NOW + COOL_DOWN).phase == "mixed"


def test_lowering_what_the_operator_asks_for_is_not_undone_by_what_was_asked_before(machine: Machine) -> None:
    machine.signed = flag_list(phase="dynamic", ceiling="dynamic")
    assert machine.keeper.effective(NOW).phase == "dynamic"
    machine.signed = flag_list(phase="fallback", ceiling="dynamic")
    assert machine.keeper.effective(NOW).phase == "fallback"


def test_flags_that_have_expired_keep_the_phase_but_do_not_raise_it(machine: Machine) -> None:
    machine.signed = flag_list(NOW + HOUR, phase="mixed", ceiling="dynamic")
    assert machine.keeper.effective(NOW).phase == "mixed"
    effective = machine.keeper.effective(NOW + 2 * HOUR)
    assert (effective.phase, effective.floor.stale) == ("mixed", True)
    assert machine.keeper.obstacle(NOW + 2 * HOUR) == "the operator's flags have expired"
    assert machine.keeper.promote(NOW + 2 * HOUR).phase == "mixed"
    machine.restart()
    assert machine.keeper.effective(NOW + 90 * 24 * HOUR).phase == "mixed"
    machine.signed = flag_list(NOW + HOUR, phase="dynamic")
    effective = machine.keeper.effective(NOW + 90 * 24 * HOUR)
    assert effective.phase == "mixed"
    assert "such do not promote" in effective.reason
    machine.signed = flag_list(NOW + HOUR, phase="fallback")
    assert machine.keeper.effective(NOW + 90 * 24 * HOUR).phase == "fallback"
    machine.signed = flag_list(NOW + HOUR, phase="mixed")
    assert machine.keeper.effective(NOW + 91 * 24 * HOUR).phase == "fallback", "what was taken back stays so"
    machine.signed = flag_list(NOW + 100 * 24 * HOUR, phase="mixed")
    assert machine.keeper.effective(NOW + 91 * 24 * HOUR).phase == "mixed"


def test_a_phase_that_was_never_seen_fresh_is_not_taken_from_expired_flags(machine: Machine) -> None:
    machine.signed = flag_list(NOW - 1, phase="dynamic")
    assert machine.keeper.effective(NOW).phase == "fallback"


def test_after_a_demotion_expired_flags_give_back_what_they_gave_before_and_no_more(machine: Machine) -> None:
    machine.signed = flag_list(NOW + HOUR, phase="dynamic")
    machine.keeper.demote("conflicts", NOW)
    assert machine.keeper.effective(NOW + 2 * HOUR).level == "demotion"
    assert machine.keeper.effective(NOW + COOL_DOWN).phase == "dynamic"


def test_before_the_flags_are_read_the_phase_is_the_one_that_is_remembered(machine: Machine) -> None:
    signed = machine.signed = flag_list(NOW + HOUR, phase="mixed", ceiling="dynamic")
    began = machine.keeper.effective(NOW)
    machine.signed, machine.looked = None, False
    machine.restart()
    effective = machine.keeper.effective(NOW + 2 * HOUR)
    assert (effective.phase, effective.since) == ("mixed", began.since)
    assert machine.keeper.obstacle(NOW + 2 * HOUR) == "the operator's flags have not been read yet"
    machine.settings = RegistrySettings(phase="fallback")
    assert machine.keeper.effective(NOW + 2 * HOUR).level == "setting", "who sits here need not wait for them"
    machine.settings = RegistrySettings()
    machine.signed, machine.looked = signed, True
    effective = machine.keeper.effective(NOW + 2 * HOUR)
    assert (effective.phase, effective.level) == ("mixed", "signed"), "they have expired meanwhile, but were fresh"


def test_flags_that_expire_are_noticed_without_anything_else_having_changed(machine: Machine) -> None:
    machine.signed = flag_list(NOW + HOUR, phase="mixed")
    assert not machine.keeper.answer(NOW, listed=True).stale
    assert machine.keeper.answer(NOW + HOUR, listed=True).stale


def test_what_somebody_at_the_machine_chose_stands_above_a_demotion_which_holds_when_they_take_it_back(
    machine: Machine,
) -> None:
    machine.signed = flag_list(phase="dynamic", ceiling="dynamic")
    machine.settings = RegistrySettings(phase="dynamic")
    effective = machine.keeper.demote("conflicts", NOW)
    assert (effective.phase, effective.level, effective.cap) == ("dynamic", "setting", "mixed")
    assert machine.keeper.obstacle(NOW) == "the setting `registry.phase` asks for it"
    machine.settings = RegistrySettings()
    assert machine.keeper.effective(NOW).phase == "mixed"


def test_a_ceiling_of_the_administrator_binds_everybody_else(machine: Machine) -> None:
    machine.policy.write_text('[flags]\n"registry.phase.ceiling" = "mixed"\n')
    machine.settings = RegistrySettings(phase="dynamic")
    effective = machine.keeper.effective(NOW)
    assert (effective.phase, effective.level, effective.pinned) == ("mixed", "policy", True)
    assert "registry.phase.ceiling" in effective.reason


class Chooser:
    """An extension that chooses a phase."""

    def __init__(self, phase: Phase) -> None:
        self.phase: Phase | None = phase
        self.asked: list[tuple[dict[str, Any], Evidence]] = []

    @hookimpl
    def jan_rollout_phase(self, flags: dict[str, Any], evidence: Evidence) -> PhaseChoice | None:
        self.asked.append((flags, evidence))
        return PhaseChoice(self.phase, "a fleet manager says so") if self.phase else None


async def test_another_extensions_choice_stands_above_a_demotion_and_below_the_person(
    open_host: Any, machine: Machine
) -> None:
    chooser = Chooser("dynamic")
    machine.signed = flag_list(phase="mixed")
    async with open_host(sources=[InlineSource("fleet", chooser)]) as host:
        machine.keeper.demote("conflicts", NOW)
        assert machine.keeper.effective(NOW).phase == "fallback"
        await machine.keeper.consult(host.hooks, Evidence(requests=7), NOW)
        effective = machine.keeper.effective(NOW)
        assert (effective.phase, effective.level) == ("dynamic", "extension")
        assert effective.reason == "fleet: a fleet manager says so"
        flags, evidence = chooser.asked[0]
        assert (flags[PHASE], evidence.requests) == ("mixed", 7)
        machine.settings = RegistrySettings(phase="mixed")
        assert machine.keeper.effective(NOW).level == "setting"
        machine.settings = RegistrySettings()
        chooser.phase = None
        await machine.keeper.consult(host.hooks, Evidence(), NOW)
        assert machine.keeper.effective(NOW).level == "demotion"


async def test_the_methods_say_which_phase_it_is_and_what_every_flag_is(open_host: Any, machine: Machine) -> None:
    class Extension(PhaseMethods):
        phase_services = PhaseServices(
            machine.keeper, machine.flags, _at_once, lambda: False, lambda effective: [], lambda: NOW
        )

        @hookimpl
        def jan_methods(self) -> list[Any]:
            return methods_of(self)

    machine.signed = flag_list(phase="mixed", percent=40)
    machine.keeper.effective(NOW)
    machine.keeper.demote("conflicts", NOW)
    async with open_host(sources=[InlineSource("registry", Extension, ["registry."])]) as host:
        phase = await host.client().call("registry.phase")
        flags = await host.client().call("registry.flags")
    assert phase["phase"] == "fallback"
    assert (phase["level"], phase["asked"], phase["asked_level"]) == ("demotion", "mixed", "signed")
    assert (phase["demoted_to"], phase["demoted_until"]) == ("fallback", "2027-01-16T08:00:00Z")
    assert (phase["arm"], phase["percent"], phase["bucket"]) == ("builtin", 40, None)
    assert flags["flags"][PERCENT]["value"] == 40
    assert UNIT not in str((phase, flags))


# -- when something is wrong
# -----------------------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_keeps_nothing_from_working(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, where the folder should be")
    machine = Machine(tmp_path)
    machine.signed = flag_list(phase="dynamic")
    effective = machine.keeper.effective(NOW)
    assert effective.phase == "dynamic"
    assert machine.keeper.demote("conflicts", NOW).phase == "mixed"
    assert machine.keeper.effective(NOW + HOUR).phase == "mixed"
    assert any("not remembered" in note for note in machine.keeper.answer(NOW + HOUR, listed=True).notes)
    assert machine.keeper.effective(NOW + COOL_DOWN).phase == "dynamic"


def test_a_database_that_cannot_be_read_for_a_while_is_not_written_over(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.signed = flag_list(phase="mixed", ceiling="dynamic")
    assert machine.keeper.promote(NOW).phase == "dynamic"
    machine.restart()

    def locked() -> Any:
        raise StorageError("registry.db: database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(machine.db, "read", locked)
        effective = machine.keeper.effective(NOW)
        assert effective.phase == "mixed"
        assert "cannot be read" in effective.notes[0]
        assert machine.keeper.peek(NOW + 29) is effective, "a disk in trouble is not asked for every list"
    assert machine.keeper.effective(NOW + 30).phase == "dynamic"


def test_what_is_remembered_and_makes_no_sense_is_forgotten(machine: Machine) -> None:
    machine.keeper.demote("conflicts", NOW)
    with machine.db.write() as db:
        db.execute("UPDATE rollout SET earned = 'turbo'")
    machine.restart()
    effective = machine.keeper.effective(NOW)
    assert (effective.phase, effective.cap) == ("fallback", None)


def test_a_machine_without_an_id_is_served_the_built_in_list_in_mixed(machine: Machine) -> None:
    def gone() -> str:
        raise StorageError("disk full")

    machine.signed = flag_list(phase="mixed", percent=100)
    effective = PhaseKeeper(machine.flags, machine.db, gone).effective(NOW)
    assert (effective.bucket, effective.arm(listed=True)) == (None, "builtin")
    assert "disk full" in effective.notes[0]


def test_a_demotion_by_a_clock_that_was_years_ahead_ends_a_day_after_it_is_set_right(machine: Machine) -> None:
    machine.signed = flag_list(phase="mixed")
    machine.keeper.demote("conflicts", NOW + 10 * 365 * 24 * HOUR)
    assert machine.keeper.effective(NOW).phase == "fallback"
    machine.restart()
    assert machine.keeper.effective(NOW + 23 * HOUR).phase == "fallback"
    assert machine.keeper.effective(NOW + 25 * HOUR).phase == "mixed"


def test_two_processes_see_each_others_demotion(machine: Machine) -> None:
    machine.signed = flag_list(phase="dynamic")
    other = Machine(machine.folder)
    other.signed = machine.signed
    machine.keeper.demote("conflicts", NOW)
    assert other.keeper.effective(NOW).phase == "mixed"
    other.stop()


def test_asking_again_takes_less_than_50_microseconds(machine: Machine) -> None:
    machine.signed, machine.packaged = flag_list(NOW + HOUR, phase="mixed"), flag_list(phase="mixed")
    machine.keeper.effective(NOW)
    best = 1.0
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(100):
            machine.keeper.effective(NOW + 1)
        best = min(best, (time.perf_counter() - begun) / 100)
    assert best < 50e-6


operations = st.lists(
    st.one_of(
        st.tuples(st.just("signed"), phases, phases, st.booleans()),
        st.tuples(st.just("setting"), st.sampled_from(["", *PHASES])),
        st.tuples(st.just("demote"), st.floats(0, 2 * COOL_DOWN)),
        st.just(("promote",)),
        st.just(("restart",)),
        st.tuples(st.just("wait"), st.floats(0, 30 * HOUR)),
    ),
    max_size=25,
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(operations)
def test_whatever_happens_steps_are_single_and_nobody_is_overruled(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    machine, now = Machine(tmp_path_factory.mktemp("machine")), NOW
    for step in steps:
        before = machine.keeper.effective(now)
        match step:
            case ("signed", phase, ceiling, fresh):
                machine.signed = flag_list(0.0 if fresh else 1.0, phase=phase, ceiling=ceiling)
                after = machine.keeper.effective(now)
                if not fresh and not before.pinned:
                    assert number(after.phase) <= number(before.phase), "expired flags raise nothing"
            case ("setting", phase):
                machine.settings = RegistrySettings(phase=phase)
                after = machine.keeper.effective(now)
                assert not phase or after.phase == phase
            case ("demote", seconds):
                after = machine.keeper.demote("because", now, seconds)
                if not before.pinned and seconds >= 1:
                    assert number(after.phase) == max(0, number(before.phase) - 1)
            case ("promote",):
                obstacle = machine.keeper.obstacle(now)
                after = machine.keeper.promote(now)
                assert number(after.phase) == number(before.phase) + (not obstacle)
            case ("restart",):
                machine.restart()
                assert machine.keeper.effective(now) == before
            case ("wait", seconds):
                now += seconds
                after = machine.keeper.effective(now)
                assert after.phase == before.phase or before.cooling
    machine.stop()


async def _at_once() -> None:
    pass
