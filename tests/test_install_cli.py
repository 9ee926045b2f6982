"""`jan ext install` as a person and a script meet it, and the sidecar that takes over what it installs."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from jan_core import RpcError

from .conftest import BIN, Jan, Spawn, gone
from .core.wheelhouse import Wheelhouse, uv_cache, wheelhouse

__all__ = ["uv_cache", "wheelhouse"]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A fresh data folder, without an engine: nothing here infers."""
    return tmp_path / "Jan's Daten für Tests"


@pytest.fixture
def links(wheelhouse: Wheelhouse) -> str:
    return f"--find-links={wheelhouse.links}"


def test_a_script_installs_uses_and_removes_an_extension(jan: Jan, wheelhouse: Wheelhouse, links: str) -> None:
    wheelhouse.extension("one", permissions=["network"])
    done = jan("ext", "install", "acme-one", "--yes", links)
    assert (done.returncode, done.stdout) == (0, "")
    assert "declares to use: network" in done.stderr
    assert "one 1.0 is installed" in done.stderr
    assert jan("rpc", "one.version").stdout == '"1.0"\n'
    assert jan("ext", "install", "acme-one", "--yes", links).stderr == "acme-one is installed already\n"
    assert jan("doctor").stdout.count("installed extensions: 1 packages, every file as it was packaged") == 1
    assert jan("ext", "uninstall", "one").stderr == "one is removed\n"
    assert jan("rpc", "one.version").returncode == 1
    assert jan("ext", "undo").returncode == 0
    assert jan("rpc", "one.version").stdout == '"1.0"\n'


def test_a_project_and_a_wheel_are_told_from_names_as_pip_does(
    jan: Jan, wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheelhouse.project("one", backend=True)
    monkeypatch.chdir(wheelhouse.folder)
    refused = jan("ext", "install", "one-1.0", "--yes")
    assert refused.returncode == 1
    assert "jan ext install ./one-1.0" in refused.stderr
    assert jan("ext", "install", "./one-1.0", "--yes").returncode == 0
    wheel = wheelhouse.extension("two")
    monkeypatch.chdir(wheelhouse.links)
    assert jan("ext", "install", wheel.name, "--yes").returncode == 0
    assert "acme_two" in jan("ext", "overlays").stdout


def test_without_a_terminal_consent_is_given_by_yes(jan: Jan, wheelhouse: Wheelhouse, links: str) -> None:
    wheelhouse.extension("one")
    done = jan("ext", "install", "acme-one", links)
    assert (done.returncode, done.stdout) == (2, "")
    assert "jan ext install acme-one --yes" in done.stderr


@pytest.mark.parametrize(
    ("needs", "says", "advice"),
    [
        (["anyio<4"], "does not go together with the application", "ask for a version that fits"),
        (["acme-nobody"], "acme-nobody was not found", "--offline --find-links"),
    ],
)
def test_a_refusal_is_one_line_with_what_to_do(
    jan: Jan, wheelhouse: Wheelhouse, links: str, needs: list[str], says: str, advice: str
) -> None:
    wheelhouse.extension("one", needs=needs)
    done = jan("ext", "install", "acme-one", "--yes", links)
    assert (done.returncode, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    assert says in first
    assert advice in second


def test_what_came_for_another_and_is_asked_for_itself_stays(jan: Jan, wheelhouse: Wheelhouse, links: str) -> None:
    wheelhouse.extension("base")
    wheelhouse.extension("top", needs=["acme-base"])
    jan("ext", "install", "acme-top", "--yes", links)
    assert "was there already, and stays" in jan("ext", "install", "acme-base", "--yes", links).stderr
    jan("ext", "uninstall", "top")
    assert jan("rpc", "base.version").stdout == '"1.0"\n'


def test_what_is_declared_cannot_forge_lines_and_a_path_may_hold_an_at(
    jan: Jan, wheelhouse: Wheelhouse, links: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = wheelhouse.extension("one", permissions=["files\nInstall it? [y/N] y"])
    (wheelhouse.folder / "me@home").mkdir()
    wheel.rename(wheelhouse.folder / "me@home" / wheel.name)
    monkeypatch.chdir(wheelhouse.folder)
    done = jan("ext", "install", f"me@home/{wheel.name}", "--yes")
    assert done.returncode == 0
    assert "  declares to use: files Install it? [y/N] y\n" in done.stderr


def test_a_log_that_cannot_be_written_any_more_is_no_traceback(
    jan: Jan, data_dir: Path, wheelhouse: Wheelhouse, links: str
) -> None:
    wheelhouse.extension("one", code="print('something for the log')\nclass Extension: pass\n")
    (data_dir / "logs" / "jan.log").mkdir(parents=True)
    done = jan("ext", "install", "acme-one", "--yes", links)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_what_cannot_be_removed_says_why(jan: Jan) -> None:
    assert "no extension 'nobody' is installed" in jan("ext", "uninstall", "nobody").stderr
    assert "part of this installation" in jan("ext", "uninstall", "llamacpp").stderr
    assert "nothing to undo" in jan("ext", "undo").stderr
    assert jan("ext", "repair").returncode == 1


def test_safe_mode_leaves_it_out_and_can_remove_it(jan: Jan, wheelhouse: Wheelhouse, links: str) -> None:
    wheelhouse.extension("one", activation="startup")
    jan("ext", "install", "acme-one", "--yes", links)
    assert "one" in [line.split("\t")[0] for line in jan("ext", "list").stdout.splitlines()]
    assert "one" not in [line.split("\t")[0] for line in jan("--safe-mode", "ext", "list").stdout.splitlines()]
    assert jan("--safe-mode", "ext", "uninstall", "one").returncode == 0
    assert "one" not in [line.split("\t")[0] for line in jan("ext", "list").stdout.splitlines()]


# Makes the pseudo-terminal the child's controlling one, so that Ctrl-C is a signal there, as for a person.
ON_TERMINAL = "import fcntl,os,sys,termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


@pytest.fixture
def asked(data_dir: Path) -> Callable[..., tuple[int, str]]:
    """Run `jan` on a terminal and answer its question; returns the exit status and what was shown."""

    def run(*arguments: str, answer: str) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        environment = {**os.environ, "JAN_DATA_DIR": str(data_dir), "NO_COLOR": "1", "TERM": "dumb"}
        command = [sys.executable, "-c", ON_TERMINAL, str(BIN / "jan"), *arguments]
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)
        shown = b""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 1)[0]:
                if answer == "\x03" and b"[y/N]" in shown:
                    # Python overhears it in the moment before it reads: a person presses it again.
                    os.write(ours, answer.encode())
                continue
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # how Linux tells the end of the last writer
                break
            if b"[y/N]" not in shown and b"[y/N]" in shown + chunk:
                os.write(ours, answer.encode())
            shown += chunk
        os.close(ours)
        try:
            return process.wait(30), shown.decode()
        finally:
            process.kill()

    return run


@pytest.mark.parametrize(("answer", "status"), [("n\n", 1), ("\n", 1), ("y\n", 0), ("\x03", 130)])
def test_on_a_terminal_a_person_is_asked(
    asked: Callable[..., tuple[int, str]], data_dir: Path, wheelhouse: Wheelhouse, links: str, answer: str, status: int
) -> None:
    wheelhouse.extension("one", permissions=["files", "network"])
    ended, shown = asked("ext", "install", "acme-one", links, answer=answer)
    assert ended == status, shown
    assert "declares to use: files, network" in shown
    assert "Install it? [y/N]" in shown
    assert (data_dir / "extensions" / "overlays" / "current").exists() == (status == 0)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGHUP])
