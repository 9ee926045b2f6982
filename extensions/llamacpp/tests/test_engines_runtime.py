"""CUDA's libraries beside an engine: stand-ins with the real names, made by the compiler, in processes of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from jan_llamacpp.engines.builds import ENGINE_VERSION
from jan_llamacpp.engines.errors import EngineInstallFailed
from jan_llamacpp.engines.installer import EngineInstaller
from jan_llamacpp.worker import runtime

from jan_core.types import EngineBuild

from .wheel_index import pack, serving

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("cc"), reason="the stand-ins need a C compiler and Linux's linker"
)

LOAD = """
import ctypes, pathlib, runpy, sys
script, engine, provided = sys.argv[1:]
if provided == "yes":
    runpy.run_path(script)["provide"](pathlib.Path(engine))
print(ctypes.CDLL(engine + "/llama_cpp/lib/libggml-cuda.so").answer())
"""


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """As `pip install --target` leaves it: a library that needs cuBLAS, which needs two more, in three packages."""
    lib, blas, cuda = (tmp_path / name for name in ("llama_cpp/lib", "nvidia/cublas/lib", "nvidia/cuda_runtime/lib"))
    for folder in (lib, blas, cuda):
        folder.mkdir(parents=True)
    _library(cuda / "libcudart.so.12", "int cudart(void) { return 40; }")
    _library(blas / "libcublasLt.so.12", "int lt(void) { return 1; }")
    body = "int cudart(void); int lt(void); int cublas(void) { return cudart() + lt() + 1; }"
    _library(blas / "libcublas.so.12", body, blas / "libcublasLt.so.12", cuda / "libcudart.so.12")
    _library(blas / "libnvblas.so.12", "void __attribute__((constructor)) never(void) { __builtin_trap(); }")
    body = "int cublas(void); int answer(void) { return cublas(); }"
    _library(lib / "libggml-cuda.so", body, blas / "libcublas.so.12")
    return tmp_path


def _library(path: Path, source: str, *needs: Path) -> None:
    code = path.with_suffix(".c")
    code.write_text(source)
    indirect = "-Wl,--allow-shlib-undefined"
    command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{path.name}", indirect, "-o", str(path), str(code)]
    subprocess.run([*command, *map(str, needs)], check=True)


def _load(engine: Path, provided: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LOAD, runtime.__file__, str(engine), provided]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_an_engine_finds_the_libraries_beside_it(engine: Path) -> None:
    without = _load(engine, "no")
    assert "libcublas.so.12: cannot open shared object file" in without.stderr
    assert _load(engine, "yes").stdout == "42\n"


def test_a_library_that_cannot_be_loaded_is_named_by_the_engine_that_needs_it(engine: Path) -> None:
    (engine / "nvidia/cublas/lib/libcublas.so.12").write_bytes(b"no library")
    done = _load(engine, "yes")
    assert done.returncode == 1
    assert "libcublas.so.12" in done.stderr


def test_an_engine_without_libraries_beside_it_is_left_alone(tmp_path: Path) -> None:
    runtime.provide(tmp_path)


async def test_an_installation_puts_the_libraries_packages_beside_the_engine(engine_dir: Path, tmp_path: Path) -> None:
    package = tmp_path / "stand_in_runtime-12.4.1-py3-none-any.whl"
    info = "stand_in_runtime-12.4.1.dist-info"
    files = {
        "nvidia/cuda_runtime/lib/libcudart.so.12": "not a library, and not loaded by a CPU build",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: stand-in-runtime\nVersion: 12.4.1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(package, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    build = EngineBuild(f"cpu-{ENGINE_VERSION}", "cpu", ENGINE_VERSION)
    with serving() as index:
        index.offer("cpu", pack(engine_dir, tmp_path / "wheel"))
        build.index, build.packages = f"{index.url}/whl/cpu", [f"stand-in-runtime @ {package.as_uri()}"]
        folder = tmp_path / "engines"
        engine = await EngineInstaller(folder, sources=False).ensure(build, lambda progress: None)
        assert (engine.path / "nvidia/cuda_runtime/lib/libcudart.so.12").is_file()
        package.unlink()
        build.id = "cpu-without"
        with pytest.raises(EngineInstallFailed):
            await EngineInstaller(folder, sources=False).ensure(build, lambda progress: None)
