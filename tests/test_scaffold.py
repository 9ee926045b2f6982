"""What `jan ext new` writes: a project that passes its own tests, builds, and serves, whatever it is called."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_sidecar.scaffold import NameRefused, check_name, class_name, module_name, new_project, prefix

from jan_core.host import Host
from jan_core.loader import PackageSource, folder_source

BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A new project in a folder whose name has a space and an umlaut."""
    folder = tmp_path / "my größtes projekt"
    new_project("my-tool", folder)
    return folder


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """This interpreter in a process of its own, without a network."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def test_its_own_tests_pass(project: Path) -> None:
    done = python(project, "-m", "pytest", "-q", "-W", "error")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_it_is_formatted_and_typed(project: Path) -> None:
    ruff, mypy = pytest.importorskip("ruff"), pytest.importorskip("mypy")
    checks = [
        (ruff, "check", "--isolated", "--line-length", "120", "--select", "E,F,UP,B,RUF", "src", "tests"),
        (ruff, "format", "--isolated", "--line-length", "120", "--check", "src", "tests"),
        (mypy, "--strict", "src"),
    ]
    for module, *arguments in checks:
        done = python(project, "-m", module.__name__, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr


async def test_its_wheel_holds_the_manifest_and_serves(project: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / python(project, "-c", BUILD, str(tmp_path)).stdout.split()[-1]) as wheel:
        wheel.extractall(site)
    assert (site / "jan_my_tool" / "jan-extension.toml").read_bytes() == (project / "pyproject.toml").read_bytes()
    (entries,) = site.glob("*.dist-info/entry_points.txt")
    assert entries.read_text("utf-8").split() == [
        "[jan.extensions]",
        "my-tool",
        "=",
        "jan_my_tool.plugin:MyToolExtension",
    ]
    root = site / "jan_my_tool"
    source = PackageSource(
        "my-tool", "jan_my_tool.plugin:MyToolExtension", root=root, file=root / "jan-extension.toml", live=True
    )
    async with Host(tmp_path / "data", sources=[source]) as host:
        greeting = await host.client().call("my_tool.greet", {"name": "Ada"})
    assert greeting == {"text": "Hello, Ada!", "count": 1}


async def test_it_serves_from_its_folder_and_keeps_its_state_across_an_edit(project: Path, tmp_path: Path) -> None:
    async with Host(tmp_path / "data", sources=[folder_source(project)]) as host:
        call = host.client().call
        assert (await call("my_tool.greet"))["text"] == "Hello, world!"
        plugin = project / "src" / "jan_my_tool" / "plugin.py"
        plugin.write_text(plugin.read_text("utf-8").replace("!", "?"), "utf-8")
        assert (await call("extensions.reload", {"id": "my-tool"}))["generation"] == 2
        assert await call("my_tool.greet") == {"text": "Hello, world?", "count": 2}


def test_the_template_s_name_is_nowhere_left(project: Path) -> None:
    for path in project.rglob("*"):
        text = path.name + (path.read_text("utf-8") if path.is_file() else "")
        assert "brand" not in text.lower(), path
    document = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    assert document["project"]["name"] == "jan-my-tool"
    assert document["tool"]["jan"]["extension"]["id"] == "my-tool"


REFUSED = {
    "": "cannot be an extension's name",
    "naïve": "cannot be an extension's name",
    "My-Tool": "cannot be an extension's name",
    "2nd": "cannot be an extension's name",
    "my--tool": "cannot be an extension's name",
    "my-tool-": "cannot be an extension's name",
    "my tool": "cannot be an extension's name",
    "../tool": "cannot be an extension's name",
    "x" * 41: "the name has 41 characters",
    "jan-tool": "leave out the jan",
    "class": "a word of Python",
    "match": "a word of Python",
    "settings": "a name of the host's own",
    "core": "a name of the host's own",
    "con": "a device on Windows",
    "com1": "a device on Windows",
    "llamacpp": "taken by the extension llamacpp",
    "models": "taken by the extension llamacpp",
}


@pytest.mark.parametrize(("name", "reason"), REFUSED.items(), ids=lambda value: value[:12] or "empty")
def test_a_name_that_cannot_be_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(NameRefused, match=reason):
        check_name(name, {"llamacpp": "llamacpp", "models.": "llamacpp"})


@given(st.from_regex(r"[a-z][a-z0-9]{0,8}([-_][a-z0-9]{1,8}){0,3}", fullmatch=True) | st.text(max_size=12))
def test_every_accepted_name_makes_names_that_the_host_accepts(name: str) -> None:
    import re

    try:
        check_name(name, {})
    except NameRefused:
        return
    assert module_name(name).isidentifier()
    assert class_name(name).isidentifier()
    assert re.fullmatch(r"[a-z][a-z0-9_]*\.", prefix(name))


@pytest.mark.parametrize("name", ["brand-new", "x-brand_new", "brand", "a", "new-brand-new_brand"])
async def test_a_name_that_looks_like_the_template_s_works_as_well(name: str, tmp_path: Path) -> None:
    new_project(name, tmp_path / "p")
    async with Host(tmp_path / "data", sources=[folder_source(tmp_path / "p")]) as host:
        assert (await host.client().call(f"{prefix(name)}greet"))["count"] == 1


def test_a_folder_with_something_in_it_is_left_alone_and_an_empty_one_is_used(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("mine", "file"):
        with pytest.raises(FileExistsError, match="not an empty folder"):
            new_project("my-tool", tmp_path / name)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    assert Path("README.md") in new_project("my-tool", tmp_path / "empty")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file", "mine"]


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = Path.write_text, 0

    def write(self: Path, *arguments: Any, **options: Any) -> int:
        nonlocal written
        if (written := written + 1) > 3:
            raise OSError(28, "No space left on device")
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", write)
    with pytest.raises(OSError, match="No space left"):
        new_project("my-tool", tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_s_wheel_carries_the_whole_template(tmp_path: Path) -> None:
    sidecar = Path(__file__).parents[1] / "sidecar"
    expected = new_project("brand-new", tmp_path / "p")
    with zipfile.ZipFile(tmp_path / python(sidecar, "-c", BUILD, str(tmp_path)).stdout.split()[-1]) as wheel:
        inside = {name.partition("/scaffold/template/")[2] for name in wheel.namelist()} - {""}
    assert inside == {path.as_posix() for path in expected}


def test_the_template_itself_passes_its_tests() -> None:
    template = Path(sys.modules[new_project.__module__].__file__ or "").parent / "template"
    done = python(template, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
