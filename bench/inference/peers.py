"""The others, made from the sources that our engine is made from: llama-server, llama-batched-bench, llama_cpp.server.

The source distribution of llama-cpp-python, checked against the hash that the engine is pinned by, holds the whole of
llama.cpp. It is compiled with the flags of the package's own build (release, for this processor, OpenMP), once, into
the cache: some minutes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from kit import NotTakenError

__all__ = ["batched_bench", "build", "llama_cpp_server", "llama_server", "version"]

ROOT = Path(__file__).parents[2]
PINS = ROOT / "extensions/llamacpp/src/jan_llamacpp/engines/requirements-cpu.txt"
# As the package's CMakeLists.txt has it; the rest are llama.cpp's own defaults, there as here. What is off is no part
# of a measurement: tests, a web page, downloads.
FLAGS = ["-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF"]
FLAGS += ["-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_OPENSSL=OFF"]
TOOLS = ("llama-server", "llama-batched-bench")
SERVER_NEEDS = ["uvicorn>=0.22", "fastapi>=0.100", "pydantic-settings>=2.0.1", "sse-starlette>=1.6.1"]
SERVER_NEEDS += ["starlette-context>=0.3.6,<0.4", "PyYAML>=5.1"]
"""What llama-cpp-python's extra `server` asks for; the package itself is our engine."""


def llama_server(cache: Path) -> Path:
    """The program. Raises NotTakenError when it has not been built."""
    return _built(cache, "llama-server")


def batched_bench(cache: Path) -> Path:
    """The program. Raises NotTakenError when it has not been built."""
    return _built(cache, "llama-batched-bench")


def llama_cpp_server(cache: Path) -> Path:
    """The folder with what llama_cpp.server needs beside the engine. Raises NotTakenError."""
    folder = cache / "server"
    if not (folder / "uvicorn").is_dir():
        raise NotTakenError("llama_cpp.server's packages are not in the cache: python bench/inference --prepare")
    return folder


def version() -> str:
    """The version of llama-cpp-python that engine and peers are of."""
    found = re.search(r"^llama-cpp-python==(\S+)", PINS.read_text(), re.MULTILINE)
    assert found
    return found[1]


def build(cache: Path) -> None:
    """Make what is not there yet. Raises NotTakenError with the reason when something cannot be had."""
    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / "server" / "uvicorn").is_dir():
        _install_server(cache)
    if all((cache / "build/bin" / tool).exists() for tool in TOOLS):
        return
    cmake = shutil.which("cmake")
    if cmake is None:
        raise NotTakenError("no cmake: llama-server is compiled here")
    source = cache / "src/vendor/llama.cpp"
    if not source.is_dir():
        _unpack(_download(cache), cache)
    target = cache / "build"
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    _run([cmake, "-S", str(source), "-B", str(target), *generator, *FLAGS], cache / "logs" / "cmake.log")
    # Two at a time and no more: some of these files take a gigabyte each.
    _run([cmake, "--build", str(target), "--target", *TOOLS, "--parallel", "2"], cache / "logs" / "build.log")


def _built(cache: Path, tool: str) -> Path:
    path = cache / "build/bin" / tool
    if not path.exists():
        raise NotTakenError(f"{tool} is not in the cache: python bench/inference --prepare")
    return path


def _install_server(cache: Path) -> None:
    pins = str(ROOT / "requirements" / "pins.txt")
    command = ["pip", "install", "-c", pins, "--python", sys.executable, "--target", str(cache / "server")]
    _run([_uv(), *command, *SERVER_NEEDS], cache / "logs" / "server.log")


def _download(cache: Path) -> Path:
    lines = PINS.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("llama-cpp-python=="))
    pin = cache / "sdist.txt"
    pin.write_text("\n".join(lines[at : at + 2]) + "\n")
    folder = cache / "sdist"
    # pip, because uv has no command that only downloads.
    command = ["tool", "run", "--from", "pip", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    command += ["--require-hashes", "-r", str(pin), "-d", str(folder)]
    _run([_uv(), *command], cache / "logs" / "download.log")
    return next(folder.glob("*.tar.gz"))


def _unpack(archive: Path, cache: Path) -> None:
    stage = cache / "src.part"
    shutil.rmtree(stage, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(stage, filter="data")
    next(stage.iterdir()).rename(cache / "src")
    stage.rmdir()


def _uv() -> str:
    import uv

    return uv.find_uv_bin()


def _run(command: Sequence[str], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        status = subprocess.run(command, stdout=out, stderr=out, check=False).returncode
    if status:
        raise NotTakenError(f"{Path(command[0]).name} ended with {status}; see {log}")
