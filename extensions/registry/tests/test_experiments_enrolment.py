"""Taking part in experiments: drawn once, kept, left for good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jan_registry.collections import Branch, Constraint, Experiment
from jan_registry.experiments.enrolment import Arm, Enrolment, Enrolments, arm_of, evolve, key_of
from jan_registry.experiments.exposure import WINDOW, Exposures
from jan_registry.local import open_local
from jan_registry.sqlite import Database
from jan_registry.targeting import Facts
from msgspec.structs import replace

NOW = 1_800_000_000
DAY = 86400
BRANCHES = [Branch(id="control"), Branch(id="small-first", slot="small-first")]


def experiment(id: str = "order", **fields: Any) -> Experiment:
    return Experiment(id=id, branches=fields.pop("branches", BRANCHES), **fields)


def drawn(
    *experiments: Experiment, unit: str = "u", kept: dict[str, Enrolment] | None = None, **how: Any
) -> dict[str, Enrolment]:
    given: dict[str, Any] = {"facts": {}, "enabled": True, "now": NOW} | how
    return evolve(experiments, kept or {}, unit=unit, **given)


def only(found: dict[str, Enrolment]) -> tuple[str, str]:
    [enrolment] = found.values()
    return enrolment.status, enrolment.reason


# -- drawing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "enabled", "stands"),
    [
        ({}, True, ("enrolled", "qualified")),
        ({}, False, ("not_enrolled", "opt-out")),
        ({"percent": 0}, True, ("not_enrolled", "not-selected")),
        ({"state": "paused"}, True, ("not_enrolled", "paused")),
        ({"state": "ended"}, True, ("not_enrolled", "ended")),
        ({"state": "of a newer hub"}, True, ("not_enrolled", "ended")),
        ({"branches": [Branch(id="alone")]}, True, ("not_enrolled", "unusable")),
        ({"branches": [Branch(id="a"), Branch(id="b", ratio=0)]}, True, ("not_enrolled", "unusable")),
        ({"target": [Constraint("os", "in", ["macos"])]}, True, ("not_enrolled", "not-targeted")),
        ({"target": [Constraint("shoe_size", "gte", [42])]}, True, ("not_enrolled", "not-targeted")),
    ],
)
def test_who_is_meant_and_lies_below_the_percentage_takes_part(
    fields: dict[str, Any], enabled: bool, stands: tuple[str, str]
) -> None:
    assert only(drawn(experiment(**fields), facts={"os": "linux"}, enabled=enabled)) == stands


def test_branches_are_drawn_in_their_ratios_and_independently_of_who_takes_part() -> None:
    parted = experiment(branches=[Branch(id="a", ratio=3), Branch(id="b")], percent=40)
    got = Counter(next(iter(drawn(parted, unit=f"unit-{n}").values())).branch for n in range(8000))
    assert got[""] / 8000 == pytest.approx(0.6, abs=0.02)
    assert got["a"] / (got["a"] + got["b"]) == pytest.approx(0.75, abs=0.03)


def test_who_takes_part_stays_when_the_percentage_falls_or_enrolment_is_paused() -> None:
    before = drawn(experiment(percent=100))
    for changed in (
        experiment(percent=0),
        experiment(state="paused"),
        experiment(title="another title", metric="chat"),
    ):
        assert drawn(changed, kept=before, now=NOW + 1) == before
    later = drawn(experiment(percent=0))
    assert only(drawn(experiment(percent=100), kept=later)) == ("enrolled", "qualified")


def test_another_salt_or_other_branches_are_another_experiment() -> None:
    before = drawn(experiment())
    for other in (experiment(salt="2"), experiment(branches=[*BRANCHES, Branch(id="third", slot="x")]),
                  experiment(branches=[BRANCHES[0], replace(BRANCHES[1], ratio=2)])):  # fmt: skip
        found = drawn(other, kept=before, now=NOW + 1)
        assert [each.status for each in found.values()] == ["ended", "enrolled"]
        assert found[key_of(experiment())].reason == "gone"
        assert key_of(other) != key_of(experiment())


def test_the_setting_ends_taking_part_at_once_and_for_good() -> None:
    out = drawn(experiment(), kept=drawn(experiment()), enabled=False)
    assert only(out) == ("disqualified", "opt-out")
    assert only(drawn(experiment(), kept=out)) == ("disqualified", "opt-out")
    assert arm_of([experiment()], out) is None


def test_who_is_not_meant_any_more_leaves_and_memory_that_comes_and_goes_does_not_matter() -> None:
    target = [Constraint("locale", "in", ["de"]), Constraint("memory_free", "gte", [8])]
    german: Facts = {"locale": "de", "memory_free": 9}
    inside = drawn(experiment(target=target), facts=german)
    assert only(inside) == ("enrolled", "qualified")
    assert drawn(experiment(target=target), kept=inside, facts=german | {"memory_free": 1}) == inside
    assert drawn(experiment(target=target), kept=inside, facts={}) == inside, "what is unknown now may be as it was"
    left = drawn(experiment(target=target), kept=inside, facts=german | {"locale": "fr"})
    assert only(left) == ("disqualified", "not-targeted")
    assert drawn(experiment(target=target), kept=left, facts=german) == left


def test_of_several_experiments_one_has_the_machine_in_an_order_that_does_not_change() -> None:
    a, b, c = (experiment(id) for id in "abc")
    for order in ((a, b, c), (c, b, a)):
        found = drawn(*order)
        assert {key.partition("#")[0]: each.status for key, each in found.items()} == {
            "a": "enrolled", "b": "not_enrolled", "c": "not_enrolled",
        }  # fmt: skip
        assert found[key_of(b)].reason == "another"
    first = drawn(b)
    found = drawn(a, b, c, kept=first)
    assert (found[key_of(b)].status, found[key_of(a)].reason) == ("enrolled", "another"), "who takes part goes on"
    ended = drawn(a, replace(b, state="ended"), c, kept=found, now=NOW + 1)
    assert (ended[key_of(b)].status, ended[key_of(a)].status) == ("ended", "enrolled")


STATES = st.sampled_from(["running", "paused", "ended", "unheard of"])
WORLDS = st.lists(
    st.tuples(st.lists(st.tuples(st.sampled_from("abc"), STATES, st.integers(0, 100)), max_size=3), st.booleans()),
    max_size=8,
)


@settings(max_examples=60)
@given(st.text(min_size=1, max_size=8), WORLDS)
def test_whatever_the_operator_does_a_machine_never_changes_its_branch_and_has_one_experiment(
    unit: str, worlds: Any
) -> None:
    kept: dict[str, Enrolment] = {}
    branches: dict[str, str] = {}
    gone: set[str] = set()
    for number, (described, enabled) in enumerate(worlds):
        offered = {id: experiment(id, state=state, percent=percent) for id, state, percent in described}
        kept = drawn(*offered.values(), unit=unit, kept=kept, enabled=enabled, now=NOW + number)
        assert drawn(*offered.values(), unit=unit, kept=kept, enabled=enabled, now=NOW + number) == kept
        active = [each for each in kept.values() if each.status == "enrolled"]
        assert len(active) <= 1
        assert enabled or not active
        for each in active:
            assert branches.setdefault(each.key, each.branch) == each.branch
            assert each.key not in gone
        gone |= {each.key for each in kept.values() if each.status in ("disqualified", "ended")}


# -- the tables --------------------------------------------------------------------------------------------------------


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    opened = open_local(tmp_path)
    yield opened
    opened.close()


def update(db: Database, *experiments: Experiment, enabled: bool = True, now: int = NOW) -> Arm | None:
    kept = Enrolments(db).update(experiments, unit="u", facts={}, enabled=enabled, now=now)
    return arm_of(experiments, kept)


def test_without_experiments_nothing_is_written(db: Database) -> None:
    assert update(db) is None
    assert not db.exists


def test_an_enrolment_outlives_the_process(db: Database, tmp_path: Path) -> None:
    arm = update(db, experiment())
    assert arm is not None
    again = open_local(tmp_path)
    assert update(again, experiment(percent=0), now=NOW + 9) == arm
    assert Enrolments(again).all()[arm.key].at == NOW
    again.close()


def test_an_exposure_counts_once_a_session(db: Database) -> None:
    arm = update(db, experiment())
    assert arm is not None
    for session, at in (("s1", NOW), ("s1", NOW + 1), ("s2", NOW + DAY)):
        exposures = Exposures(db, session)
        for _ in range(3):
            exposures.shown(arm, ["a", "b"], at)
        assert not exposures.is_new(arm, ["b"])
        assert exposures.is_new(arm, ["c"])
    [evidence] = Exposures(db, "s3").evidence().values()
    assert (evidence.first, evidence.sessions, evidence.outcomes) == (NOW, 2, {})


def test_an_outcome_is_the_use_of_a_model_that_was_shown_within_a_week(db: Database) -> None:
    arm = update(db, experiment())
    assert arm is not None
    exposures = Exposures(db, "s")
    exposures.used("a", "download", NOW - 1)
    exposures.shown(arm, ["a", "b"], NOW)
    exposures.used("elsewhere", "download", NOW)
    assert exposures.evidence()[arm.key].outcomes == {}
    exposures.used("a", "download", NOW + 5)
    exposures.used("b", "download", NOW + 9)
    exposures.used("a", "chat", NOW + WINDOW)
    evidence = exposures.evidence()[arm.key]
    assert evidence.outcomes == {"download": NOW + 5, "chat": NOW + WINDOW}
    assert (evidence.converted("download"), evidence.converted("chat"), evidence.converted("load")) == (
        True,
        False,
        False,
    )
    assert (evidence.settled(NOW + WINDOW - 1), evidence.settled(NOW + WINDOW)) == (False, True)


def test_who_leaves_is_forgotten_and_who_joined_by_choice_is_not_counted(db: Database) -> None:
    a, b = experiment("a"), experiment("b")
    arm = update(db, a, b)
    assert arm is not None
    exposures = Exposures(db, "s")
    exposures.shown(arm, ["m"], NOW)
    exposures.used("m", "chat", NOW)
    Enrolments(db).leave(arm.key, NOW + 1)
    assert exposures.evidence() == {}
    other = update(db, a, b, now=NOW + 2)
    assert other is not None
    assert other.experiment == "b"
    Enrolments(db).join(a, "small-first", NOW + 3)
    chosen = update(db, a, b, now=NOW + 4)
    assert chosen == Arm("a", key_of(a), "small-first", "small-first", counted=False)
    exposures.forget()
    exposures.shown(chosen, ["m"], NOW + 5)
    exposures.used("m", "chat", NOW + 5)
    assert exposures.evidence() == {}
    assert update(db, a, b, enabled=False, now=NOW + 6) is None
    assert {each.status for each in Enrolments(db).all().values()} == {"disqualified"}


def test_what_ended_half_a_year_ago_is_forgotten(db: Database) -> None:
    arm = update(db, experiment())
    assert arm is not None
    Exposures(db, "s").shown(arm, ["m"], NOW)
    update(db, now=NOW + DAY)
    assert Enrolments(db).all()[arm.key].status == "ended"
    assert Exposures(db, "s").evidence()
    update(db, now=NOW + 200 * DAY)
    assert Enrolments(db).all() == {}
    assert Exposures(db, "s").evidence() == {}