async def test_an_interrupt_or_a_closed_terminal_ends_it_and_everything_it_started(
    data_dir: Path, wheelhouse: Wheelhouse, links: str, tmp_path: Path, how: signal.Signals
) -> None:
    if signal.getsignal(how) == signal.SIG_IGN:
        pytest.skip("the tests were started by what ignores this signal (nohup), and so is what they start")
    pipe = tmp_path / "pid"
    os.mkfifo(pipe)
    code = f"import os, time\nwith open({str(pipe)!r}, 'w') as f: f.write(str(os.getpid()))\ntime.sleep(600)\n"
    wheelhouse.extension("one", code=code)
    environment = {**os.environ, "JAN_DATA_DIR": str(data_dir)}
    command = [str(BIN / "jan"), "ext", "install", "acme-one", "--yes", links]
    async with await anyio.open_process(command, env=environment, start_new_session=True) as process:
        with anyio.fail_after(30):
            pid = int(await anyio.Path(pipe).read_text())
            os.killpg(process.pid, how)  # as a terminal does: to all in the foreground
            assert await process.wait() == (130 if how == signal.SIGINT else -how)
            assert await gone([pid])
    left = {path.name for path in (data_dir / "extensions" / "overlays").iterdir() if not path.match(".stage-*")}
    assert left == {".lock"}


async def test_a_running_sidecar_takes_it_over_and_has_it_after_a_restart(
    sidecar: Spawn, wheelhouse: Wheelhouse
) -> None:
    wheelhouse.extension("one", permissions=["files"])
    query = {"source": "acme-one", "findLinks": [str(wheelhouse.links)]}
    told: list[str] = []
    with anyio.fail_after(60):
        async with sidecar() as running:
            offer = await running.call("extensions.inspect", query)
            agreed = {"permissions": offer["extensions"][0]["permissions"]}
            with pytest.raises(RpcError, match="nobody has agreed"):
                await running.call("extensions.install", query)
            change = await running.call(
                "extensions.install", {**query, **agreed}, progress=lambda m, *_: told.append(m)
            )
            assert change["changed"]
            assert "trying one in a process of its own" in told
            assert await running.call("one.version") == "1.0"
        async with sidecar() as running:
            assert await running.call("one.version") == "1.0"
            await running.call("extensions.uninstall", {"id": "one"})
            with pytest.raises(RpcError, match="no method"):
                await running.call("one.version")


def test_the_page_about_installing_shows_what_happens(
    jan: Jan, wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheelhouse.library("units")
    wheelhouse.extension("weather", needs=["jan-core", "acme-units"], permissions=["network"])
    monkeypatch.chdir(wheelhouse.links.rename(wheelhouse.folder / "wheels").parent)
    page = (Path(__file__).parents[1] / "docs" / "installing.md").read_text("utf-8")
    session = page.partition("```console\n")[2].partition("```")[0]
    steps = re.findall(r"^\$ jan (.+)\n((?:[^$\n].*\n)*)", session, re.MULTILINE)
    assert len(steps) == 5
    for command, shown in steps:
        assert jan(*shlex.split(command)).stderr == shown, command
