"""Installing an engine for real, through uv: staged, checked, switched; failures explained and leaving
nothing.

Uses uv's cache of this machine. Where it does not hold the build yet, the first installation compiles
llama.cpp, which takes minutes.
"""

# ruff: noqa: ASYNC240 (a test has its event loop to itself)
from __future__ import annotations

import base64
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import anyio
import msgspec
import pytest
from jan_llamacpp.engines import installed
from jan_llamacpp.engines.builds import ENGINE_VERSION
from jan_llamacpp.engines.errors import EngineInstallFailed, EngineNotFound
from jan_llamacpp.engines.installer import EngineInstaller
from jan_llamacpp.engines.lock import held
from jan_llamacpp.engines.progress import Progress

from jan_core.types import EngineBuild

pytestmark = pytest.mark.anyio

NOWHERE = "http://127.0.0.1:9/simple"  # nothing listens on the discard port
CPU = EngineBuild(f"cpu-{ENGINE_VERSION}", "cpu", ENGINE_VERSION)


def ignore(progress: Progress) -> None: ...


@pytest.fixture(scope="module")
async def engines(tmp_path_factory: pytest.TempPathFactory, babble: Path) -> Path:
    """A folder with one engine, installed from source (or uv's cache of it) and checked with a model."""
    folder = tmp_path_factory.mktemp("data") / "engines"
    await EngineInstaller(folder, check_model=babble, wheels=False).ensure(CPU, ignore)
    return folder


