"""`jan registry` and `jan models pull` as a person types them: real processes, a real hub, a terminal and a pipe."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from jan_llamacpp.embedded import EMBEDDED_MODEL

from extensions.registry.tests.hubmaker import Hub, model
from sidecar.tests.terminal import Terminal

from .conftest import BIN, Jan

RAVEN = {"name": "Raven", "publisher": "Org", "description": "Says nevermore.", "tags": ["birds", "gguf"]}
FROM = "from {url}, confirmed just now, verified"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A fresh data folder, without an engine: nothing here infers."""
    folder = tmp_path / "Jan's Daten für Tests"
    folder.mkdir()
    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    """Two models, of which one is featured."""
    hub = Hub(tmp_path).models(model("org/raven", **RAVEN), "org/owl")
    hub.set("featured", [{"id": "default", "models": ["org/raven"], "priority": 1}]).publish()
    return hub


def follow(hub: Hub, data_dir: Path, **settings: Any) -> None:
    """Have a house follow the hub, in the last phase."""
    root = data_dir.parent / "1.root.json"
    root.write_bytes(hub.root)
    registry = {"url": hub.url, "root": str(root), "phase": "dynamic"} | settings
    (data_dir / "settings.json").write_text(json.dumps({"registry": registry}))


@pytest.fixture
def own_jan(jan: Jan, hub: Hub, data_dir: Path) -> Jan:
    follow(hub, data_dir)
    assert jan("registry", "refresh").returncode == 0
    return jan


