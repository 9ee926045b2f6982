"""Decisions are kept with what they were made from, and come out the same again; what was touched is noticed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from jan_registry.collections import canonical
from jan_registry.local import open_local
from jan_registry.rollout.decisions import Decision, Decisions
from jan_registry.rollout.gates import VERSION, Evidence, Inputs, Thresholds, Verdict, judge
from jan_registry.rollout.replay import judges, replay
from msgspec.structs import replace

DAY = 86_400


def inputs(now: int = 1_000, **seen: int) -> Inputs:
    return Inputs(
        gate=VERSION,
        phase="mixed",
        now=now,
        pinned=False,
        obstacle="",
        evidence=Evidence(**seen),
        thresholds=Thresholds(),
    )


@pytest.fixture
def decisions(tmp_path: Path) -> Decisions:
    return Decisions(open_local(tmp_path), "registry.phase")


def stored(decisions: Decisions, given: Inputs) -> Decision:
    decisions.store(given, judge(given))
    return decisions.latest(1)[0]


def test_a_decision_comes_out_the_same_byte_for_byte(decisions: Decisions) -> None:
    decision = stored(decisions, inputs(conflicts=2))
    assert (decision.from_phase, decision.to_phase) == ("mixed", "fallback")
    assert replay(decision, judges()).outcome == "same"
    assert msgspec.json.decode(decision.inputs)["evidence"]["conflicts"] == 2


def test_that_nothing_changes_is_kept_once_a_day(decisions: Decisions) -> None:
    for hour in range(49):
        given = inputs(now=DAY + hour * 3600)
        decisions.store(given, judge(given))
    assert [d.at for d in decisions.latest(99)] == [3 * DAY, 2 * DAY, DAY]


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": b"{}"},
        {"to_phase": "dynamic"},
        {"at": 999},
        {"reason": "because"},
        {"inputs": canonical(msgspec.to_builtins(inputs(conflicts=3)))},
        {"inputs": msgspec.json.format(canonical(msgspec.to_builtins(inputs(conflicts=2))), indent=1)},
    ],
)
def test_a_decision_that_was_touched_differs(decisions: Decisions, change: dict[str, object]) -> None:
    decision = stored(decisions, inputs(conflicts=2))
    assert replay(replace(decision, **change), judges()).outcome == "differs"


def test_a_decision_of_a_gate_that_is_not_known_here_is_said_to_be_not_replayable(decisions: Decisions) -> None:
    decision = stored(decisions, replace(inputs(), gate=99))
    assert (replay(decision, judges()).outcome, replay(decision, judges()).detail) == (
        "unknown",
        "it was made by gate 99",
    )
    assert replay(replace(decision, inputs=b"no json"), judges()).outcome == "unknown"
    assert replay(replace(decision, inputs=b'{"gate":1,"more":2}'), judges()).outcome == "unknown"


def test_an_older_decision_is_made_again_by_the_gate_of_its_time(decisions: Decisions) -> None:
    def old(given: Inputs) -> Verdict:
        return Verdict(action="stay", phase=given.phase, reason="the old one never moved")

    given = inputs(conflicts=2)
    decisions.store(given, old(given))
    decision = decisions.latest(1)[0]
    assert replay(decision, judges()).outcome == "differs"
    assert replay(decision, {VERSION: old}).outcome == "same"
