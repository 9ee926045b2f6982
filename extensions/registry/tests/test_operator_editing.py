"""Edits of TOML: the meaning asked for, and every comment that is not about what moved."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_registry.collections import Constraint
from jan_registry.collections.check import check
from jan_registry.flags.rules import evaluate
from jan_registry.publish.changes import Changes
from jan_registry.publish.conditions import condition, written
from jan_registry.publish.editing import feature, set_flag
from jan_registry.publish.gguf import read_facts
from jan_registry.targeting import FIELDS, matches

from jan_core import InvalidParams

IDS = ["a", "b", "c", "d", "e"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("registry")
    (path / "registry.toml").write_text('name = "Example"\n')
    for name in ("models", "featured", "flags"):
        (path / name).mkdir()
    for id in IDS:
        (path / f"models/{id}.toml").write_text(f'id = "{id}"\nname = "{id}"\n')
    return path


@given(
    st.lists(st.sampled_from(IDS), unique=True),
    st.lists(st.sampled_from(IDS), unique=True, min_size=1),
    st.none() | st.integers(1, 7),
    st.sampled_from(["put", "remove", "only"]),
)
def test_a_list_becomes_what_was_asked_for_and_keeps_its_comments(
    folder: Path, before: list[str], models: list[str], at: int | None, how: str
) -> None:
    lines = [f'    "{id}",  # why {id}\n' for id in before]
    text = f'# Top.\nid = "s"  # the id\nmodels = [\n    # first of all\n{"".join(lines)}]\n\n# Bottom.\n'
    (folder / "featured/s.toml").write_text(text)
    changes = Changes(folder)
    shown = feature(changes, "s", models, at=at, remove=how == "remove", only=how == "only")
    changes.save()
    after = (folder / "featured/s.toml").read_text()
    assert tomllib.loads(after) == {"id": "s", "models": shown}
    rest = [id for id in before if id not in models]
    place = len(rest) if at is None else at - 1
    assert shown == {"put": [*rest[:place], *models, *rest[place:]], "remove": rest, "only": models}[how]
    for comment in ("# Top.", "# the id", "# first of all", "# Bottom."):
        assert comment in after
    for id in rest if how != "only" else []:
        assert f"# why {id}" in after, after


VALUES = st.sampled_from(["fallback", "mixed", "dynamic"])
TARGETS = st.sampled_from([[], ["os=linux"], ["os=linux", "region!=CN"]])


@given(st.lists(st.tuples(VALUES, st.none() | st.integers(0, 100), TARGETS), min_size=1, max_size=6))
def test_the_last_word_about_a_flag_is_what_a_machine_evaluates(
    folder: Path, edits: list[tuple[str, int | None, list[str]]]
) -> None:
    (folder / "flags/registry.phase.toml").write_text('# Ours.\nid = "registry.phase"\nvalue = "fallback"\n')
    for value, percent, where in edits:
        changes = Changes(folder)
        set_flag(changes, "registry.phase", value, percent=percent, target=[condition(text) for text in where])
        changes.save()
    [flag] = Changes(folder).held.values("flags")
    assert (folder / "flags/registry.phase.toml").read_text().startswith("# Ours.\n")
    seen = [(rule.value, str(rule.target)) for rule in flag.rules]
    assert len(set(seen)) == len(seen), "one rule for a value and its conditions"
    value, percent, where = edits[-1]
    is_new = all((it[0], it[2]) != (value, where) for it in edits[:-1])
    if percent == 100 and is_new:
        assert evaluate(flag, {"os": "linux", "region": "BR"}, "somebody").value == value
    changes = Changes(folder)
    set_flag(changes, "registry.phase", "dynamic", only=True)
    changes.save()
    assert tomllib.loads((folder / "flags/registry.phase.toml").read_text()) == {
        "id": "registry.phase",
        "value": "dynamic",
    }


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        ("locale=pt,pt-BR", {"locale": "pt-BR"}, {"locale": "de"}),
        ("region != CN", {"region": "BR"}, {"region": "CN"}),
        ("memory_total>=8000000000", {"memory_total": 8_000_000_000}, {"memory_total": 7_999_999_999}),
        ("memory_free<=5", {"memory_free": 5}, {"memory_free": 6}),
        ("app_version>=0.3", {"app_version": "0.3.1"}, {"app_version": "0.2.9"}),
        ("app_version<0.4", {"app_version": "0.3.1"}, {"app_version": "0.4.0"}),
    ],
)
def test_a_condition_means_what_it_looks_like(
    text: str, matching: dict[str, str | int], other: dict[str, str | int]
) -> None:
    constraint = condition(text)
    assert matches([constraint], matching)
    assert not matches([constraint], other)
    assert condition(written(constraint)) == constraint


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("city=Paris", "must be one of locale"),
        ("locale", "must be a field"),
        ("locale=", "must be a field"),
        ("locale>=pt", ">= does not suit locale"),
        ("memory_total>=8GB", "is a whole number"),
        ("app_version<=0.3", "<= does not suit app_version"),
    ],
)
def test_a_condition_that_cannot_be_read_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidParams, match=reason):
        condition(text)


@given(st.sampled_from(sorted(FIELDS)), st.sampled_from(["=", "!=", ">=", "<=", "<"]), st.text(max_size=20))
def test_any_line_is_a_condition_that_is_written_the_same_or_refused(field: str, sign: str, values: str) -> None:
    try:
        constraint = condition(f"{field}{sign}{values}")
    except InvalidParams:
        return
    assert isinstance(constraint, Constraint)
    assert condition(written(constraint)) == constraint


@given(st.binary(max_size=300), st.booleans())
def test_any_file_is_read_as_gguf_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, begun: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.gguf"
    path.write_bytes((b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x02" + b"\0" * 7 if begun else b"") + content)
    with suppress(ValueError):
        assert read_facts(path).name.isprintable()


def test_what_was_checked_is_what_is_written(folder: Path) -> None:
    (folder / "featured/s.toml").unlink(missing_ok=True)
    (folder / "flags/registry.phase.toml").unlink(missing_ok=True)
    records = Changes(folder).held.collections()
    assert [check("models", record).id for record in records["models"]] == IDS
