"""What an isolated extension can do to itself, and that nobody else notices. Real processes, real signals."""

from __future__ import annotations

import asyncio
import linecache
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from jan_core import Empty, RpcError, hookimpl, method, methods_of
from jan_core.events import Event
from jan_core.extension import Extension, State
from jan_core.host import Host
from jan_core.isolation import link, starter, supervisor
from jan_core.loader import PackageSource, StageError, folder_source
from jan_core.rpc.direct import DirectClient
from jan_core.testing import InlineSource

from .isolation import PROJECT


class Neighbour:
    """Somebody in the host's own process."""

    @hookimpl
    def jan_methods(self) -> Any:
        return methods_of(self)

    @method("near.by")
    async def by(self, params: Empty) -> int:
        """The host's process."""
        return os.getpid()


@pytest.fixture
async def host(open_host: Any) -> AsyncIterator[Host]:
    async with open_host(sources=[folder_source(PROJECT), InlineSource("near", Neighbour, ["near."])]) as opened:
        yield opened


@pytest.fixture
def client(host: Host) -> DirectClient:
    return host.client("somebody")


@pytest.fixture
def rude(host: Host) -> Extension:
    return host.lifecycle.extensions["test"]


async def crashed(client: DirectClient, name: str, params: Any = None) -> RpcError:
    with anyio.fail_after(10), pytest.raises(RpcError) as caught:
        await client.call(name, params)
    assert (caught.value.code, caught.value.type, caught.value.retryable) == (-32011, "extension_crashed", True)
    assert caught.value.data == {"extension": "test"}
    return caught.value


def gone(pid: int) -> bool:
    """Whether a process has ended: there is none, or only its status is left."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(condition: Callable[[], bool], limit: float) -> float:
    """Wait for something outside of this process, which tells nobody; returns the seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit
        time.sleep(0.005)
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("name", "params", "how"),
    [
        ("rude.exit", {"value": 7}, "ended with status 7"),
        ("rude.exit", {"value": 0}, "ended with status 0"),
        ("rude.segfault", {}, "was ended by SIGSEGV"),
        ("rude.kill", {}, "was ended by SIGKILL, perhaps for lack of memory"),
    ],
)
async def test_a_crash_is_answered_shown_and_mended(
    client: DirectClient, rude: Extension, name: str, params: Any, how: str
) -> None:
    before = await client.call("rude.pid")
    assert (await crashed(client, name, params)).message == f"extension test: its process {how}"
    assert rude.failure is not None
    assert (rude.state, rude.failure.stage, rude.failure.message) == (State.ACTIVE, "process", f"its process {how}")
    with anyio.fail_after(10):
        assert await client.call("rude.pid") not in (before, os.getpid())
    assert gone(before)


async def test_every_call_inside_is_answered_once_and_nobody_else_notices(client: DirectClient) -> None:
    answers: list[RpcError] = []

    async def waiting() -> None:
        answers.append(await crashed(client, "test.wait"))

    async def streaming() -> None:
        async with client.stream("test.drip", {"value": 1_000_000}) as stream:
            with pytest.raises(RpcError) as caught:
                await stream.result()
        answers.append(caught.value)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(waiting)
                group.start_soon(streaming)
            await client.call("test.until", {"text": "running"})
            await crashed(client, "rude.exit", {"value": 1})
            assert await client.call("near.by") == os.getpid()
    assert [error.type for error in answers] == ["extension_crashed"] * 40


async def test_a_call_that_comes_while_it_is_down_waits_for_the_next_process(client: DirectClient) -> None:
    await client.call("rude.pid")
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(crashed, client, "rude.kill")
            await anyio.lowlevel.checkpoint()
            found: list[int] = []

            async def ask() -> None:
                found.append(await client.call("rude.pid"))

            await crashed(client, "rude.kill")
            for _ in range(10):
                group.start_soon(ask)
    assert len(found) == 10
    assert len(set(found)) == 1


