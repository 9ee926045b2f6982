"""Real packages for the tests of installing: projects written here, wheels built by hatchling, a folder as index.

No network: `uv` has a cache of its own and is told to stay offline.
"""

from __future__ import annotations

import hashlib
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

CODE = '''
    from jan_core import Context, Empty, hookimpl, method, methods_of

    class Extension:
        @hookimpl
        def jan_activate(self, ctx: Context) -> None:
            (ctx.data_dir / "was here").touch()

        @hookimpl
        def jan_methods(self):
            return methods_of(self)

        @method("{id}.version")
        async def version(self, params: Empty) -> str:
            """Which version answers."""
            {uses}
            return "{version}"
'''

BACKEND = '''
    """A build backend without requirements: packs src/ as it is."""
    import base64, hashlib, pathlib, tomllib, zipfile

    def build_wheel(folder, config_settings=None, metadata_directory=None):
        project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
        name, version = project["name"].replace("-", "_"), project["version"]
        info = f"{name}-{version}.dist-info"
        files = {f.relative_to("src").as_posix(): f.read_bytes() for f in pathlib.Path("src").rglob("*.py")}
        files[f"{name}/jan-extension.toml"] = pathlib.Path("pyproject.toml").read_bytes()
        files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n".encode()
        files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        groups = project["entry-points"].items()
        text = "".join(f"[{g}]\\n" + "".join(f"{k} = {v}\\n" for k, v in e.items()) for g, e in groups)
        files[f"{info}/entry_points.txt"] = text.encode()
        def digest(data):
            return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record = "".join(f"{n},sha256={digest(d)},{len(d)}\\n" for n, d in files.items()) + f"{info}/RECORD,,\\n"
        with zipfile.ZipFile(pathlib.Path(folder) / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            for n, d in {**files, f"{info}/RECORD": record.encode()}.items():
                wheel.writestr(zipfile.ZipInfo(n), d)
        return f"{name}-{version}-py3-none-any.whl"
'''


class Wheelhouse:
    """Makes packages `acme-<name>` with a package `acme_<name>`, and keeps their wheels in `links`."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder, self.store = folder, store
        self.links = folder / "links"
        self.links.mkdir(parents=True)

    def extension(
        self,
        name: str,
        version: str = "1.0",
        needs: Sequence[str] = ("jan-core",),
        *,
        code: str = CODE,
        uses: str = "",
        **manifest: Any,
    ) -> Path:
        """The wheel of an extension. `uses`: a line of its method; `manifest`: what differs in its table."""
        return self._wheel(self.project(name, version, needs, code=code, uses=uses, **manifest))

    def library(self, name: str, version: str = "1.0", needs: Sequence[str] = (), **files: str) -> Path:
        """The wheel of a package that is no extension. It has `VERSION`."""
        root = self.folder / f"{name}-{version}"
        package = root / "src" / f"acme_{name}"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f'VERSION = "{version}"\n')
        for path, text in files.items():
            (root / "src" / path.replace("__", "/").replace("_pth", ".pth")).write_text(text)
        self._toml(root, f"acme-{name}", version, needs, "")
        return self._wheel(root)

    def project(
        self,
        name: str,
        version: str = "1.0",
        needs: Sequence[str] = ("jan-core",),
        *,
        code: str = CODE,
        uses: str = "",
        backend: bool = False,
        **manifest: Any,
    ) -> Path:
        """The folder of an extension's project. `backend`: it brings its own build backend."""
        root = self.folder / f"{name}-{version}"
        package = root / "src" / f"acme_{name}"
        package.mkdir(parents=True, exist_ok=True)
        id = manifest.setdefault("id", name)
        manifest.setdefault("requires-core", ">=1.0,<2")
        manifest.setdefault("methods", [f"{id}."])
        (package / "__init__.py").write_text("")
        text = textwrap.dedent(code).replace("{id}", id).replace("{version}", version)
        (package / "plugin.py").write_text(text.replace("{uses}", uses or "pass"))
        rows = "\n".join(f"{key} = {json.dumps(value)}" for key, value in manifest.items())
        more = f"""
            [project.entry-points."jan.extensions"]
            {id} = "acme_{name}.plugin:Extension"
            [tool.jan.extension]
            """
        self._toml(root, f"acme-{name}", version, needs, textwrap.dedent(more) + rows + "\n", backend=backend)
        return root

    def _toml(
        self, root: Path, name: str, version: str, needs: Sequence[str], more: str, *, backend: bool = False
    ) -> None:
        head = f'[project]\nname = "{name}"\nversion = "{version}"\ndependencies = {list(needs)!r}\n'
        if backend:
            (root / "backend.py").write_text(textwrap.dedent(BACKEND))
            build = '\n[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        else:
            package = name.replace("-", "_")
            build = (
                '\n[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
                '[tool.hatch.build.targets.wheel]\nonly-include = ["src"]\nsources = ["src"]\n'
                "[tool.hatch.build.targets.wheel.force-include]\n"
                f'"pyproject.toml" = "{package}/jan-extension.toml"\n'
            )
        (root / "pyproject.toml").write_text(head + more + build)

    def _wheel(self, root: Path) -> Path:
        """The wheel of a project: the same file as before where another test had the same project."""
        from hatchling.builders.wheel import WheelBuilder

        files = {str(p.relative_to(root)): p.read_text() for p in sorted(root.rglob("*")) if p.is_file()}
        built = self.store / hashlib.sha256(json.dumps(files).encode()).hexdigest()
        if not built.exists():
            list(WheelBuilder(str(root)).build(directory=str(built), versions=["standard"]))
        [wheel] = built.iterdir()
        link = self.links / wheel.name  # uv tells files apart by when their inodes changed
        link.unlink(missing_ok=True)
        link.symlink_to(wheel)
        return link


@pytest.fixture(scope="session")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests: what one of them builds is not built again."""
    return tmp_path_factory.mktemp("of all tests") / "uv cache"


@pytest.fixture
def wheelhouse(tmp_path: Path, uv_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wheelhouse]:
    """A wheelhouse of the test's own; what the test imports is forgotten after it."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(uv_cache))
    path, modules = sys.path[:], set(sys.modules)
    yield Wheelhouse(tmp_path / "Räder & Co", uv_cache.with_name("built"))
    sys.path[:] = path
    for name in [name for name in list(sys.modules) if name.startswith("acme_") and name not in modules]:
        del sys.modules[name]
