"""What is shown to whom, and in which order: hidden where it is not meant or not understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_registry.collections import Constraint, Deprecation, Record, Requires, Revocation, canonical
from jan_registry.convert import to_model
from jan_registry.local import open_local
from jan_registry.ranking import MOST_PLACES, filtered, in_range, memory_needed, ranked
from jan_registry.revocations import Revocations
from jan_registry.targeting import Facts
from jan_registry.usage import DAY, HALF_LIFE, Usage, score
from msgspec import to_builtins

from jan_core.types import DownloadFile, ModelContext, ModelRecord, ModelVariant

GIB = 2**30
NOBODY = Revocations([])
HERE: Facts = {"locale": "zh-CN", "region": "CN", "app_version": "0.4.0", "memory_total": 16 * GIB}


def record(id: str, **fields: Any) -> ModelRecord:
    """As the list gives it to everybody."""
    return to_model(Record(id=id, name=id, **fields), hub_url="https://h", source="registry")


def plain(*ids: str) -> list[ModelRecord]:
    return [ModelRecord(id, id.upper()) for id in ids]


def ids(models: list[ModelRecord]) -> list[str]:
    return [model.id for model in models]


# -- the filter --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, True),
        ({"target": [Constraint("locale", "in", ["zh"])]}, True),
        ({"target": [Constraint("locale", "in", ["de"])]}, False),
        ({"target": [Constraint("moon_phase", "in", ["full"])]}, False),
        ({"target": [Constraint("region", "resembles", ["CN"])]}, False),
        ({"target": [Constraint("memory_total", "gte", [8 * GIB])]}, True),
        ({"requires": Requires(app=">=0.3")}, True),
        ({"requires": Requires(app=">=0.3, <0.4")}, False),
        ({"requires": Requires(engine={"llamacpp": ">=b5000"})}, True),
        ({"requires": Requires(engine={"llamacpp": ">=b6000"})}, False),
        ({"requires": Requires(engine={"mlx": ">=1"})}, False),
    ],
)
def test_a_model_is_shown_to_whom_it_is_meant_for_and_hidden_where_that_is_unknown(
    fields: dict[str, Any], shown: bool
) -> None:
    assert bool(filtered([record("m", **fields)], HERE, NOBODY, {"llamacpp": "b5432"})) is shown


def test_who_knows_nothing_of_itself_is_shown_what_asks_for_nothing() -> None:
    models = [
        record("any"),
        record("app", requires=Requires(app=">=0")),
        record("engine", requires=Requires(engine={"llamacpp": ">=1"})),
    ]
    assert ids(filtered(models, {}, NOBODY)) == ["any"]


@pytest.mark.parametrize(
    "extra",
    [
        {"target": "everybody"},
        {"target": [{"field": "os"}]},
        {"target": None},
        {"requires": {"moon": "full"}},
        {"requires": {"app": 3}},
        {"requires": {"engine": [">=1"]}},
        {"requires": {"app": "about 3"}},
    ],
)
def test_conditions_of_a_form_that_nobody_knows_hide_the_model(extra: dict[str, Any]) -> None:
    assert filtered([ModelRecord("m", "M", extra=extra)], HERE, NOBODY) == []


def test_what_is_revoked_is_hidden_and_what_is_deprecated_comes_last() -> None:
    old = record("old", deprecated=Deprecation(replaced_by="new", reason="x"))
    revocations = Revocations([canonical(to_builtins(Revocation(id="r", reason="x", model="bad")))])
    assert ids(filtered([old, *plain("bad", "a", "b")], HERE, revocations)) == ["a", "b", "old"]
    assert ids(ranked([old, *plain("a", "b")], ModelContext(), {"old": 1e9})) == ["a", "b", "old"]


@pytest.mark.parametrize(
    ("version", "span", "fits"),
    [
        ("0.10.0", ">=0.9", True), ("0.9", ">=0.10", False), ("1.0", "==1.0.0", True), ("1.0", "!=1.0", False),
        ("b5001", ">b5000", True), ("v1.2", "<=1.2", True), ("", ">=0", False), ("latest", ">=0", False),
        ("1.0rc1", "<1.0", False), ("1.0", "", True), ("1.0", "newest", False),
    ],
)  # fmt: skip
def test_versions_are_compared_as_versions(version: str, span: str, fits: bool) -> None:
    assert in_range(version, span) is fits


# -- the order ---------------------------------------------------------------------------------------------------------


def test_a_model_that_is_used_passes_its_neighbours_and_no_more() -> None:
    models = plain("a", "b", "c", "d", "e", "f")
    assert ids(ranked(models, ModelContext(), {})) == ["a", "b", "c", "d", "e", "f"]
    assert ids(ranked(models, ModelContext(), {"b": 20.0})) == ["b", "a", "c", "d", "e", "f"]
    assert ids(ranked(models, ModelContext(), {"f": 1e9})) == ["a", "b", "c", "f", "d", "e"]
    assert ids(ranked(models, ModelContext(), {"b": 0.5})) == ["a", "b", "c", "d", "e", "f"]


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=30))
def test_ranking_hides_nothing_moves_nothing_far_and_is_always_the_same(scores: list[float]) -> None:
    models = plain(*(f"m{number:02}" for number in range(len(scores))))
    used = {model.id: value for model, value in zip(models, scores, strict=True)}
    order = ranked(models, ModelContext(), used)
    assert sorted(ids(order)) == ids(models)
    assert order == ranked(models, ModelContext(), dict(reversed(used.items())))
    for before, model in enumerate(models):
        assert before - order.index(model) <= MOST_PLACES


def test_what_does_not_fit_comes_last_where_memory_and_sizes_are_known() -> None:
    large = ModelRecord(
        "large", "L", variants=[ModelVariant("q4", memory=20 * GIB), ModelVariant("q8", memory=40 * GIB)]
    )
    small = ModelRecord("small", "S", files=[DownloadFile("s", size=2 * GIB)])
    unknown = ModelRecord("unknown", "U", files=[DownloadFile("u")])
    models = [large, unknown, small]
    assert [memory_needed(model) for model in models] == [20 * GIB, 0, 2 * GIB]
    assert ids(ranked(models, ModelContext(memory_total=16 * GIB), {"large": 1e9})) == ["unknown", "small", "large"]
    assert ids(ranked(models, ModelContext(memory_free=8 * GIB), {})) == ["unknown", "small", "large"]
    assert ids(ranked(models, ModelContext(memory_total=16 * GIB, device_memory_free=24 * GIB), {})) == ids(models)
    assert ids(ranked(models, ModelContext(), {})) == ids(models)


# -- usage -------------------------------------------------------------------------------------------------------------


def test_usage_counts_by_the_day_and_fades(tmp_path: Path) -> None:
    db = open_local(tmp_path)
    usage, now = Usage(db), 20_000.0 * DAY
    assert usage.scores(now) == {}
    assert not db.exists, "reading must not make the file"
    for _ in range(4):
        usage.add("m", "chat", now)
    usage.add("n", "download", now - HALF_LIFE * DAY)
    assert usage.scores(now) == {"m": 4.0, "n": 0.5}
    assert usage.scores(now + HALF_LIFE * DAY) == {"m": 2.0, "n": 0.25}
    assert Usage(db).scores(now) == {"m": 4.0, "n": 0.5}, "it is on the disk"
    usage.add("m", "load", now + 200 * DAY)
    assert usage.scores(now + 200 * DAY) == {"m": 0.5}, "what is half a year old is forgotten"
    db.close()


def test_a_clock_that_was_put_back_makes_nothing_of_more_worth() -> None:
    assert score("chat", 1, -1000) == score("chat", 1, 0) == 1.0
    assert score("something new", 5, 0) == 0.0
