"""Offline mode opens no socket that leaves this machine, and asks for no name: seen by watching the sockets.

Twice: the process's own audit hook sees what Python asks for, names included; strace, where it may be used, sees every
process of the house and what native code does. Each is shown to see: the same house, allowed to, does connect.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import Jan

PROGRAM = Path(__file__).with_name("quiet_house.py")
FAR = "https://192.0.2.1/v1"
"""An address that is nobody's (RFC 5737)."""
NAMED = "https://api.example.invalid/v1"
"""A name that is nobody's (RFC 6761)."""
LOOPBACK = re.compile(r"127\.\d+\.\d+\.\d+|::1")


def run(data_dir: Path, base_url: str, trace: Path | None = None, **settings: Any) -> tuple[list[list[str]], Any]:
    """The events of sockets, and what the calls came to."""
    strace = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace)] if trace else []
    environment = {**os.environ, "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    done = subprocess.run(
        [*strace, sys.executable, PROGRAM, data_dir, json.dumps(settings), base_url],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return answer["seen"], answer["outcomes"]


def away(seen: list[list[str]]) -> list[list[str]]:
    """Those that are not to this machine itself: a Unix socket's address is a path, a loopback one a number."""
    return [
        [event, where]
        for event, where in seen
        if not (event.startswith(("socket.connect", "socket.send")) and (where[:1] != "(" or LOOPBACK.search(where)))
    ]


def traced_away(trace: Path) -> list[str]:
    """The lines of a trace that name an address which is not this machine's."""
    lines = trace.read_text("utf-8", "replace").splitlines()
    return [line for line in lines if "sa_family=AF_INET" in line and not LOOPBACK.search(line)]


@pytest.fixture
def strace() -> None:
    """Skips where processes may not be traced."""
    if shutil.which("strace") is None or subprocess.run(["strace", "-qq", "true"], capture_output=True).returncode:
        pytest.skip("processes cannot be traced here")


@pytest.mark.parametrize("base_url", [FAR, NAMED])
def test_offline_the_whole_house_works_and_nothing_leaves_the_machine(data_dir: Path, base_url: str) -> None:
    seen, outcomes = run(data_dir, base_url, routing="offline")
    assert away(seen) == []
    refused = {name for name, outcome in outcomes.items() if outcome == "request_refused"}
    assert refused == {"remotes.test", "remotes.complete", "remote chat", "remote run"}
    assert outcomes["unknown chat"] == "model_not_found"
    assert (outcomes["downloads.start"], outcomes["registry.refresh"]) == ("download_refused", "registry_unreachable")
    assert outcomes["search elsewhere"] == "hub_refused"
    worked = {name: outcome for name, outcome in outcomes.items() if "," in outcome}
    assert {"chat.complete", "completions.create", "tokens.count", "threads.run", "models.load"} <= set(worked)


@pytest.mark.usefixtures("strace")
def test_offline_no_process_of_the_house_connects_elsewhere(data_dir: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    _, outcomes = run(data_dir, NAMED, trace, routing="offline")
    assert traced_away(trace) == []
    assert "choices" in outcomes["chat.complete"]


@pytest.mark.usefixtures("strace")
def test_offline_an_engine_that_is_not_installed_is_not_fetched(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    seen, outcomes = run(tmp_path / "data", FAR, trace, routing="offline")
    assert away(seen) == []
    assert traced_away(trace) == []
    # From what uv has here already, or not at all.
    assert outcomes["engines.install"].startswith("engine_install_failed") or "origin" in outcomes["engines.install"]


@pytest.mark.usefixtures("strace")
def test_the_watchers_see_what_is_sent_where_it_may_be(data_dir: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    seen, outcomes = run(data_dir, FAR, trace, routing="remote-allowed")
    assert ["socket.connect", "('192.0.2.1', 443)"] in away(seen)
    assert any("192.0.2.1" in line for line in traced_away(trace))
    assert outcomes["remotes.complete"] == outcomes["remote chat"] == outcomes["remote run"] == "remote_unreachable"
    seen, _ = run(data_dir, NAMED, routing="remote-allowed")
    assert any(event == "socket.getaddrinfo" and "api.example.invalid" in where for event, where in away(seen))


@pytest.mark.parametrize(
    "command",
    [
        ["downloads", "start", f"{FAR}/x.gguf"],
        ["models", "pull", f"{FAR}/x.gguf"],
        ["models", "pull", "smollm2-135m-instruct"],
        ["rpc", "downloads.start", f'{{"file": {{"name": "x.gguf", "url": "{FAR}/x.gguf", "sha256": "{"0" * 64}"}}}}'],
    ],
    ids=" ".join,
)
def test_a_command_of_its_own_process_fetches_nothing_in_offline_mode(jan: Jan, command: list[str]) -> None:
    assert jan("settings", "set", "llamacpp.routing", "offline").returncode == 0
    done = jan(*command)
    assert (done.returncode, done.stdout) == (1, "")
    assert "offline mode is on" in done.stderr.splitlines()[0]
    assert json.loads(jan("downloads", "list", "--json").stdout) == []
