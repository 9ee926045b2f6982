"""An installation that is killed, starved of disk or stopped half-way: the old set serves, the next one cleans up."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from jan_core.errors import InstallFailed
from jan_core.host import Host
from jan_core.install.installer import Installer
from jan_core.install.overlay import Overlays
from jan_core.install.report import findings
from jan_core.install.resolve import Places

from .test_install_overlay import install
from .wheelhouse import Wheelhouse, uv_cache, wheelhouse

__all__ = ["uv_cache", "wheelhouse"]

STRIDE = 1 if os.environ.get("JAN_TEST_LONG") else 16
"""An installation is killed at each of so many steps: at every one where JAN_TEST_LONG is set."""

KILLED = """
    import anyio, os, pathlib, signal, sys
    from jan_core.install import overlay, packages, proposal
    from jan_core.install.installer import Installer
    from jan_core.install.resolve import Places

    data, links, left = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

    def counted(function):
        def call(*args, **options):
            global left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return function(*args, **options)
        return call

    # Every way in which an installation changes a folder. Each call may be the last thing that happens.
    os.fsync, os.link = counted(os.fsync), counted(os.link)
    for name in ("rename", "replace", "mkdir", "unlink", "write_text"):
        setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
    overlay._delete = counted(overlay._delete)
    proposal._checked = counted(proposal._checked)

    async def main():
        installer = Installer(data)
        async with installer.locked(), installer.proposed("acme-two", Places(find_links=(links,))) as offer:
            await installer.smoke(offer)
            await installer.commit(offer)
    anyio.run(main)
    print("done", left)
