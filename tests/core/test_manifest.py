"""What an extension says of itself without being imported, and which host versions it accepts."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jan_core.loader import PackageSource
from jan_core.manifest import Manifest, ManifestError
from jan_core.versions import parse_version, satisfies

GOOD = (
    '[project]\nversion = "2.3"\n[tool.jan.extension]\nid = "hello"\nrequires-core = ">=1.0,<2"\nmethods = ["hello."]\n'
)


def package(folder: Path, text: str | None, where: str = "hello_pkg/jan-extension.toml") -> EntryPoint:
    (folder / "hello_pkg").mkdir(exist_ok=True)
    (folder / "hello_pkg" / "__init__.py").write_text("raise SystemExit('imported!')")
    if text is not None:
        (folder / where).write_text(text, encoding="utf-8")
    return EntryPoint("hello", "hello_pkg.plugin:Hello", "jan.extensions")


def test_the_host_s_own_name_is_refused(tmp_path: Path) -> None:
    entry = package(tmp_path, GOOD.replace('id = "hello"', 'id = "core"'))
    with pytest.raises(ManifestError, match="'core' is the host itself"):
        read(EntryPoint("core", entry.value, entry.group))


def read(entry: EntryPoint) -> tuple[Manifest, str]:
    return PackageSource.of(entry).manifest("1.0")


@pytest.fixture(autouse=True)
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("where", ["hello_pkg/jan-extension.toml", "pyproject.toml"])
def test_the_manifest_is_read_from_wheel_or_project_without_importing(tmp_path: Path, where: str) -> None:
    manifest, version = read(package(tmp_path, GOOD, where))
    assert (manifest.id, manifest.methods, manifest.activation, version) == ("hello", ["hello."], "on-method", "2.3")
    assert "hello_pkg" not in sys.modules


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "carries no jan-extension.toml"),
        ("not [ toml", "jan-extension.toml"),
        ("[tool.other]\n", "no table"),
        (f'{GOOD}colour = "red"\n', "`colour`.*its keys are id, requires-core, activation"),
        (f'{GOOD}activation = "on-demand"\n', "activation is one of 'startup', 'on-method'"),
        (GOOD.replace('["hello."]', '["hello"]'), "ends with a dot, as in 'my_tool.'"),
        (GOOD.replace('id = "hello"', 'id = "other"'), "must be the entry point's name"),
        (GOOD.replace('id = "hello"', 'id = "He llo"'), "must be the entry point's name"),
        (GOOD.replace(">=1.0,<2", ">=2"), "requires host API >=2, this host has 1.0"),
        (GOOD.replace(">=1.0,<2", "~=1.0"), "not a version range"),
        (GOOD + 'activation = "sometimes"\n', "activation"),
        (GOOD + "colour = 1\n", "colour"),
        (GOOD.replace('["hello."]', '[""]'), "methods"),
        (GOOD.replace('["hello."]', '["hello"]'), "methods"),
        ("tool = 1\n", "tool"),
        ('project = 1\n[tool]\njan = "x"\n', "project"),
    ],
)
def test_a_manifest_that_does_not_fit_says_where_and_why(tmp_path: Path, text: str | None, says: str) -> None:
    with pytest.raises(ManifestError, match=says):
        read(package(tmp_path, text))


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(ManifestError, match="no_such_package"):
        read(EntryPoint("hello", "no_such_package:X", "jan.extensions"))


numbers = st.lists(st.integers(min_value=0, max_value=10**6), min_size=1, max_size=4)


@given(numbers, numbers)
def test_versions_compare_as_numbers(left: list[int], right: list[int]) -> None:
    a, b = ".".join(map(str, left)), ".".join(map(str, right))
    width = max(len(left), len(right))
    pad = [v + [0] * (width - len(v)) for v in (left, right)]
    assert satisfies(a, f">={b}") == (pad[0] >= pad[1])
    assert satisfies(a, f"=={b}") == (pad[0] == pad[1])
    assert satisfies(a, f">={b},<={b}") == (pad[0] == pad[1])
    assert satisfies(a, "")


@pytest.mark.parametrize("text", ["", "1.x", "v1", "1..2", "1.0rc1"])
def test_what_is_no_dotted_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="version"):
        parse_version(text)
