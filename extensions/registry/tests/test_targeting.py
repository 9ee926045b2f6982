"""For whom something is meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_registry.collections import Constraint
from jan_registry.targeting import FIELDS, OPERATORS, Facts, facts_of, matches

from jan_core.types import ModelContext

GIB = 1 << 30


def holds(field: str, op: str, *values: str | int, **facts: str | int) -> bool:
    return matches([Constraint(field, op, list(values))], facts)


@pytest.mark.parametrize(
    ("value", "locale", "expected"),
    [
        ("zh", "zh", True),
        ("zh", "zh-CN", True),
        ("zh", "zh-Hant-TW", True),
        ("zh-CN", "zh-Hans-CN", True),
        ("zh-CN", "zh", False),
        ("zh-CN", "zh-TW", False),
        ("ZH-cn", "zh-CN", True),
        ("z", "zh", False),
        ("zh", "z", False),
        ("en", "eng", False),
        ("*", "pt-BR", True),
        ("*-BR", "pt-BR", True),
        ("*-BR", "pt-PT", False),
        ("de-de", "de-Latn-DE-1996", True),
        ("de-*-DE", "de-Latn-DE", True),
        ("de-de", "de-x-DE", False),
        ("de-de", "de-Deva", False),
        ("pt_BR", "pt-BR", False),
        ("", "pt-BR", False),
    ],
)
def test_locales_match_as_rfc_4647_filters_them(value: str, locale: str, expected: bool) -> None:
    assert holds("locale", "in", value, locale=locale) is expected


@pytest.mark.parametrize(
    ("field", "op", "values", "fact", "expected"),
    [
        ("region", "in", ["CN", "SG"], "sg", True),
        ("region", "not_in", ["CN"], "BR", True),
        ("region", "not_in", ["CN"], "CN", False),
        ("os", "in", ["linux"], "windows", False),
        ("arch", "in", ["ARM64"], "arm64", True),
        ("memory_total", "gte", [8 * GIB], 8 * GIB, True),
        ("memory_total", "gte", [8 * GIB], 8 * GIB - 1, False),
        ("memory_total", "lte", [8 * GIB], 8 * GIB, True),
        ("memory_total", "in", [1, 2], 2, True),
        ("app_version", "semver_gte", ["0.3"], "0.3.0", True),
        ("app_version", "semver_gte", ["0.3"], "0.10.0", True),
        ("app_version", "semver_gte", ["0.3.0"], "0.3.0-beta.1", False),
        ("app_version", "semver_gte", ["0.3.0"], "0.3.0+debian.1", True),
        ("app_version", "semver_lt", ["0.3.0+x"], "0.3.0", False),
        ("app_version", "semver_lt", ["1.0.0"], "1.0.0-rc.1", True),
        ("app_version", "semver_lt", ["1.0.0"], "0.9", True),
    ],
)
def test_an_operator_compares_what_is_meant(
    field: str, op: str, values: list[str | int], fact: str | int, expected: bool
) -> None:
    assert holds(field, op, *values, **{field: fact}) is expected


@pytest.mark.parametrize(
    ("field", "op", "values", "facts"),
    [
        ("shoe_size", "in", [42], {"shoe_size": 42}),  # a field nobody knows
        ("os", "like", ["linux"], {"os": "linux"}),  # an operator nobody knows
        ("os", "in", ["linux"], {}),  # a fact nobody knows
        ("region", "not_in", ["CN"], {}),
        ("os", "in", ["linux", 3], {"os": "linux"}),  # a value that is of another kind
        ("region", "not_in", [3], {"region": "CN"}),
        ("memory_total", "gte", ["8"], {"memory_total": 9}),
        ("memory_total", "gte", [True], {"memory_total": 9}),
        ("memory_total", "gte", [1, 2], {"memory_total": 9}),  # which of the two?
        ("memory_total", "semver_gte", [1], {"memory_total": "many"}),
        ("os", "gte", ["a"], {"os": "b"}),
        ("app_version", "semver_gte", ["latest"], {"app_version": "1.0"}),
        ("app_version", "semver_lt", ["2.0"], {"app_version": "git-abc"}),
        ("app_version", "semver_lt", ["9" * 5000], {"app_version": "1.0"}),
        ("locale", "not_in", ["not a locale!"], {"locale": "de"}),
        ("locale", "not_in", ["de"], {"locale": "not a locale!"}),
        ("os", "in", [], {"os": "linux"}),
        ("os", "not_in", [], {"os": "linux"}),
    ],
)
def test_what_is_not_understood_stays_hidden(field: str, op: str, values: list[str | int], facts: Facts) -> None:
    assert not matches([Constraint(field, op, values)], facts)


def test_all_constraints_must_hold_and_none_is_for_everybody() -> None:
    both = [Constraint("os", "in", ["linux"]), Constraint("region", "in", ["CN"])]
    assert matches(both, {"os": "linux", "region": "CN"})
    assert not matches(both, {"os": "linux", "region": "BR"})
    assert matches([], {})


def test_a_region_that_was_chosen_comes_before_the_callers_and_that_before_the_locales() -> None:
    assert facts_of(ModelContext(locale="pt-BR"))["region"] == "BR"
    assert facts_of(ModelContext(locale="pt-BR", region="PT"))["region"] == "PT"
    assert facts_of(ModelContext(locale="pt-BR", region="PT"), "AO")["region"] == "AO"


@pytest.mark.parametrize(
    ("locale", "tag", "region"),
    [
        ("pt_BR.UTF-8", "pt-BR", "BR"),
        ("ca_ES@valencia", "ca-ES", "ES"),
        ("zh-Hant-TW", "zh-Hant-TW", "TW"),
        ("es-419", "es-419", None),
        ("de", "de", None),
        ("en-u-ca-gb", "en-u-ca-gb", None),
        ("C.UTF-8", None, None),
        ("POSIX", None, None),
        ("", None, None),
        ("<script>", None, None),
    ],
)
def test_a_locale_is_read_as_systems_and_browsers_write_it(locale: str, tag: str | None, region: str | None) -> None:
    facts = facts_of(ModelContext(locale=locale))
    assert (facts.get("locale"), facts.get("region")) == (tag, region)


def test_what_is_not_known_is_no_fact() -> None:
    assert facts_of(ModelContext()) == {}
    assert facts_of(ModelContext(os="linux", memory_total=GIB), app_version="1.2") == {
        "os": "linux",
        "memory_total": GIB,
        "app_version": "1.2",
    }


anything = st.text(max_size=40) | st.integers() | st.booleans() | st.from_regex(r"[0-9a-zA-Z.*+_-]{0,120}")
constraints = st.builds(
    Constraint,
    st.sampled_from(sorted(FIELDS)) | st.text(max_size=10),
    st.sampled_from(sorted(OPERATORS)) | st.text(max_size=10),
    st.lists(anything, max_size=4),
)


@given(st.lists(constraints, max_size=4), st.dictionaries(st.sampled_from(sorted(FIELDS)), anything))
def test_no_target_and_no_facts_raise_anything(target: list[Constraint], facts: Facts) -> None:
    assert matches(target, facts) in (True, False)


@given(constraints, st.dictionaries(st.sampled_from(sorted(FIELDS)), anything))
def test_in_and_not_in_are_never_both_true_and_a_missing_fact_makes_neither(
    constraint: Constraint, facts: Facts
) -> None:
    both = [Constraint(constraint.field, op, constraint.values) for op in ("in", "not_in")]
    assert not matches(both, facts)
    facts.pop(constraint.field, None)
    assert not any(matches([one], facts) for one in both)


@given(st.text(max_size=60), st.text(max_size=3), st.text(max_size=20))
def test_whatever_a_caller_says_becomes_facts(locale: str, region: str, version: str) -> None:
    facts = facts_of(ModelContext(locale=locale, region=region, app_version=version))
    assert set(facts) <= set(FIELDS)
    matches([Constraint("locale", "in", ["*"]), Constraint("app_version", "semver_gte", ["0"])], facts)
