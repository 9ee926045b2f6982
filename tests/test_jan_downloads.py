"""`jan downloads`, `jan models pull` and `jan models rm` as a person types them: bars, Ctrl-C, checking and mending."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from jan_llamacpp.embedded import EMBEDDED_MODEL

from .conftest import BIN, Jan

MB = 1_000_000
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|[=>()][0-9A-B]?)")
_START = "import fcntl,os,sys,termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class Source:
    """Files over HTTP with ranges. A path that is `held` gets so many bytes of each answer, and the rest on `go_on`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.held: dict[str, int] = {}
        self.go_on = threading.Event()
        self.halted = threading.Event()
        self.sent = 0
        source = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(self.path.lstrip("/").partition("?")[0])
                if path not in source.files:
                    self.send_error(404)
                    return
                content = source.files[path]
                found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                first = int(found[1]) if found else 0
                last = min(int(found[2] or len(content)), len(content) - 1) if found else len(content) - 1
                self.send_response(206 if found else 200)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                if found:
                    self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
                self.send_header("Content-Length", str(last + 1 - first))
                self.end_headers()
                part = content[first : last + 1]
                try:
                    if path in source.held and not source.go_on.is_set():
                        self._send(part[: source.held[path]])
                        source.halted.set()
                        source.go_on.wait(60)
                        part = part[source.held[path] :]
                    self._send(part)
                except OSError:
                    pass

            def _send(self, part: bytes) -> None:
                self.wfile.write(part)
                self.wfile.flush()
                source.sent += len(part)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{quote(path)}"

    def add(self, path: str, size: int, hold: int = 0) -> str:
        """A file of `size` bytes; returns its SHA-256."""
        self.files[path] = hashlib.shake_128(path.encode()).digest(size)
        if hold:
            self.held[path] = hold
        return hashlib.sha256(self.files[path]).hexdigest()

    def close(self) -> None:
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


@pytest.fixture
def source() -> Iterator[Source]:
    source = Source()
    yield source
    source.close()


class Screen:
    """`jan` on a terminal of `columns` columns, where Ctrl-C is a key."""

    def __init__(self, data_dir: Path, *arguments: str, columns: int = 110) -> None:
        import pty

        self._master, slave = pty.openpty()
        environment = {**os.environ, "JAN_DATA_DIR": str(data_dir), "TERM": "xterm"}
        environment |= {"COLUMNS": str(columns), "LINES": "24"}
        command = [sys.executable, "-c", _START, str(BIN / "jan"), *arguments]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self.shown = ""

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)

    def until(self, pattern: str) -> str:
        """Read until a pattern has been shown; returns all that was shown."""
        deadline = time.monotonic() + 30
        while not re.search(pattern, self.shown):
            assert self._read(deadline), f"{pattern!r} was not shown; shown was: {self.shown!r}"
        return self.shown

    def interrupt(self) -> None:
        os.write(self._master, b"\x03")

    def end(self) -> int:
        deadline = time.monotonic() + 30
        while self._read(deadline):
            pass
        return self.process.wait(30)

    def _read(self, deadline: float) -> bool:
        import select

        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        try:
            data = os.read(self._master, 65536) if ready else b""
        except OSError:  # Linux tells the end of the last writer so
            data = b""
        self.shown += _ESCAPES.sub("", data.decode("utf-8", "replace")).replace("\r", "")
        return bool(data)


def records(jan: Jan) -> list[dict[str, Any]]:
    return json.loads(jan("downloads", "list", "--json").stdout)  # type: ignore[no-any-return]


needs_terminal = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