def told(jan: Jan, *arguments: str) -> tuple[str, str, Any]:
    """What a command prints and remarks in a pipe, and its JSON."""
    done = jan("registry", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr, json.loads(jan("registry", *arguments, "--json").stdout)


def test_a_refresh_says_what_it_found_and_what_it_cost(jan: Jan, hub: Hub, data_dir: Path) -> None:
    follow(hub, data_dir)
    out, err, again = told(jan, "refresh")
    assert out == ""
    assert re.fullmatch(r"updated: 2 models \(2 new, 0 changed, 0 gone; \d+ requests, \d+ bytes\)\n", err)
    assert (again["outcome"], again["models"], again["added"]) == ("unchanged", 2, 0)


def test_what_is_featured_and_found_is_a_line_a_model_and_says_where_it_is_from(own_jan: Jan, hub: Hub) -> None:
    line = "org/raven\tRaven\tapache-2.0\tSays nevermore.\n"
    for arguments in (["featured"], ["search", "birds"], ["search", "RAV", "org"]):
        out, err, answer = told(own_jan, *arguments)
        assert out == line
        assert FROM.format(url=hub.url) in err
        assert "jan models pull MODEL" in err
        assert ([each["id"] for each in answer["models"]], answer["total"]) == (["org/raven"], 1)
    out, err, answer = told(own_jan, "search", "größe", "模型")
    assert (out, err, answer["models"]) == ("", "nothing is found for 'größe 模型'\n", [])
    out, err, _ = told(own_jan, "search", "org", "--limit", "1")
    assert out.count("\n") == 1
    assert "1 of 2 are shown" in err


def test_a_model_is_shown_with_the_files_of_its_variants(own_jan: Jan) -> None:
    out, err, answer = told(own_jan, "show", "org/raven")
    assert {"id\torg/raven", "tags\tbirds, gguf", "publisher\tOrg"} <= set(out.splitlines())
    sha256 = hashlib.sha256(b"org/raven").hexdigest()
    assert f"q4_k_m\tmodel.gguf\t1000000000\t{sha256}\n" in out
    assert "revoked" not in out + err
    assert answer["revoked"] == ""
    done = own_jan("registry", "show", "org/nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("jan: no model 'org/nobody' is known\n")


def test_a_revoked_model_is_shown_as_such_and_found_no_more(own_jan: Jan, hub: Hub) -> None:
    reason = "its weights were tampered with"
    hub.set("revocations", [{"id": "r", "reason": reason, "model": "org/raven"}]).publish()
    assert own_jan("registry", "refresh").returncode == 0
    out, err, answer = told(own_jan, "show", "org/raven")
    assert out.startswith(f"revoked\t{reason}\n")
    assert f"it was revoked ({reason})" in err
    assert answer["revoked"] == reason
    out, err, answer = told(own_jan, "search", "org")
    assert out.startswith("org/owl\t")
    assert ([each["id"] for each in answer["models"]], answer["total"]) == (["org/owl"], 1)
    assert told(own_jan, "featured")[:2] == ("", "nothing is featured; search with: jan registry search WORDS\n")
    done = own_jan("models", "pull", "org/raven")
    assert (done.returncode, reason in done.stderr) == (1, True)


def test_the_other_hubs_are_listed_and_none_is_asked(own_jan: Jan) -> None:
    out, _, answer = told(own_jan, "sources")
    assert [line.split("\t")[0] for line in out.splitlines()] == [each["id"] for each in answer]
    assert "huggingface\tHugging Face\tfalse" in out


def test_the_status_names_hub_key_and_collections(own_jan: Jan, hub: Hub) -> None:
    out, err, answer = told(own_jan, "status")
    fields = dict(line.split("\t") for line in out.splitlines())
    assert (fields["phase"], fields["url"], fields["models"], fields["failures"]) == ("dynamic", hub.url, "2", "0")
    assert "models:verified" in fields["collections"]
    assert FROM.format(url=hub.url) in err
    assert answer["verification"]["status"] == "verified"
    assert "{" not in out + err


def test_the_phase_is_told_in_words_and_what_the_next_needs_as_a_table(jan: Jan, tmp_path: Path) -> None:
    out, _, answer = told(jan, "phase")
    assert "phase\tfallback\n" in out
    assert "open\tspan of syncs\t0 s\tat least 3 d\n" in out
    assert "open\tconflicts\tnothing compared yet\tat most 0\n" in out
    assert "{" not in out
    assert [each["name"] for each in answer["criteria"]] == ["syncs", "span of syncs", "refused syncs", "conflicts"]
    out, err, _ = told(jan, "report")
    assert "conflicts\tnothing compared yet\n" in out
    assert "open\tspan of syncs\t0 s\tat least 3 d\n" in out
    assert "the gate would now stay: " in err
    assert "the two lists were not compared yet\n" in err
    done = jan("registry", "report", "--html", str(tmp_path / "nowhere" / "report.html"))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"jan: .*nowhere.report\.html cannot be written: No such file or directory\n", done.stderr)


def test_on_a_terminal_the_same_are_tables_and_a_narrow_one_has_fewer_columns(own_jan: Jan, data_dir: Path) -> None:
    def screen(columns: int, *arguments: str) -> str:
        environment = {**os.environ, "JAN_DATA_DIR": str(data_dir), "TERM": "xterm", "COLUMNS": str(columns)}
        with Terminal([str(BIN / "jan"), "registry", *arguments], environment) as terminal:
            assert terminal.wait() == 0
            return terminal.plain

    wide, narrow = screen(100, "featured"), screen(40, "featured")
    assert re.search(r"MODEL +NAME +LICENSE +DESCRIPTION", wide)
    assert re.search(r"org/raven +Raven +apache-2.0 +Says nevermore\.", wide)
    assert "LICENSE" not in narrow
    assert re.search(r"org/raven +Raven *\n", narrow)
    assert re.search(r"org/owl +Owl", screen(100, "search", "owl"))
    shown = screen(120, "show", "org/raven")
    assert re.search(r"\ntags +birds, gguf\n", shown)
    assert re.search(r"q4_k_m +model\.gguf +1\.0 GB", shown)
    assert re.search(r"huggingface +Hugging Face +no", screen(100, "sources"))
    assert "unchanged: 2 models" in screen(100, "refresh")
    assert re.search(r"\nmodels +2\n", screen(100, "status"))
    assert re.search(r"phase +dynamic\n", screen(100, "phase"))
    assert json.loads(screen(100, "featured", "--json"))["total"] == 1


class Server:
    """Files by their hash, as an OCI registry serves them on loopback; whatever else is asked for is not there."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.halted, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(self.path)
                content = server.files.get(self.path.rpartition(":")[2])
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[:1000])
                self.wfile.flush()
                server.halted.set()
                server.go_on.wait(30)
                self.wfile.write(content[1000:])

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.web.daemon_threads = True
        self.host = f"127.0.0.1:{self.web.server_port}"

    def model(self, id: str, content: bytes) -> dict[str, Any]:
        """A record whose file is called `model.gguf`, as in every model of some hubs."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.files[sha256] = content
        source = {"kind": "oci", "ref": f"{self.host}/{id}@sha256:{sha256}"}
        file = {"path": "model.gguf", "role": "weights", "size": len(content), "sha256": sha256, "sources": [source]}
        return model(id, files=[file])


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.web.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.go_on.set()
    server.web.shutdown()
    thread.join()
    server.web.server_close()


def test_a_command_that_only_reads_asks_no_hub(jan: Jan, hub: Hub, data_dir: Path, server: Server) -> None:
    follow(hub, data_dir, url=f"http://{server.host}/")
    for arguments in (["status"], ["search", "owl"], ["phase"], ["featured"], ["sources"]):
        assert jan("registry", *arguments).returncode == 0
    assert server.requests == []
    began = datetime.now(UTC)
    answer = json.loads(jan("registry", "status", "--json").stdout)
    assert not answer["refreshing"]
    assert datetime.fromisoformat(answer["next_refresh_at"]) > began + timedelta(seconds=3)
    done = jan("registry", "refresh")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("jan: ")
    assert server.requests


def test_models_whose_files_have_the_same_name_are_pulled_beside_each_other(
    jan: Jan, hub: Hub, data_dir: Path, server: Server
) -> None:
    content = EMBEDDED_MODEL.read_bytes()
    hub.models(server.model("org/raven", content), server.model("org/owl", content + bytes(64))).publish()
    follow(hub, data_dir)
    assert jan("registry", "refresh").returncode == 0
    server.go_on.clear()
    command = [str(BIN / "jan"), "--data-dir", str(data_dir), "models", "pull"]
    with subprocess.Popen([*command, "org/raven"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        assert server.halted.wait(30)
        first.send_signal(signal.SIGINT)
        out, err = first.communicate(timeout=30)
    assert (first.returncode, out) == (130, b"")
    assert err.endswith(b"paused; go on with: jan models pull org/raven\n")
    server.go_on.set()
    for name in ("owl", "raven"):
        done = jan("models", "pull", f"org/{name}")
        assert done.returncode == 0, done.stderr
        assert f"{name}-q4_k_m is installed; talk with it: jan chat -m {name}-q4_k_m\n" in done.stderr
    installed = {each["id"]: each for each in json.loads(jan("models", "list", "--json").stdout)}
    assert installed["owl-q4_k_m"]["size"] == installed["raven-q4_k_m"]["size"] + 64
    assert installed["owl-q4_k_m"]["origin"] == "org/owl"
    asked = len(server.requests)
    done = jan("models", "pull", "org/owl")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("jan: org/owl is installed already, as owl-q4_k_m\n")
    assert len(server.requests) == asked, "nothing is fetched that could not be taken in"


def test_a_file_of_a_telling_name_gives_the_model_its_id_and_another_place_has_another_file(
    jan: Jan, server: Server
) -> None:
    content = EMBEDDED_MODEL.read_bytes()
    for number, place in enumerate(("here", "there")):
        server.files[f"{place}/Tiny_One-Q8.gguf"] = content + bytes(64 * number)
    pulled = jan("models", "pull", f"http://{server.host}/x:here/Tiny_One-Q8.gguf")
    assert "tiny_one-q8 is installed" in pulled.stderr, pulled.stderr
    again = jan("models", "pull", f"http://{server.host}/x:there/Tiny_One-Q8.gguf")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "jan: there is a model tiny_one-q8 already\n     give this one another id: --id ID\n"
    pulled = jan("models", "pull", f"http://{server.host}/x:there/Tiny_One-Q8.gguf", "--id", "other")
    assert "other is installed" in pulled.stderr, pulled.stderr
