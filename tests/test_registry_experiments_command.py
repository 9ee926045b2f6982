"""`jan registry experiments` as an operator and a person type it, with a real hub; and what is revoked, with a real
engine."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from jan_llamacpp.embedded import EMBEDDED_MODEL

from extensions.registry.tests.hubmaker import Hub

from .conftest import Jan

EXPERIMENT: dict[str, Any] = {
    "kind": "experiment",
    "id": "order",
    "branches": [{"id": "control"}, {"id": "small", "slot": "small"}],
}


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    hub = Hub(tmp_path).models("org/a", "org/b").set("flags", [EXPERIMENT])
    slots: list[dict[str, Any]] = [{"id": "default", "models": ["org/a", "org/b"], "priority": 1}]
    slots.append({"id": "small", "models": ["org/b", "org/a"]})
    hub.set("featured", slots).publish()
    return hub


@pytest.fixture
def own_jan(jan: Jan, hub: Hub, data_dir: Path, tmp_path: Path) -> Jan:
    """A house that follows the hub, in the last phase."""
    root = tmp_path / "1.root.json"
    root.write_bytes(hub.root)
    settings = {"url": hub.url, "root": str(root), "phase": "dynamic", "refresh_seconds": 0}
    (data_dir / "settings.json").write_text(json.dumps({"registry": settings}))
    assert jan("registry", "refresh").returncode == 0
    return jan


def test_experiments_are_told_exported_added_up_and_left(own_jan: Jan, tmp_path: Path) -> None:
    assert own_jan("registry", "featured").returncode == 0
    told = own_jan("registry", "experiments")
    assert told.returncode == 0, told.stderr
    assert "this machine is in" in told.stderr
    rows = [line.split("\t")[:4] for line in told.stdout.splitlines()]
    assert [row[:2] for row in rows] == [["order", "control"], ["order", "small"]]
    assert sorted(row[2:] for row in rows) == [["0", "0"], ["1", "1"]], "drawn and shown, by another process"
    exported = json.loads(own_jan("registry", "experiments", "--export").stdout)
    folder = tmp_path / "collected"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.json").write_text(json.dumps(exported))
    summed = json.loads(own_jan("registry", "experiments", "--merge", str(folder), "--only-merged", "--json").stdout)
    [report] = summed["experiments"]
    assert sum(branch["enrolled"] for branch in report["branches"]) == 3
    assert own_jan("registry", "experiments", "--join", "order", "small").returncode == 0
    answer = json.loads(own_jan("registry", "featured", "--json").stdout)
    assert ([each["id"] for each in answer["models"]], answer["branch"]) == (["org/b", "org/a"], "small")
    assert own_jan("registry", "experiments", "--leave", "order").stderr == "this machine has left order\n"
    assert own_jan("registry", "experiments", "--opt-out").returncode == 0
    told = own_jan("registry", "experiments")
    assert "this machine takes part in no experiment" in told.stderr
    assert json.loads(own_jan("registry", "experiments", "--export").stdout) == []


MISTAKES = [
    (["--join", "order", "none"], 1, "has no branch 'none'"),
    (["--leave", "none"], 1, "the list has no experiment 'none'; it has: order"),
    (["--leave", "order", "--opt-in"], 2, "at a time"),
    (["--merge", "not json"], 1, "is not JSON"),
    (["--merge", "3"], 1, "holds no counts"),
    (["--merge", '[{"experiment": "e"}]'], 1, "merge[0]"),
]


def test_what_makes_no_sense_is_one_line(own_jan: Jan, tmp_path: Path) -> None:
    for arguments, status, words in MISTAKES:
        if arguments[0] == "--merge":
            file = tmp_path / "counts.json"
            file.write_text(arguments[1])
            arguments = ["--merge", str(file)]
        done = own_jan("registry", "experiments", *arguments)
        assert (done.returncode, words in done.stderr) == (status, True), done.stderr


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A folder with a model's file under two names, on loopback."""
    folder = tmp_path / "served"
    folder.mkdir()
    for name in ("twin.gguf", "again.gguf"):
        shutil.copy(EMBEDDED_MODEL, folder / name)
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *args: None})
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(folder)))
    thread = threading.Thread(target=web.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{web.server_port}"
    web.shutdown()
    thread.join()
    web.server_close()


def test_a_pulled_model_is_known_by_its_hash_and_not_loaded_once_that_is_revoked(
    own_jan: Jan, hub: Hub, server: str
) -> None:
    assert own_jan("models", "pull", f"{server}/twin.gguf", "--id", "twin").returncode == 0
    assert own_jan("chat", "-m", "twin", "hello").stdout.strip()
    sha256 = hashlib.sha256(EMBEDDED_MODEL.read_bytes()).hexdigest()
    hub.set("revocations", [{"id": "r", "reason": "it talks too much", "sha256": sha256}]).publish()
    assert own_jan("registry", "refresh").returncode == 0
    done = own_jan("chat", "-m", "twin", "hello")
    assert (done.returncode, done.stdout) == (1, "")
    assert "twin is not loaded: refused by registry: the operator of the model list has revoked it" in done.stderr
    assert "it talks too much" in done.stderr
    done = own_jan("models", "pull", f"{server}/again.gguf", "--sha256", sha256)
    assert done.returncode == 1
    assert "it talks too much" in done.stderr