"""


async def test_killed_at_any_step_the_old_set_or_the_new_one_serves_whole(
    tmp_path: Path, wheelhouse: Wheelhouse
) -> None:
    data = tmp_path / "data"
    overlays = Overlays(data)
    wheelhouse.extension("one")
    for name in ("zero", "one"):  # so that there is something to remove, too
        wheelhouse.extension(name)
        await install(data, wheelhouse, f"acme-{name}")
    wheelhouse.extension("two")
    old = {"acme-zero", "acme-one"}
    seen: list[frozenset[str]] = []
    for step in range(0, 200, STRIDE):
        command = [sys.executable, "-c", textwrap.dedent(KILLED), str(data), str(wheelhouse.links), str(step)]
        with anyio.fail_after(60):
            done = await anyio.run_process(command, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        serving = frozenset(overlays[overlays.current()].record().versions())
        assert serving in (old, old | {"acme-two"})
        assert [status for status, _, _ in findings(data)] == ["ok"]
        seen.append(serving)
        if serving != old:
            installer = Installer(data)  # on from here, as a person would: remove it again, which also cleans up
            async with installer.locked(), installer.without("two") as proposal:
                await installer.commit(proposal)
            assert sorted(p.name for p in overlays.root.iterdir()) == sorted(
                [".lock", "current", str(overlays.current()), str(proposal.record.previous)]
            )
        if done.returncode == 0:
            break
    assert done.returncode == 0, "it was never let through"
    assert len(seen) > 30 // STRIDE
    assert len(set(seen)) == 2


async def test_the_children_of_a_killed_installation_end(tmp_path: Path, wheelhouse: Wheelhouse) -> None:
    pipe = tmp_path / "pid"
    os.mkfifo(pipe)
    code = f"import os, time\nwith open({str(pipe)!r}, 'w') as f: f.write(str(os.getpid()))\ntime.sleep(600)\n"
    wheelhouse.extension("two", code=code)
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "data"), str(wheelhouse.links), "-1"]
    async with await anyio.open_process(command) as process:
        with anyio.fail_after(30):
            trial = os.pidfd_open(int(await anyio.Path(pipe).read_text()))
            process.kill()
            await anyio.wait_readable(trial)  # it has ended
            os.close(trial)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


async def test_a_full_disk_is_a_clear_refusal_and_the_old_set_serves(small_disk: Path, wheelhouse: Wheelhouse) -> None:
    wheelhouse.extension("one")
    await install(small_disk, wheelhouse, "acme-one")
    wheelhouse.library("big", **{"acme_big__data.py": "# " + os.urandom(200_000).hex()})
    wheelhouse.extension("two", needs=["acme-big"])
    with pytest.raises(InstallFailed, match="the disk is full") as caught:
        await install(small_disk, wheelhouse, "acme-two")
    assert caught.value.data["reason"] == "storage"
    with pytest.raises(InstallFailed, match="the disk is full"):
        await install(small_disk, wheelhouse, str(next(wheelhouse.links.glob("acme_big*"))))
    assert [status for status, _, _ in findings(small_disk)] == ["ok"]
    assert Overlays(small_disk).numbers() == [1]
    wheelhouse.extension("three")
    await install(small_disk, wheelhouse, "acme-three")


@pytest.mark.parametrize("step", ["adopt", "switch"])
async def test_a_disk_that_fails_at_the_last_moment_changes_nothing(
    tmp_path: Path, wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*args: object) -> None:
        raise OSError(5, "Input/output error")

    wheelhouse.extension("one")
    await install(tmp_path, wheelhouse, "acme-one")
    wheelhouse.extension("two")
    with monkeypatch.context() as broken:
        broken.setattr(Overlays, step, fail)
        with pytest.raises(InstallFailed, match="Input/output error"):
            await install(tmp_path, wheelhouse, "acme-two")
    assert Overlays(tmp_path).current() == 1
    await install(tmp_path, wheelhouse, "acme-two")
    assert [status for status, _, _ in findings(tmp_path)] == ["ok"]


@pytest.mark.parametrize("how", ["scope", "task"])
async def test_a_cancellation_at_the_switch_comes_too_late_and_finds_a_whole_installation(
    tmp_path: Path, wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    wheelhouse.extension("one")
    scope = anyio.CancelScope()
    switch, loop = Overlays.switch, asyncio.get_running_loop()

    async def cancel() -> None:
        scope.cancel() if how == "scope" else installing.cancel()

    def cancelling(self: Overlays, number: int) -> None:
        asyncio.run_coroutine_threadsafe(cancel(), loop).result(10)
        switch(self, number)

    async def install() -> None:
        with scope:
            params = {"source": "acme-one", "findLinks": [str(wheelhouse.links)]}
            await host.client().call("extensions.install", params)

    async with Host(tmp_path / "data", sources=[]) as host:
        with monkeypatch.context() as patched, anyio.fail_after(20):
            patched.setattr(Overlays, "switch", cancelling)
            installing = asyncio.create_task(install())
            await asyncio.wait([installing])
        assert installing.cancelled() == (how == "task")
        assert await host.client().call("one.version") == "1.0"


async def test_another_process_s_installation_is_waited_for(tmp_path: Path, wheelhouse: Wheelhouse) -> None:
    code = """
        import anyio, pathlib, sys
        from jan_core.install.installer import Installer
        async def main():
            async with Installer(pathlib.Path(sys.argv[1])).locked():
                print("held", flush=True)
                sys.stdin.read()
        anyio.run(main)
    """
    wheelhouse.extension("one")
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "data")]
    async with await anyio.open_process(command) as holder:
        assert holder.stdout is not None
        assert (await holder.stdout.receive()).startswith(b"held")
        waiting = anyio.Event()
        installer = Installer(tmp_path / "data", lambda message: waiting.set() if "waiting" in message else None)

        async def wait_for_it() -> None:
            async with (
                installer.locked(),
                installer.proposed("acme-one", Places(find_links=(str(wheelhouse.links),))) as proposal,
            ):
                assert holder.returncode is not None
                await installer.commit(proposal)

        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(wait_for_it)
                await waiting.wait()
                holder.kill()  # a holder that dies lets go
                await holder.wait()
    assert Overlays(tmp_path / "data").current() == 1
