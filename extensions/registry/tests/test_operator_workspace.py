"""The operator's folder: read whole, and everything that is wrong with it said at once, with file, line and reason."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_registry.collections import Branch, Experiment
from jan_registry.publish.consistency import review
from jan_registry.publish.places import line_of
from jan_registry.publish.workspace import Workspace, read_workspace

SHA = "ab" * 32
REGISTRY = 'name = "Example"\n'
MODEL = f"""\
# Chosen by hand.
id = "owner/tiny"
name = "Tiny"
license = "apache-2.0"

[[files]]
path = "tiny-q4.gguf"
sha256 = "{SHA}"

  [[files.sources]]
  kind = "hf"
  repo = "owner/tiny-gguf"
  rev = "{"a" * 40}"
  path = "tiny-q4.gguf"

[[files]]
path = "tiny-q8.gguf"
sha256 = "{SHA}"

  [[files.sources]]
  kind = "https"
  url = "https://models.example/tiny-q8.gguf"

[[variants]]
id = "q8"
files = ["tiny-q8.gguf"]

[[variants]]
id = "q4"
files = [0]
"""
GOOD = {
    "registry.toml": REGISTRY,
    "models/tiny.toml": MODEL,
    "featured/default.toml": 'id = "default"\nmodels = ["owner/tiny"]\n',
    "flags/registry.phase.toml": 'id = "registry.phase"\nvalue = "fallback"\n[[rules]]\nvalue = "mixed"\npercent = 5\n',
    "revocations/old.toml": f'id = "old"\nsha256 = "{"cd" * 32}"\nreason = "Bad weights."\nat = 2026-01-31\n',
    "stats.toml": '["owner/tiny"]\ndownloads = 12\n',
}
EXPERIMENT = 'id = "order"\nbranches = [{id = "as-is"}, {id = "new", slot = "default"}]\n'


def folder(path: Path, **changed: str) -> Path:
    for name, text in (GOOD | {name.replace("__", "/") + ".toml": text for name, text in changed.items()}).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text, "utf-8")
    return path


def read(path: Path, published: dict[str, Experiment] | None = None) -> Workspace:
    held = read_workspace(path)
    review(held, published)
    return held


def problems(held: Workspace) -> list[str]:
    return [str(problem) for problem in held.problems]


def test_a_good_folder_becomes_canonical_records(tmp_path: Path) -> None:
    held = read(folder(tmp_path, experiments__order=EXPERIMENT))
    assert problems(held) == []
    assert [str(warning) for warning in held.warnings] == []
    assert held.config.name == "Example"
    collections = held.collections()
    assert [msgspec.json.decode(record)["id"] for record in collections["flags"]] == ["order", "registry.phase"]
    assert collections["stats"] == [b'{"downloads":12,"id":"owner/tiny"}']
    assert b'"at":"2026-01-31"' in collections["revocations"][0]
    [model] = held.values("models")
    assert [(variant.id, variant.files) for variant in model.variants] == [("q8", [1]), ("q4", [0])]


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = folder(
        tmp_path,
        models__broken="id = \n",
        models__other=MODEL.replace("[0]", '["tiny-q5.gguf"]').replace("owner/tiny", "other"),
        models__same='id = "owner/tiny"\nname = "Again"\n',
        models__typo='id = "typo"\nname = "Typo"\nlicence = "mit"\n',
        models__rated='id = "rated"\nname = "Rated"\nparams = 1.5\n',
        featured__more='id = "more"\nmodels = [\n  "owner/tiny",\n  "gone",\n]\n'
        '[[target]]\nfield = "city"\nop = "in"\nvalues = ["x"]\n',
        flags__registry_phase='id = "registry.phase"\nvalue = "sideways"\n',
        experiments__order=EXPERIMENT.replace('"default"', '"nowhere"'),
        stats='["owner/tiny"]\ndownloads = -1\n',
    )
    (path / "flags/registry.phase.toml").unlink()
    (path / "models/extra.yaml").write_text("id: extra\n")
    (path / "models/latin.toml").write_bytes(b'id = "\xe9"\n')
    assert sorted(problems(read(path))) == [
        "experiments/order.toml:2: branches[1].slot: there is no featured list nowhere",
        "featured/more.toml:2: models[1]: there is no model gone",
        "featured/more.toml:7: target[0].field: must be one of locale, region, os, arch, app_version, memory_total, "
        "memory_free, device_memory_free",
        "flags/registry_phase.toml:2: value: must be one of fallback, mixed, dynamic",
        "models/broken.toml:1: is not TOML: Invalid value",
        "models/extra.yaml: is not read: records are written in TOML",
        "models/latin.toml: is not UTF-8",
        "models/other.toml:30: variants[1].files: there is no file 'tiny-q5.gguf'",
        "models/rated.toml:3: params: must be a whole number, text or a date",
        "models/tiny.toml:2: id: models/same.toml has the same id, owner/tiny",
        "models/typo.toml:3: licence: there is no such field",
        "stats.toml:2: owner/tiny.downloads: must be 0 or more",
    ]


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"featured__default": 'id = "default"\nmodels = ["x"]\n'}, "models[0]: there is no model x"),
        (
            {"revocations__tiny": 'id = "t"\nmodel = "owner/tiny"\nreason = "Bad."\n'},
            "models[0]: owner/tiny is revoked",
        ),
        (
            {"models__old": 'id = "old"\nname = "Old"\n[deprecated]\nreplaced_by = "newer"\n'},
            "models/old.toml:4: deprecated.replaced_by: there is no other model newer",
        ),
        ({"flags__x": 'id = "x"\nvalue = 1\n[[rules]]\nvalue = true\n'}, "rules: a flag's values must all be of one"),
        ({"flags__x": 'id = "x"\nvalue = 1\nkind = "experiment"\n'}, "kind: must be flag in this folder"),
        (
            {"flags__x": 'id = "x"\nvalue = 1\n[[rules]]\nvalue = 2\ntarget = [{field="os", op="gte", values=["a"]}]'},
            "flags/x.toml:5: rules[0].target[0].op: gte is for numbers, and os is text",
        ),
        ({"registry": 'name = "Example"\nkey = "k"\n'}, "registry.toml: Object contains unknown field `key`"),
        ({"stats": "downloads = 1\n"}, "stats.toml:1: downloads.value: there is no such field"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_does_not_fit_together_is_refused(tmp_path: Path, changed: dict[str, str], wanted: str) -> None:
    said = problems(read(folder(tmp_path, **changed)))
    assert any(wanted in problem for problem in said), said


def test_numbers_of_very_many_models_fit_and_a_huge_record_is_refused(tmp_path: Path) -> None:
    numbers = "".join(f'["owner/{number}"]\ndownloads = {number + 1}\nlikes = 3\n' for number in range(30_000))
    held = read_workspace(folder(tmp_path, stats=numbers, models__huge="#" * (1 << 20) + "\n"))
    assert len(numbers) > 1 << 20
    assert problems(held) == ["models/huge.toml: cannot be read: it is larger than 1048576 bytes"]
    assert len(held.entries["stats"]) == 30_000


def test_a_published_experiment_stays_what_it_is(tmp_path: Path) -> None:
    branches = [Branch(id="as-is"), Branch(id="new", slot="default")]
    path = folder(tmp_path, experiments__order=EXPERIMENT)
    assert problems(read(path, {"order": Experiment(id="order", branches=branches, percent=5)})) == []
    [said] = problems(read(path, {"order": Experiment(id="order", branches=branches, salt="2")}))
    assert "salt: cannot change once it is published" in said
    [said] = problems(read(path, {"order": Experiment(id="order", branches=branches, state="ended")}))
    assert "state: is published as ended, and cannot be running again" in said
    (path / "experiments/order.toml").unlink()
    [said] = problems(read(path, {"order": Experiment(id="order", branches=branches)}))
    assert "publish it as ended before removing it" in said
    assert problems(read(path, {"order": Experiment(id="order", branches=branches, state="ended")})) == []


def test_what_is_worth_a_look_is_a_warning(tmp_path: Path) -> None:
    unpinned = MODEL.replace("a" * 40, "main").replace(f'sha256 = "{SHA}"\n', "", 1)
    held = read(folder(tmp_path, models__tiny=unpinned, featured__b='id = "b"\nmodels = []\n'))
    assert problems(held) == []
    assert sorted(str(warning) for warning in held.warnings) == [
        "featured/default.toml: priority: is that of b, which is for everybody too and is shown instead",
        "models/tiny.toml:12: files[0].sources[0].rev: is no commit: what it names may change",
        "models/tiny.toml:6: files[0]: has no sha256, so that nobody can tell whether the right file came",
    ]


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("id", 2),
        ("files[1]", 16),
        ("files[1].sha256", 18),
        ("files[0].sources[0].rev", 13),
        ("files[1].sources[0].url", 22),
        ("files[1].sources[0].xet", 20),
        ("variants[1].files[0]", 30),
        ("nothing", 0),
    ],
)
def test_a_field_is_found_in_its_file(field: str, line: int) -> None:
    assert line_of(MODEL, field) == line


@given(st.text(), st.text())
def test_looking_for_a_line_never_fails(text: str, field: str) -> None:
    assert 0 <= line_of(text, field) <= max(1, len(text.splitlines()))


@given(st.sampled_from(sorted(GOOD)), st.data())
def test_whatever_a_file_says_is_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    path = folder(tmp_path_factory.getbasetemp() / "same")
    content = bytearray(GOOD[name].encode())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (path / name).write_bytes(content)
    held = read(path)
    assert {problem.file.partition("/")[0] for problem in held.problems} <= {name.partition("/")[0] for name in GOOD}