@needs_terminal
def test_ctrl_c_pauses_says_how_to_go_on_and_that_goes_on(source: Source, jan: Jan, data_dir: Path) -> None:
    sha256 = source.add("größe 模型.bin", 40 * MB, hold=17 * MB)
    with Screen(data_dir, "downloads", "start", source.url("größe 模型.bin"), "--sha256", sha256) as screen:
        screen.until(r"größe 模型\.bin .*[1-9]\d? %")
        assert source.halted.wait(30)
        screen.interrupt()
        assert screen.end() == 130
    [record] = records(jan)
    assert (record["state"], record["bytes_done"] > 0) == ("paused", True)
    assert screen.shown.endswith(f"paused; go on with: jan downloads resume {record['id']}\n")
    source.go_on.set()
    sent = source.sent
    done = jan("downloads", "resume", record["id"])
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(Path(done.stdout.strip()).read_bytes()).hexdigest() == sha256
    assert source.sent - sent < 40 * MB, "it went on where it was"


@needs_terminal
def test_two_interrupts_end_it_at_once(source: Source, data_dir: Path) -> None:
    source.add("a.bin", 40 * MB, hold=9 * MB)
    with Screen(data_dir, "downloads", "start", source.url("a.bin")) as screen:
        screen.until("a.bin .*%")
        screen.interrupt()
        screen.interrupt()
        assert screen.end() == 130
    assert "Traceback" not in screen.shown


@needs_terminal
def test_bars_of_several_files_stay_in_their_places_and_have_a_total(source: Source, jan: Jan, data_dir: Path) -> None:
    members = [
        {"file": {"name": name, "url": source.url(name), "sha256": source.add(name, 20 * MB, hold=9 * MB)}}
        for name in ("part one.bin", "part two.bin")
    ]
    group = json.loads(jan("rpc", "downloads.start_group", json.dumps({"files": members, "name": "two"})).stdout)
    with Screen(data_dir, "downloads", "watch", group["id"], columns=80) as screen:
        screen.until(r"total \(0/2\) .* \d+ %")
        source.go_on.set()
        assert screen.end() == 0
    drawn = [line for line in screen.shown.split("\n") if line.startswith(("part", "total"))]
    assert {line.index("%") for line in drawn if "%" in line} == {drawn[-1].index("%")}
    assert all(len(line) < 80 for line in drawn)
    assert [record["state"] for record in records(jan)] == ["completed", "completed"]


def test_what_another_process_fetches_can_be_watched_and_paused(source: Source, jan: Jan, data_dir: Path) -> None:
    sha256 = source.add("a.bin", 20 * MB, hold=9 * MB)
    command = [str(BIN / "jan"), "--data-dir", str(data_dir), "downloads"]
    start = [*command, "start", source.url("a.bin"), "--sha256", sha256]
    with subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as fetching:
        assert source.halted.wait(30)
        with subprocess.Popen([*command, "watch"], stderr=subprocess.PIPE) as watching:
            assert watching.stderr is not None
            assert watching.stderr.readline().startswith(b"a.bin: ")
            [record] = records(jan)
            assert jan("downloads", "pause", record["id"]).returncode == 0
            assert watching.wait(30) == 0
        _, said = fetching.communicate(timeout=30)
    assert fetching.returncode == 1
    assert b"jan: a.bin: the download is paused\n" in said


def test_what_nobody_moves_any_more_is_not_called_running_without_a_word(
    source: Source, jan: Jan, data_dir: Path
) -> None:
    sha256 = source.add("a.bin", 20 * MB, hold=9 * MB)
    start = [
        str(BIN / "jan"),
        "--data-dir",
        str(data_dir),
        "downloads",
        "start",
        source.url("a.bin"),
        "--sha256",
        sha256,
    ]
    with subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as fetching:
        assert source.halted.wait(30)
        assert "goes on when" not in jan("downloads", "list").stdout
        fetching.kill()
    [record] = records(jan)
    assert record["mover"] == "here", "the command itself, which ends"
    assert "goes on when jan runs" in jan("downloads", "list").stdout
    assert "goes on when jan runs" in jan("downloads", "show", record["id"]).stdout


def test_a_limit_that_is_given_holds_for_what_is_taken_up_again(source: Source, jan: Jan) -> None:
    source.add("a.bin", 9 * MB, hold=1)
    file = {"name": "a.bin", "url": source.url("a.bin")}
    assert jan("rpc", "downloads.start", json.dumps({"file": file})).returncode == 0
    source.go_on.set()
    assert jan("downloads", "start", source.url("a.bin"), "--limit", "900M", "--priority", "2").returncode == 0
    [record] = records(jan)
    assert (record["limit"], record["priority"], record["state"]) == (900 * MB, 2, "completed")