async def test_a_blocked_event_loop_is_ended_once_it_does_not_answer(
    client: DirectClient, rude: Extension, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "PULSE", 0.05)
    pid = await client.call("rude.pid")
    error = await crashed(client, "rude.block")
    assert "its event loop is blocked" in error.message
    assert rude.failure is not None
    assert "time.sleep(1000)" in linecache.getline(rude.failure.file, rude.failure.line)
    assert gone(pid)
    assert await client.call("near.by") == os.getpid()
    assert await client.call("rude.pid") != pid


async def test_a_regular_expression_without_end_is_ended_too(
    client: DirectClient, rude: Extension, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "PULSE", 0.05)
    assert "its event loop is blocked" in (await crashed(client, "rude.spin")).message
    assert rude.failure is not None
    assert "re.match" in linecache.getline(rude.failure.file, rude.failure.line)


async def test_a_segmentation_fault_is_shown_with_the_line_that_caused_it(
    client: DirectClient, rude: Extension, caplog: pytest.LogCaptureFixture
) -> None:
    await crashed(client, "rude.segfault")
    assert rude.failure is not None
    assert "ctypes.string_at(0)" in linecache.getline(rude.failure.file, rude.failure.line)
    assert "Segmentation fault" in caplog.text


async def test_a_long_call_that_does_not_block_is_let_be(client: DirectClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PULSE", 0.01)
    pulses = anyio.Event()
    looked = link.Link._look
    count = 0

    def look(self: link.Link) -> None:
        nonlocal count
        looked(self)
        count += 1
        if count > 3 * link.PATIENCE:
            pulses.set()

    monkeypatch.setattr(link.Link, "_look", look)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(client.call, "test.wait")
            await client.call("test.until", {"text": "running"})
            await pulses.wait()
            await client.call("test.let")


async def test_what_is_written_to_its_channel_ends_it_and_nobody_else(client: DirectClient) -> None:
    before = await client.call("rude.pid")
    error = await crashed(client, "rude.scribble")
    assert "channel" in error.message or "ended with status 1" in error.message
    assert await client.call("near.by") == os.getpid()
    assert await client.call("rude.pid") != before


async def test_closing_its_channel_ends_it(client: DirectClient) -> None:
    before = await client.call("rude.pid")
    await crashed(client, "rude.close")
    assert await client.call("rude.pid") != before
    assert gone(before)


async def test_five_crashes_are_enough_and_enabling_is_the_way_back(
    host: Host, client: DirectClient, rude: Extension, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF", (0.0,) * 4)
    quarantined = anyio.Event()

    def hear(event: Event) -> None:
        if event.name == "extensions.changed" and event.data["state"] == "quarantined":
            quarantined.set()

    with host.bus.subscribe(hear), anyio.fail_after(20):
        for _ in range(5):
            await crashed(client, "rude.kill")
        await quarantined.wait()
    assert rude.failure is not None
    assert (rude.failure.stage, rude.state) == ("process", State.QUARANTINED)
    with pytest.raises(RpcError) as caught:
        await client.call("rude.pid")
    assert caught.value.type == "extension_unavailable"
    assert "SIGKILL" in caught.value.message
    await client.call("extensions.enable", {"id": "test"})
    assert await client.call("rude.pid") != os.getpid()


async def test_one_that_cannot_be_started_again_is_quarantined(
    host: Host, client: DirectClient, rude: Extension, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF", (0.0,) * 4)
    (host.data_dir / "test" / "die").touch()
    await crashed(client, "rude.kill")
    with anyio.fail_after(20), pytest.raises(RpcError) as caught:
        await client.call("rude.pid")
    assert (caught.value.type, caught.value.data["state"]) == ("extension_unavailable", "quarantined")
    assert rude.failure is not None
    assert rude.failure.message.endswith("its process ended with status 5")


async def test_installed_code_that_changed_meanwhile_is_not_taken_for_the_old(tmp_path: Path) -> None:
    project = project_of(tmp_path / "project", (PROJECT / "src/jan_isolated/plugin.py").read_text())
    shutil.copy(PROJECT / "src/jan_isolated/sample.py", project / "jan_isolated")
    source = folder_source(project)
    assert isinstance(source, PackageSource)
    manifest, _ = source.manifest("1.0")
    first = starter.Starter(source, manifest, 1, source.read(None))
    first.start().close()
    first.start().close()  # the same again
    plugin = project / "jan_isolated" / "plugin.py"
    plugin.write_text(plugin.read_text().replace("rude.pid", "rude.pod"))
    first._hello.snapshot = starter.Starter(source, manifest, 1, source.read(None))._hello.snapshot
    with pytest.raises(StageError) as caught:
        first.start()
    assert caught.value.failure.type == "Changed"


async def test_an_import_without_end_is_given_up(
    open_host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starter, "IMPORT_LIMIT", 1.0)
    project = project_of(tmp_path / "project", "import time; time.sleep(1000)")
    with anyio.fail_after(10):
        async with open_host(sources=[folder_source(project)]) as host:
            failure = host.lifecycle.extensions["test"].failure
    assert failure is not None
    assert (failure.stage, failure.message) == ("process", "it had not been imported after 1 s")


async def test_the_pause_before_the_next_process_grows() -> None:
    assert list(supervisor.BACKOFF) == sorted(supervisor.BACKOFF)
    assert supervisor.BACKOFF[0] == 0


async def test_a_flood_of_events_is_read_at_a_bounded_rate_and_others_are_served(
    host: Host, client: DirectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "NOTICES_A_SECOND", 5_000.0)
    heard: list[float] = []

    def hear(event: Event) -> None:
        if event.name == "test.flood":
            heard.append(time.monotonic())

    began = time.monotonic()
    slowest = 0.0
    with host.bus.subscribe(hear), anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(client.call, "rude.flood", {"value": 20_000})
            for _ in range(100):
                asked = time.monotonic()
                await client.call("near.by")
                slowest = max(slowest, time.monotonic() - asked)
                await anyio.sleep(0.001)
    seconds = heard[-1] - began
    assert len(heard) / seconds < 10_000  # an extension in this process emits several times as many
    assert slowest < 0.5


async def test_print_and_its_children_reach_standard_error_and_the_log_reaches_the_log(
    capfd: pytest.CaptureFixture[str], open_host: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # Opened in here: the child inherits what standard error is now.
    async with open_host(sources=[folder_source(PROJECT)]) as host:
        await host.client().call("rude.loud", {"text": "tea"})
    out, err = capfd.readouterr()
    assert out == ""
    assert {"tea", "raw tea", "from a child"} <= set(err.splitlines())
    assert ("jan.test", logging.WARNING, "logged tea") in caplog.record_tuples


async def test_what_it_started_ends_with_it(client: DirectClient) -> None:
    offspring = await client.call("rude.offspring")
    assert not gone(offspring)
    await crashed(client, "rude.exit", {"value": 1})
    wait_until(lambda: gone(offspring), 5)


async def test_crashes_and_ends_leave_no_descriptors_and_no_threads(
    open_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF", (0.0,) * 4)

    async def one() -> int:
        async with open_host(sources=[folder_source(PROJECT)]) as host:
            client = host.client()
            for _ in range(2):
                await crashed(client, "rude.kill")
            await client.call("rude.pid")
        wait_until(lambda: not [t for t in threading.enumerate() if t.name == "child test"], 5)
        return open_descriptors()

    with anyio.fail_after(30):
        first = await one()
        assert await one() == first


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_failing_background_task_is_on_the_record(client: DirectClient, rude: Extension) -> None:
    await client.call("rude.task")
    with anyio.fail_after(5):
        while rude.failure is None:
            await client.call("rude.pid")
    assert (rude.failure.stage, rude.failure.type, rude.failure.message) == ("task", "LookupError", "no tea left")
    assert rude.failure.file.endswith("plugin.py")


# -- start and end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "stage", "message"),
    [("refuse", "activate", "it refuses to start"), ("die", "activate", "its process ended with status 5")],
)
async def test_what_fails_in_activation_is_an_ordinary_failure(
    open_host: Any, tmp_path: Path, file: str, stage: str, message: str
) -> None:
    (tmp_path / "data" / "test").mkdir(parents=True)
    (tmp_path / "data" / "test" / file).touch()
    async with open_host(sources=[folder_source(PROJECT)]) as host:
        failure = host.lifecycle.extensions["test"].failure
    assert failure is not None
    assert (failure.stage, failure.message.endswith(message)) == (stage, True)


@pytest.mark.parametrize(
    ("code", "stage", "message"),
    [
        ("import nowhere", "import", "No module named 'nowhere'"),
        ("import os; os._exit(4)", "process", "its process ended with status 4 while it was imported"),
        ("raise SystemExit(3)", "import", "3"),
        ("from jan_core import hookimpl\nclass Isolated:\n    @hookimpl\n    def jan_x(self): pass", "validate", None),
    ],
)
async def test_what_fails_in_import_is_an_ordinary_failure(
    open_host: Any, tmp_path: Path, code: str, stage: str, message: str | None
) -> None:
    project = project_of(tmp_path / "project", code)
    async with open_host(sources=[folder_source(project)]) as host:
        failure = host.lifecycle.extensions["test"].failure
    assert failure is not None
    assert failure.stage == stage
    assert message in (failure.message, None)


def project_of(folder: Path, code: str) -> Path:
    package = folder / "jan_isolated"
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_bytes((PROJECT / "pyproject.toml").read_bytes())
    (package / "__init__.py").touch()
    (package / "plugin.py").write_text(code)
    return folder


async def test_an_object_at_hand_cannot_be_isolated(open_host: Any) -> None:
    source = InlineSource("near", Neighbour, ["near."])
    source._manifest.isolation = "process"
    async with open_host(sources=[source]) as host:
        failure = host.lifecycle.extensions["near"].failure
    assert failure is not None
    assert "only a package" in failure.message


async def test_it_is_deactivated_and_disposed_of_and_its_process_is_gone_at_once(
    open_host: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_host(sources=[folder_source(PROJECT)]) as host:
        pid = await host.client().call("rude.pid")
    assert gone(pid) or wait_until(lambda: gone(pid), 1.0)
    told = [record.message for record in caplog.records if record.name == "jan.test"]
    assert told[-2:] == ["deactivated", "disposed of"]


@pytest.mark.parametrize("stays", [False, True])
async def test_the_end_of_the_host_does_not_wait_for_one_that_blocks(
    open_host: Any, tmp_path: Path, stays: bool
) -> None:
    async with open_host(sources=[folder_source(PROJECT)]) as host:
        client = host.client()
        pid = await client.call("rude.pid")
        if stays:
            (tmp_path / "data" / "test" / "stay").touch()
        else:
            blocked = asyncio.create_task(client.call("rude.block"))
            await client.call("test.until", {"text": "running"})
        began = time.monotonic()
    assert time.monotonic() - began < 3.0
    wait_until(lambda: gone(pid), 1.0)
    if not stays:
        with pytest.raises(RpcError):
            await blocked


HOST = """
    import asyncio, sys, tempfile
    from pathlib import Path
    from jan_core.host import Host
    from jan_core.loader import PackageSource, StageError, folder_source

    async def main():
        async with Host(Path(sys.argv[1]), sources=[folder_source(Path(sys.argv[2]))]) as host:
            await host.activate_startup()
            client = host.client()
            print(await client.call("rude.pid"), await client.call("rude.offspring"), flush=True)
            await client.call(sys.argv[3])

    asyncio.run(main())
"""


@contextmanager
def host_process(tmp_path: Path, method: str) -> Any:
    script = tmp_path / "host.py"
    script.write_text(textwrap.dedent(HOST))
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "data"), str(PROJECT), method], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, [int(pid) for pid in process.stdout.readline().split()]
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("busy", ["test.wait", "rude.block", "rude.spin"])
def test_it_never_outlives_a_host_that_is_killed(tmp_path: Path, busy: str) -> None:
    with host_process(tmp_path, busy) as (process, pids):
        child, offspring = pids
        cpu = wait_until(lambda: busy != "rude.spin" or spinning(child), 10)
        assert cpu < 10
        process.send_signal(signal.SIGKILL)
        limit = 1.0 if sys.platform == "linux" else 4.0
        wait_until(lambda: gone(child) and gone(offspring), limit)


def spinning(pid: int) -> bool:
    """Whether a process computes: its time on the processor has passed a tenth of a second since its start."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) > 60