def pack(engine: Path, target: Path, spoil: str = "") -> Path:
    """A wheel of an installed engine; `spoil` is code put before the package's own."""
    wheel = target / f"llama_cpp_python-{ENGINE_VERSION}-py3-none-any.whl"
    info = f"llama_cpp_python-{ENGINE_VERSION}.dist-info"
    files = {
        file.relative_to(engine).as_posix(): file.read_bytes()
        for folder in ("llama_cpp", info)
        for file in (engine / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.name not in ("RECORD", "INSTALLER", "REQUESTED")
    }
    files["llama_cpp/__init__.py"] = spoil.encode() + files["llama_cpp/__init__.py"]
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={digest},{len(data)}")
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return wheel


@pytest.fixture(scope="module")
def wheel(engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(engines / CPU.id, tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Serves a wheel as a package index on this machine; returns the index's address."""
    root = tmp_path / "index"
    (root / "llama-cpp-python").mkdir(parents=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()

        def serve(wheel: Path) -> str:
            folder = root / "llama-cpp-python"
            shutil.copy(wheel, folder)
            (folder / "index.html").write_text(f'<!DOCTYPE html><a href="{wheel.name}">{wheel.name}</a>')
            return f"http://127.0.0.1:{server.server_port}"

        yield serve
        server.shutdown()
        thread.join()


async def test_an_installed_engine_is_recorded_with_the_hashes_of_its_libraries(engines: Path) -> None:
    [engine] = installed.list_installed(engines)
    record = engine.record
    assert (engine.id, record.variant, record.version) == (CPU.id, "cpu", ENGINE_VERSION)
    assert (record.origin, record.pinned) == ("source", True)
    assert len(record.devices) >= 1
    assert any("llama" in library.path for library in record.libraries)
    assert installed.damage(engine) == []
    assert (engine.path / "install.log").stat().st_size > 0
    assert [entry.name for entry in engines.iterdir() if not entry.name.startswith(".lock")] == [CPU.id]


async def test_an_installed_engine_is_found_again_without_any_command(engines: Path) -> None:
    seen: list[Progress] = []
    engine = await EngineInstaller(engines, offline=True).ensure(CPU, seen.append)
    assert engine.path == engines / CPU.id
    assert seen == []


async def test_an_installed_engine_generates_text(engines: Path, babble: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import llama_cpp; "
        "llm = llama_cpp.Llama(sys.argv[2], n_ctx=64, verbose=False); "
        "print(llm('a', max_tokens=3, temperature=0)['usage']['completion_tokens'])"
    )
    command = [sys.executable, "-I", "-c", code, str(engines / CPU.id), str(babble)]
    done = await anyio.run_process(command)
    assert done.stdout.split()[-1] == b"3"


async def test_a_changed_library_is_found(engines: Path, tmp_path: Path) -> None:
    shutil.copytree(engines / CPU.id, tmp_path / CPU.id)
    engine = installed.find(tmp_path, CPU.id)
    assert engine is not None
    victim = engine.record.libraries[0].path
    with (engine.path / victim).open("r+b") as file:
        file.seek(1000)
        file.write(b"changed!")
    assert installed.damage(engine) == [victim]


async def test_a_removed_engine_is_gone(engines: Path, tmp_path: Path) -> None:
    shutil.copytree(engines / CPU.id, tmp_path / CPU.id)
    installed.remove(tmp_path, CPU.id)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(EngineNotFound):
        installed.remove(tmp_path, CPU.id)


@pytest.mark.parametrize("name", ["", ".", "..", "../engines", "a/b", ".staging-x"])
def test_a_name_that_is_no_build_finds_nothing(engines: Path, name: str) -> None:
    assert installed.find(engines, name) is None


@pytest.mark.parametrize("harm", ["no record", "torn record", "other id", "no library", "short library"])
async def test_a_half_made_directory_does_not_count_and_is_replaced(engines: Path, tmp_path: Path, harm: str) -> None:
    shutil.copytree(engines / CPU.id, tmp_path / CPU.id)
    record = tmp_path / CPU.id / "engine.json"
    content = msgspec.json.decode(record.read_bytes())
    library = tmp_path / CPU.id / content["libraries"][0]["path"]
    match harm:
        case "no record":
            record.unlink()
        case "torn record":
            record.write_bytes(record.read_bytes()[:100])
        case "other id":
            record.write_bytes(msgspec.json.encode(content | {"id": "cpu-9.9"}))
        case "no library":
            library.unlink()
        case "short library":
            os.truncate(library, 10)
    assert installed.list_installed(tmp_path) == []
    if harm == "no record":  # one of them is repaired for real
        await EngineInstaller(tmp_path, offline=True).ensure(CPU, ignore)
        assert [engine.id for engine in installed.list_installed(tmp_path)] == [CPU.id]


async def test_what_a_killed_installation_left_is_cleared_away(tmp_path: Path, engines: Path) -> None:
    left = tmp_path / f".staging-{CPU.id}~abc" / "target"
    left.mkdir(parents=True)
    (left / "engine.json").write_text("{}")
    assert installed.list_installed(tmp_path) == []
    await EngineInstaller(tmp_path, offline=True).ensure(CPU, ignore)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [f".lock-{CPU.id}", CPU.id]


async def test_a_second_process_waits_for_the_first_and_says_so(engines: Path, tmp_path: Path) -> None:
    code = (
        "import sys, anyio\n"
        "from pathlib import Path\n"
        "from jan_core.types import EngineBuild\n"
        "from jan_llamacpp.engines.installer import EngineInstaller\n"
        "build = EngineBuild(sys.argv[2], 'cpu', sys.argv[3])\n"
        "installer = EngineInstaller(Path(sys.argv[1]), offline=True)\n"
        "shown = lambda progress: print(progress.phase, progress.message, flush=True)\n"
        "print('done', anyio.run(installer.ensure, build, shown).id)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path), CPU.id, ENGINE_VERSION]
    with anyio.fail_after(300):
        async with held(tmp_path / f".lock-{CPU.id}"):
            other = subprocess.Popen(  # noqa: ASYNC220
                command, stdout=subprocess.PIPE, text=True, env=environment
            )
            assert other.stdout is not None
            first = await anyio.to_thread.run_sync(other.stdout.readline)
            assert first.startswith("waiting another process is installing")
            shutil.copytree(engines / CPU.id, tmp_path / CPU.id)
        rest, _ = await anyio.to_thread.run_sync(other.communicate)
    assert rest == f"done {CPU.id}\n"  # it took what the first one made: no uv was run


async def test_concurrent_installations_in_one_process_give_one_engine(tmp_path: Path, engines: Path) -> None:
    installer = EngineInstaller(tmp_path, offline=True)
    checks: list[Progress] = []

    def note(progress: Progress) -> None:
        if progress.phase == "checking":
            checks.append(progress)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(installer.ensure, CPU, note)
    assert len(checks) == 1
    assert len(installed.list_installed(tmp_path)) == 1


@pytest.mark.skipif("UV_OFFLINE" in os.environ, reason="an index is asked for the dependencies too")
async def test_a_prebuilt_wheel_is_taken_from_the_index_and_marked_as_not_pinned(
    wheel: Path, tmp_path: Path, index: Callable[[Path], str]
) -> None:
    build = msgspec.structs.replace(CPU, index=index(wheel))
    engine = await EngineInstaller(tmp_path / "engines").ensure(build, ignore)
    assert (engine.record.origin, engine.record.pinned) == ("wheel", False)
    assert (engine.path / "numpy").is_dir()


async def test_without_the_index_the_engine_comes_from_source(tmp_path: Path, engines: Path) -> None:
    build = msgspec.structs.replace(CPU, index=NOWHERE)
    engine = await EngineInstaller(tmp_path).ensure(build, ignore)
    assert (engine.record.origin, engine.record.pinned) == ("source", True)


async def test_a_wheel_that_does_not_run_here_is_passed_over_for_the_source(
    engines: Path, tmp_path: Path, index: Callable[[Path], str]
) -> None:
    bad = pack(engines / CPU.id, tmp_path, "import os; os.abort()\n")
    build = msgspec.structs.replace(CPU, index=index(bad))
    engine = await EngineInstaller(tmp_path / "engines").ensure(build, ignore)
    assert engine.record.origin == "source"


async def test_a_wheel_file_is_installed_without_the_network(wheel: Path, tmp_path: Path) -> None:
    engine = await EngineInstaller(tmp_path, offline=True).ensure(CPU, ignore, wheel=wheel)
    assert (engine.record.origin, engine.record.pinned) == ("wheel-file", False)


async def test_an_engine_that_crashes_is_refused_with_the_signal(engines: Path, tmp_path: Path) -> None:
    bad = pack(engines / CPU.id, tmp_path, "import os; os.abort()\n")
    with pytest.raises(EngineInstallFailed, match="was ended by SIGABRT") as caught:
        await EngineInstaller(tmp_path / "engines", offline=True).ensure(CPU, ignore, wheel=bad)
    assert caught.value.reason == "check_failed"
    assert installed.list_installed(tmp_path / "engines") == []


async def test_an_engine_of_another_version_is_refused(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineInstallFailed, match=r"is version 0\.3\.36, not 9\.9"):
        await EngineInstaller(tmp_path, offline=True).ensure(EngineBuild("cpu-9.9", "cpu", "9.9"), ignore, wheel=wheel)


async def test_a_gpu_build_without_a_gpu_is_an_error_and_not_a_silent_cpu_run(wheel: Path, tmp_path: Path) -> None:
    build = EngineBuild("vulkan-x", "vulkan", ENGINE_VERSION)
    with pytest.raises(EngineInstallFailed, match="a vulkan build, but it finds no GPU here"):
        await EngineInstaller(tmp_path, offline=True).ensure(build, ignore, wheel=wheel)


async def test_a_refused_build_is_not_tried(tmp_path: Path) -> None:
    build = EngineBuild("cuda-x", "cuda", ENGINE_VERSION, refused="no driver")
    with pytest.raises(EngineInstallFailed, match="cuda-x: no driver"):
        await EngineInstaller(tmp_path / "engines").ensure(build, ignore)
    assert not (tmp_path / "engines").exists()


async def test_without_network_and_cache_the_network_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_OFFLINE", raising=False)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_DEFAULT_INDEX", NOWHERE)
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    folder = tmp_path / "engines"
    with pytest.raises(EngineInstallFailed) as caught:
        await EngineInstaller(folder).ensure(CPU, ignore)
    assert caught.value.reason == "network"
    assert "onnection refused" in Path(caught.value.data["log"]).read_text()
    assert sorted(entry.name for entry in folder.iterdir()) == [f".lock-{CPU.id}", "logs"]


async def test_offline_mode_opens_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_DEFAULT_INDEX", NOWHERE)
    build = msgspec.structs.replace(CPU, index=NOWHERE)
    with pytest.raises(EngineInstallFailed, match="offline mode is on") as caught:
        await EngineInstaller(tmp_path / "engines", offline=True).ensure(build, ignore)
    assert "onnection refused" not in Path(caught.value.data["log"]).read_text()


async def test_without_a_compiler_the_person_is_told_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("cmake", "ninja"):
        if found := shutil.which(tool):
            (tools / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    build = EngineBuild("cpu-none", "cpu", ENGINE_VERSION, NOWHERE, [f"-DNOT_CACHED={tmp_path.name}"])
    words = r"no C\+\+ compiler was found.*a prebuilt one could not be had either"
    with pytest.raises(EngineInstallFailed, match=words) as caught:
        await EngineInstaller(tmp_path / "engines").ensure(build, ignore)
    assert caught.value.reason == "compiler_missing"
    assert installed.list_installed(tmp_path / "engines") == []


async def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineInstallFailed) as caught:
        await EngineInstaller(tmp_path / "file" / "engines").ensure(CPU, ignore)
    assert caught.value.reason == "build_failed"


BUILDER = """
import sys, anyio
from pathlib import Path
from jan_core.types import EngineBuild
from jan_llamacpp.engines.installer import EngineInstaller
build = EngineBuild("cpu-slow", "cpu", sys.argv[2], cmake_args=[sys.argv[3]])
shown = lambda progress: print(progress.done, progress.total or 0, flush=True)
anyio.run(EngineInstaller(Path(sys.argv[1])).ensure, build, shown)
"""


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("how", ["cancelled", "killed"])
async def test_a_build_interrupted_while_it_compiles_leaves_no_process_and_goes_on_later(
    tmp_path: Path, how: str
) -> None:
    flag = f"-DNOT_CACHED={tmp_path.name}"
    build = EngineBuild("cpu-slow", "cpu", ENGINE_VERSION, cmake_args=[flag])
    folder = tmp_path / "engines"

    async def until(step: int) -> int:
        """Compile up to this step; returns how many there are."""
        seen: list[Progress] = []

        def cancel(progress: Progress) -> None:
            seen.append(progress)
            if progress.total and progress.done >= step:
                scope.cancel()

        with anyio.fail_after(900), anyio.CancelScope() as scope:
            await EngineInstaller(folder).ensure(build, cancel)
        assert scope.cancelled_caught
        return seen[-1].total or 0

    if how == "cancelled":
        steps = await until(4)
    else:
        command = [sys.executable, "-c", BUILDER, str(folder), ENGINE_VERSION, flag]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(  # noqa: ASYNC220
            command, stdout=subprocess.PIPE, text=True, env=environment
        ) as host:
            done = steps = 0
            assert host.stdout is not None
            while done < 4:
                done, steps = map(int, (await anyio.to_thread.run_sync(host.stdout.readline)).split())
            host.kill()
    assert installed.list_installed(folder) == []
    await none_running_under(folder)
    # ninja notes a step when it has ended: of those that were shown the last may not be among them
    assert steps - 6 <= await until(1) <= steps - 2
    assert {".lock-cpu-slow", ".kept-cpu-slow"} >= {entry.name for entry in folder.iterdir()}
    installed.remove(folder, "cpu-slow")
    assert [entry.name for entry in folder.iterdir()] == [".lock-cpu-slow"]


async def none_running_under(folder: Path) -> None:
    """Wait until no process mentions the folder: one that was killed takes a moment to be gone."""
    with anyio.fail_after(10):
        while running_under(folder):  # noqa: ASYNC110
            await anyio.sleep(0.01)


def running_under(folder: Path) -> list[str]:
    """The command lines of processes that mention the folder."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            lines.append(line)
    return lines