def test_without_a_terminal_there_are_plain_lines_and_only_the_path_on_stdout(source: Source, data_dir: Path) -> None:
    sha256 = source.add("a.bin", 20 * MB, hold=9 * MB)
    arguments = ["--data-dir", str(data_dir), "downloads", "start", source.url("a.bin"), "--sha256", sha256]
    command = [str(BIN / "jan"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        line = process.stderr.readline().decode()
        source.go_on.set()
        out, rest = process.communicate(timeout=60)
    assert re.match(r"a\.bin: .* of 20\.0 MB \(\d+ %\)", line)
    assert not re.search(rb"[\x00-\x09\x0b-\x1f]", line.encode() + rest + out)
    assert process.returncode == 0
    assert Path(out.decode().strip()).stat().st_size == 20 * MB


def test_what_nobody_can_check_is_said_before_and_after(source: Source, jan: Jan) -> None:
    sha256 = source.add("a.bin", 3 * MB)
    done = jan("downloads", "start", source.url("a.bin"))
    before, after = done.stderr.splitlines()
    assert before == "not checked: no SHA-256 is known for a.bin, so nothing can tell whether it is right"
    assert after == f"not checked: nobody knew what a.bin should hash to; its SHA-256 is {sha256}"


def test_a_download_that_fails_is_one_line_and_says_what_to_do(source: Source, jan: Jan) -> None:
    done = jan("downloads", "start", source.url("nothing.bin"), "--sha256", "0" * 64)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("jan: nothing.bin: ")
    [record] = records(jan)
    assert done.stderr.splitlines()[1:] == [f"     try again with: jan downloads resume {record['id']}"]
    source.add("other.bin", 3 * MB)
    done = jan("downloads", "start", source.url("other.bin"), "--sha256", "0" * 64)
    assert (done.returncode, "it was thrown away" in done.stderr, "kept" in done.stderr) == (1, True, False)
    assert jan("downloads", "pause", "dl-none").returncode == 1
    assert jan("downloads", "pause").returncode == 2
    assert jan("downloads", "resume", "dl-none", "--all").returncode == 2


def test_a_download_is_shown_with_its_history_as_a_page(source: Source, jan: Jan, tmp_path: Path) -> None:
    sha256 = source.add("a.bin", 20 * MB)
    assert jan("downloads", "start", source.url("a.bin"), "--sha256", sha256).returncode == 0
    [record] = records(jan)
    shown = dict(
        line.split("\t", 1) for line in jan("downloads", "show", record["id"]).stdout.splitlines() if "\t" in line
    )
    assert (shown["state"], shown["done"], shown["checked"]) == (
        "completed",
        "20.0 MB of 20.0 MB (100.0 %)",
        "its SHA-256 matches",
    )
    assert json.loads(jan("downloads", "show", record["id"], "--json").stdout)["id"] == record["id"]
    page = tmp_path / "page of größe.html"
    assert jan("downloads", "show", record["id"], "--html", str(page)).returncode == 0
    document = page.read_text("utf-8")
    assert "complete, and its SHA-256 matches" in document
    assert "127.0.0.1" in document
    assert "3 pieces of 8.4 MB" in document
    members = [{"file": {"name": name, "url": source.url(name), "sha256": source.add(name, MB)}} for name in ("b", "c")]
    group = json.loads(jan("rpc", "downloads.start_group", json.dumps({"files": members, "wait": True})).stdout)
    assert jan("downloads", "show", group["id"], "--html", str(page)).returncode == 0
    document = page.read_text("utf-8")
    assert [f"<bdi>{name}</bdi>" in document for name in ("a.bin", "b", "c")] == [False, True, True]
    nowhere = jan("downloads", "show", record["id"], "--html", str(tmp_path / "no" / "page.html"))
    assert (nowhere.returncode, "cannot be written" in nowhere.stderr) == (1, True)


def test_damage_is_found_and_mended(source: Source, jan: Jan) -> None:
    sha256 = source.add("a.bin", 20 * MB)
    path = Path(jan("downloads", "start", source.url("a.bin"), "--sha256", sha256).stdout.strip())
    [record] = records(jan)
    assert "is whole" in jan("downloads", "verify", record["id"]).stderr
    with path.open("r+b") as file:
        file.seek(9 * MB)
        file.write(b"damage")
    mended = jan("downloads", "verify", record["id"], "--repair")
    assert mended.returncode == 0, mended.stderr
    assert "was damaged and is whole again" in mended.stderr
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    path.write_bytes(b"damage")
    damaged = jan("downloads", "verify", record["id"])
    assert damaged.returncode == 1
    assert "is damaged" in damaged.stderr


def test_how_it_is_treated_can_be_changed_and_all_are_paused_at_once(source: Source, jan: Jan) -> None:
    for name in ("a.bin", "b.bin"):
        file = {"name": name, "url": source.url(name), "sha256": source.add(name, 9 * MB, hold=1)}
        assert jan("rpc", "downloads.start", json.dumps({"file": file})).returncode == 0
    first, second = (record["id"] for record in records(jan))
    assert jan("downloads", "configure", first, "--limit", "5M", "--priority", "7").returncode == 0
    assert jan("downloads", "configure", second, "--limit", "none", "--not-before", "2099-01-01 10:00").returncode == 0
    assert jan("downloads", "configure", first).returncode == 2
    assert jan("downloads", "configure", first, "--limit", "fast").returncode == 2
    one, two = records(jan)
    assert (one["limit"], one["priority"], two["limit"]) == (5 * MB, 7, 0)
    assert two["not_before"].startswith("2099-01-01T")
    assert jan("downloads", "pause", "--all").returncode == 0
    assert [record["state"] for record in records(jan)] == ["paused", "paused"]
    assert json.loads(jan("downloads", "list", "--state", "running", "--json").stdout) == []
    assert jan("downloads", "cancel", first, second).returncode == 0
    assert jan("downloads", "remove", first, second).returncode == 0
    assert records(jan) == []


def test_a_model_and_its_download_go_together(source: Source, jan: Jan, data_dir: Path) -> None:
    source.files["Tiny.gguf"] = EMBEDDED_MODEL.read_bytes()
    size = len(source.files["Tiny.gguf"])
    pulled = jan("models", "pull", source.url("Tiny.gguf"))
    assert pulled.returncode == 0, pulled.stderr
    assert "tiny is installed; talk with it: jan chat -m tiny" in pulled.stderr
    assert pulled.stderr.count("not checked: ") == 2
    assert jan("models", "pull", source.url("Tiny.gguf"), "--id", "other").returncode == 0
    gone = json.loads(jan("models", "rm", "tiny", "--json").stdout)
    assert gone == [{"id": "tiny", "freed": 0, "downloads": []}], "the other model has the same file"
    [record] = records(jan)
    [gone] = json.loads(jan("models", "rm", "other", "--json").stdout)
    assert (gone["id"], gone["downloads"]) == ("other", [record["id"]])
    assert size <= gone["freed"] < size + MB, "what the disk gives back, in its blocks"
    assert records(jan) == []
    left = [path for path in (data_dir / "download").rglob("*") if path.is_file() and path.stat().st_size >= size]
    assert left == []


def test_a_model_s_download_is_kept_when_asked_and_serves_again(source: Source, jan: Jan) -> None:
    source.files["Tiny.gguf"] = EMBEDDED_MODEL.read_bytes()
    sha256 = hashlib.sha256(source.files["Tiny.gguf"]).hexdigest()
    pull = ("models", "pull", source.url("Tiny.gguf"), "--sha256", sha256)
    assert jan(*pull).returncode == 0
    assert jan("models", "rm", "tiny", "--keep-download").stderr == "tiny is deleted\n"
    sent = source.sent
    assert jan(*pull).returncode == 0
    assert source.sent == sent
