"""Prebuilt engines of a wheel index on loopback: found, fetched, checked, switched to, gone on with after a kill.

The wheels are the CPU build of this machine packed anew, also those of the GPU variants: what is tested is the way from
the index to the switch. A GPU build must fail its check here for want of a device, and that it does is tested.
"""

# ruff: noqa: ASYNC220, ASYNC240 (a test has its event loop to itself)
from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from jan_llamacpp.engines import installed
from jan_llamacpp.engines.builds import ENGINE_VERSION
from jan_llamacpp.engines.errors import EngineInstallFailed
from jan_llamacpp.engines.installer import EngineInstaller
from jan_llamacpp.engines.progress import Progress
from jan_llamacpp.engines.record import InstalledEngine

from jan_core.types import EngineBuild, Variant

from .wheel_index import WheelIndex, pack, serving

pytestmark = pytest.mark.anyio

ID = f"cpu-{ENGINE_VERSION}"
VARIANTS: list[Variant] = ["cpu", "cuda", "metal", "rocm", "vulkan"]
SLOW = b"import time; time.sleep(600)"


@pytest.fixture(scope="module")
def wheel(engine_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(engine_dir, tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def index(wheel: Path) -> Iterator[WheelIndex]:
    """An index with the wheel under `cpu`."""
    with serving() as running:
        running.offer("cpu", wheel)
        yield running


def build(index: WheelIndex, variant: Variant = "cpu", version: str = ENGINE_VERSION) -> EngineBuild:
    return EngineBuild(f"{variant}-{version}", variant, version, f"{index.url}/whl/{variant}")


def path_of(wheel: Path, index: str = "cpu") -> str:
    return f"/files/{index}/{wheel.name}"


async def install(
    folder: Path, build: EngineBuild, model: Path | None = None
) -> tuple[InstalledEngine, list[Progress]]:
    seen: list[Progress] = []
    return await EngineInstaller(folder, check_model=model, sources=False).ensure(build, seen.append), seen


async def failure_of(folder: Path, build: EngineBuild) -> EngineInstallFailed:
    with pytest.raises(EngineInstallFailed) as caught:
        await EngineInstaller(folder, sources=False).ensure(build, lambda progress: None)
    assert installed.list_installed(folder) == []
    return caught.value


async def test_a_prebuilt_engine_is_fetched_checked_and_recorded(
    index: WheelIndex, wheel: Path, tmp_path: Path, babble: Path
) -> None:
    engine, seen = await install(tmp_path, build(index), babble)
    record = engine.record
    assert (record.origin, record.pinned, record.verified) == ("wheel", False, "index")
    assert (record.wheel, record.sha256) == (wheel.name, hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert installed.damage(engine) == []
    size = wheel.stat().st_size
    assert [p for p in seen if p.phase == "downloading"][-1] == Progress(
        "downloading", f"downloading {wheel.name}", size, size
    )
    assert [p.phase for p in seen][-1] == "checking"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [f".lock-{ID}", ID]


@pytest.mark.parametrize("variant", VARIANTS[1:])
async def test_a_gpu_build_is_fetched_and_then_refused_as_there_is_no_device(
    index: WheelIndex, engine_dir: Path, tmp_path: Path, variant: Variant
) -> None:
    gpu = pack(engine_dir, tmp_path / "wheel", version=f"{ENGINE_VERSION}+{variant}")
    index.offer(variant, gpu)
    folder = tmp_path / "engines"
    for _ in range(2):
        with pytest.raises(EngineInstallFailed) as caught:  # sources are allowed: no other way may find a device either
            await EngineInstaller(folder).ensure(build(index, variant), lambda progress: None)
        failure = caught.value
        assert installed.list_installed(folder) == []
        assert failure.reason == "no_device"
        assert f"this is a {variant} build, but it finds no GPU here" in failure.message
        [tried] = failure.data["tried"]
        assert (tried["way"], tried["reason"]) == ("wheel", "no_device")
    assert index.fetched() == [""]  # once: the second attempt had it already


async def test_an_index_without_hashes_is_taken_and_that_is_recorded(
    index: WheelIndex, wheel: Path, tmp_path: Path
) -> None:
    index.offer("cpu", wheel, hashed=False)
    engine, _ = await install(tmp_path, build(index))
    assert (engine.record.verified, engine.record.pinned, len(engine.record.sha256)) == ("nobody", False, 64)


async def test_a_broken_connection_and_a_busy_server_do_not_end_it(
    index: WheelIndex, wheel: Path, tmp_path: Path
) -> None:
    index.fail("/whl/cpu/llama-cpp-python/", status=503)
    index.fail(path_of(wheel), cut=100_000)
    engine, _ = await install(tmp_path, build(index))
    assert engine.record.verified == "index"
    assert index.fetched() == ["", "bytes=100000-"]


@pytest.mark.parametrize(
    ("where", "fault", "reason"),
    [
        ("page", {"status": 404}, "not_found"),
        ("page", {"status": 500}, "server"),
        ("page", {"page": b"<html>Welcome to the hotel</html>"}, "web_page"),
        ("wheel", {"status": 404}, "not_found"),
        ("wheel", {"status": 500}, "server"),
        ("wheel", {"page": b"<html>Welcome to the hotel</html>"}, "web_page"),
        ("wheel", {"cut": 0}, "truncated"),
        ("wheel", {"status": 302, "location": "http://wheels.example/x.whl"}, "refused"),
    ],
)
async def test_why_no_wheel_could_be_had_is_told(
    index: WheelIndex, wheel: Path, tmp_path: Path, where: str, fault: dict[str, object], reason: str
) -> None:
    index.fail(path_of(wheel) if where == "wheel" else "/whl/cpu/llama-cpp-python/", times=9, **fault)
    assert (await failure_of(tmp_path, build(index))).reason == reason


async def test_a_wheel_that_is_not_what_the_index_says_is_thrown_away(
    index: WheelIndex, wheel: Path, tmp_path: Path
) -> None:
    index.add(path_of(wheel), wheel.read_bytes()[:-1] + b"!")
    assert (await failure_of(tmp_path, build(index))).reason == "wrong_hash"
    assert list(tmp_path.glob(".kept-*")) == []


async def test_a_damaged_wheel_of_an_index_without_hashes_is_not_unpacked(
    index: WheelIndex, wheel: Path, tmp_path: Path
) -> None:
    data = bytearray(wheel.read_bytes())
    data[len(data) // 2] ^= 1
    index.offer("cpu", wheel, hashed=False)
    index.add(path_of(wheel), bytes(data))
    assert (await failure_of(tmp_path, build(index))).reason == "not_a_wheel"


async def test_a_build_whose_check_hangs_is_ended_in_time(engine_dir: Path, tmp_path: Path) -> None:
    slow = pack(engine_dir, tmp_path, spoil=f"{SLOW.decode()}\n")
    installer = EngineInstaller(tmp_path / "engines", offline=True, check_seconds=0.5)
    with pytest.raises(EngineInstallFailed, match=r"its check did not end within 0\.5 seconds") as caught:
        await installer.ensure(EngineBuild(ID, "cpu", ENGINE_VERSION), lambda progress: None, wheel=slow)
    assert caught.value.reason == "check_failed"
    await none_running_under(tmp_path / "engines")


async def test_a_wheel_file_is_checked_against_the_hash_a_person_gives(wheel: Path, tmp_path: Path) -> None:
    installer, cpu = EngineInstaller(tmp_path, offline=True), EngineBuild(ID, "cpu", ENGINE_VERSION)
    with pytest.raises(EngineInstallFailed, match="has the SHA-256") as caught:
        await installer.ensure(cpu, lambda progress: None, wheel=wheel, sha256="0" * 64)
    assert caught.value.reason == "wrong_hash"
    right = hashlib.sha256(wheel.read_bytes()).hexdigest()
    engine = await installer.ensure(cpu, lambda progress: None, wheel=wheel, sha256=right.upper())
    assert (engine.record.origin, engine.record.verified) == ("wheel-file", "person")


async def test_what_a_wheel_file_needs_beside_it_is_named_when_it_cannot_be_had(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    cpu = EngineBuild(ID, "cpu", ENGINE_VERSION)
    with pytest.raises(EngineInstallFailed, match=r"parts are in uv's cache \(diskcache==.*numpy==") as caught:
        await EngineInstaller(tmp_path / "engines", offline=True).ensure(cpu, lambda progress: None, wheel=wheel)
    assert caught.value.reason == "network"


async def test_an_installation_anew_leaves_the_one_before_and_no_more(wheel: Path, tmp_path: Path) -> None:
    installer, cpu = EngineInstaller(tmp_path, offline=True), EngineBuild(ID, "cpu", ENGINE_VERSION)
    for _ in range(3):
        engine = await installer.ensure(cpu, lambda progress: None, wheel=wheel)
    assert engine.name == f"{ID}~3"
    assert [each.name for each in installed.generations(tmp_path, ID)] == [f"{ID}~3", f"{ID}~2"]
    assert [each.name for each in installed.list_installed(tmp_path)] == [f"{ID}~3"]
    installed.remove(tmp_path, ID)
    assert installed.generations(tmp_path, ID) == []


async def test_versions_lie_side_by_side_ordered_by_their_numbers(engine_dir: Path, tmp_path: Path) -> None:
    for version in ("0.3.9", "0.3.10"):
        packed = pack(engine_dir, tmp_path, version=version)
        cpu = EngineBuild(f"cpu-{version}", "cpu", version)
        await EngineInstaller(tmp_path / "engines", offline=True).ensure(cpu, lambda progress: None, wheel=packed)
    assert [each.id for each in installed.list_installed(tmp_path / "engines")] == ["cpu-0.3.10", "cpu-0.3.9"]


HOST = """
import sys, anyio
from pathlib import Path
from jan_core.types import EngineBuild
from jan_llamacpp.engines.installer import EngineInstaller
folder, id, version, index = sys.argv[1:]
build = EngineBuild(id, "cpu", version, index)
shown = lambda progress: print(progress.phase, progress.done, flush=True)
anyio.run(EngineInstaller(Path(folder), sources=False).ensure, build, shown)
"""


@pytest.mark.parametrize("phase", ["resolving", "downloading", "installing", "checking"])
async def test_killed_in_any_phase_nothing_counts_and_the_next_attempt_goes_on(
    index: WheelIndex, engine_dir: Path, wheel: Path, tmp_path: Path, phase: str
) -> None:
    folder = tmp_path / "engines"
    held = wheel.stat().st_size // 2
    if phase == "resolving":
        index.fail("/whl/cpu/llama-cpp-python/", hold=0)
    if phase == "downloading":
        index.fail(path_of(wheel), hold=held)
    if phase == "checking":  # it would not end by itself: the kill comes for sure while it runs
        hanging = pack(
            engine_dir,
            tmp_path,
            spoil=f"import os\nif not os.path.exists({str(tmp_path / 'go')!r}):\n    {SLOW.decode()}\n",
        )
        index.offer("cpu", hanging)
    command = [sys.executable, "-c", HOST, str(folder), ID, ENGINE_VERSION, f"{index.url}/whl/cpu"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with anyio.fail_after(120), subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as host:
        assert host.stdout is not None
        while True:
            line = await anyio.to_thread.run_sync(host.stdout.readline)
            assert line, "it ended before it was killed"
            if line.startswith(phase):
                break
        host.send_signal(signal.SIGKILL)
    assert installed.list_installed(folder) == []
    asked = len(index.fetched())
    index.faults.clear()
    (tmp_path / "go").touch()

    engine, _ = await install(folder, build(index))
    assert engine.record.verified == "index"
    again = index.fetched()[asked:]
    if phase == "downloading":
        [ranges] = again
        assert 0 < int(ranges.removeprefix("bytes=").removesuffix("-")) <= held
    else:
        assert again == ([""] if phase == "resolving" else [])  # what was complete is not fetched twice
    assert sorted(entry.name for entry in folder.iterdir()) == [f".lock-{ID}", ID]


@pytest.mark.parametrize("phase", ["resolving", "downloading", "installing", "checking"])
async def test_cancelled_in_any_phase_no_process_stays_and_the_next_attempt_goes_on(
    index: WheelIndex, wheel: Path, tmp_path: Path, phase: str
) -> None:
    if phase == "resolving":
        index.fail("/whl/cpu/llama-cpp-python/", hold=0)
    if phase == "downloading":
        index.fail(path_of(wheel), hold=wheel.stat().st_size // 2)

    def cancel(progress: Progress) -> None:
        if progress.phase == phase:
            scope.cancel()

    with anyio.fail_after(60), anyio.CancelScope() as scope:
        await EngineInstaller(tmp_path, sources=False).ensure(build(index), cancel)
    assert scope.cancelled_caught
    index.faults.clear()
    assert installed.list_installed(tmp_path) == []
    await none_running_under(tmp_path)
    engine, _ = await install(tmp_path, build(index))
    assert engine.id == ID
    whole = [ranges for ranges in index.fetched() if not ranges]
    assert len(whole) == 1


async def test_an_archive_that_leads_outside_writes_nothing_there(
    index: WheelIndex, wheel: Path, tmp_path: Path
) -> None:
    evil = tmp_path / wheel.name
    evil.write_bytes(wheel.read_bytes())
    with zipfile.ZipFile(evil, "a") as archive:
        archive.writestr("../../../../outside", "x")
    index.offer("cpu", evil)
    folder = tmp_path / "a" / "b" / "c" / "engines"
    with contextlib.suppress(EngineInstallFailed):  # refused, or installed without that entry: both will do
        await EngineInstaller(folder, sources=False).ensure(build(index), lambda progress: None)
    assert list(tmp_path.rglob("outside")) == []


async def none_running_under(folder: Path) -> None:
    """Wait until no process mentions the folder: one that was killed takes a moment to be gone."""
    with anyio.fail_after(20):
        while any(_mentions(entry, folder) for entry in Path("/proc").glob("[0-9]*/cmdline")):  # noqa: ASYNC110
            await anyio.sleep(0.01)


def _mentions(cmdline: Path, folder: Path) -> bool:
    try:
        return os.fsencode(folder) in cmdline.read_bytes()
    except OSError:
        return False
