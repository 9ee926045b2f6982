"""Each package builds a wheel of its own that the host can find and read."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXTENSIONS = sorted(path.parent for path in ROOT.glob("extensions/*/pyproject.toml"))
PACKAGES = [ROOT, ROOT / "sidecar", *EXTENSIONS]
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


def build(package: Path, folder: Path) -> zipfile.ZipFile:
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)], cwd=package, capture_output=True, text=True, check=True
    )
    return zipfile.ZipFile(folder / done.stdout.split()[-1])


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.name)
def test_a_wheel_holds_its_package_types_and_nothing_else(package: Path, tmp_path: Path) -> None:
    with build(package, tmp_path) as wheel:
        tops = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}
        assert len(tops) == 1
        assert f"{tops.pop()}/py.typed" in wheel.namelist()
        own = [name.partition("/scaffold/template/")[0] for name in wheel.namelist()]
        assert not [name for name in own if "/tests/" in name or name.endswith(".pyc")]


@pytest.mark.parametrize("package", EXTENSIONS, ids=lambda p: p.name)
def test_an_extension_s_wheel_carries_its_manifest_entry_point_and_readme(package: Path, tmp_path: Path) -> None:
    project = tomllib.loads((package / "pyproject.toml").read_text("utf-8"))
    module = f"jan_{package.name}"
    with build(package, tmp_path) as wheel:
        assert wheel.read(f"{module}/jan-extension.toml") == (package / "pyproject.toml").read_bytes()
        (entries,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
        assert f"[jan.extensions]\n{package.name} = {module}.plugin:" in wheel.read(entries).decode()
    assert project["tool"]["jan"]["extension"]["id"] == package.name
    assert len((package / "README.md").read_text("utf-8")) > 500
    assert list((package / "tests").glob("test_*.py"))


def test_the_embedded_model_is_in_the_wheel_and_small(tmp_path: Path) -> None:
    with build(ROOT / "extensions" / "llamacpp", tmp_path) as wheel:
        sizes = {info.filename: info.file_size for info in wheel.infolist() if info.filename.endswith(".gguf")}
        assert "jan_llamacpp/models/jan-tiny.md" in wheel.namelist()
    assert list(sizes) == ["jan_llamacpp/models/jan-tiny.gguf"]
    assert sum(sizes.values()) <= 8_000_000


def test_the_shipped_list_is_in_the_wheel(tmp_path: Path) -> None:
    registry = ROOT / "extensions" / "registry"
    packaged = registry / "src" / "jan_registry" / "packaged"
    with build(registry, tmp_path) as wheel:
        for path in packaged.rglob("*.*"):
            name = f"jan_registry/{path.relative_to(packaged.parent).as_posix()}"
            assert wheel.read(name) == path.read_bytes()
        assert "jan_registry/packaged/metadata/timestamp.json" in wheel.namelist()


def test_the_core_depends_on_four_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    names = {d.partition(">")[0] for d in project["project"]["dependencies"]}
    assert names == {"anyio", "msgspec", "pluggy", "watchfiles"}


def test_nothing_committed_names_a_package_registry() -> None:
    # Put together here, so that this file does not name them either.
    hosts = [".".join(parts) for parts in (("py" + "pi", "org"), ("python" + "hosted", "org"), ("npm" + "js", "org"))]
    done = subprocess.run(
        ["git", "grep", "-lIF", *(f"-e{host}" for host in hosts)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == ""
