"""The command line in pipes and scripts: real processes, real data folders, the scripted engine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import unicodedata
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_sidecar.cli.app import App, root, run
from jan_sidecar.cli.output import clean, size
from jan_sidecar.cli.progress import Progress

from jan_core import Caller, hookimpl
from jan_core.host import Host
from jan_core.testing import InlineSource

from .conftest import LIMIT, PROGRAM, Api, Jan
from .scripted import MODEL


def out(done: subprocess.CompletedProcess[bytes]) -> str:
    """What was printed by a command that went well and had nothing to remark."""
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def one_line_of_complaint(done: subprocess.CompletedProcess[bytes], status: int) -> str:
    """The error of a command that failed with `status`: one line and perhaps a hint, and no traceback."""
    assert done.returncode == status, done.stderr.decode()
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("jan: "), lines
    assert len(lines) <= 2, lines
    return "\n".join(lines)


# -- the tree of commands ----------------------------------------------------------------------------------------------


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append((*path, name))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


@pytest.mark.parametrize("path", commands(root), ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: jan {' '.join(path)} ")
    assert len(text.splitlines()) > 3


def test_reading_commands_offer_json() -> None:
    reading = {"list", "show", "status", "featured", "search", "phase", "get", "explain", "verify", "doctor"}
    for path in commands(root):
        if path[-1] in reading:
            command: Any = root
            for name in path:
                command = command.get_command(click.Context(command), name)
            assert any("--json" in p.opts for p in command.params), path


def test_help_imports_nothing_heavy() -> None:
    check = (
        "import sys; from jan_sidecar.cli.app import run; run(['--help']); "
        "heavy = {'asyncio', 'anyio', 'httpx', 'starlette', 'rich', 'prompt_toolkit', 'msgspec', 'jan_core'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, timeout=LIMIT, check=True)
    assert done.stderr.decode().strip() == "[]"


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"jan {version('jan-sidecar')}\n"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["models", "nonsense"], ["chat", "--temperature", "9", "x"], ["serve", "--port", "x"]]
)
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "Error: " in capsys.readouterr().err


@contextmanager
def started(environment: dict[str, str], *arguments: str) -> Iterator[Any]:
    """A command under way, its output in pipes."""
    with subprocess.Popen(
        [*PROGRAM, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


# -- one question ------------------------------------------------------------------------------------------------------


def test_a_question_is_answered(jan: Jan) -> None:
    done = jan("chat", "say", "hello", "there")
    assert out(done) == "hello there \n"
    assert done.stderr == b""


def test_a_question_from_a_pipe_is_answered(jan: Jan) -> None:
    assert out(jan("chat", stdin=b"say hello\n")) == "hello \n"


def test_a_prompt_and_a_pipe_are_both_used(jan: Jan) -> None:
    assert out(jan("chat", "echo summarise:", stdin="größe: 5\n".encode())) == "summarise:\n\ngröße: 5\n"


@pytest.mark.parametrize(
    ("arguments", "stdin"), [(["chat"], b""), (["chat"], b" \n\t"), (["chat", ""], b""), (["chat", "  "], b"\n")]
)
def test_an_empty_question_is_wrong_usage(jan: Jan, arguments: list[str], stdin: bytes) -> None:
    done = jan(*arguments, stdin=stdin)
    assert done.returncode == 2
    assert b"the prompt is empty" in done.stderr


def test_input_that_is_not_utf_8_is_replaced_and_said(jan: Jan) -> None:
    done = jan("chat", "echo", stdin=b"caf\xe9 \xff")
    assert out(done) == "caf\ufffd \ufffd\n"
    assert done.stderr == b"note: the input is not UTF-8; what could not be read was replaced (2 places)\n"
    assert out(jan("chat", "echo", stdin=b"\xef\xbb\xbfmarked")) == "marked\n"


def test_json_is_one_object(jan: Jan) -> None:
    answer = json.loads(out(jan("chat", "count 3", "--json")))
    assert answer == {
        "content": "1 2 3 ",
        "model": MODEL,
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 3,
            "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
        },
        "finish_reason": "stop",
    }


def test_without_streaming_the_same_is_printed(jan: Jan) -> None:
    assert out(jan("chat", "count 4", "--no-stream")) == "1 2 3 4 \n"


def test_parameters_reach_the_engine(jan: Jan) -> None:
    flags = [
        "--temperature",
        "0",
        "--top-p",
        "0.5",
        "--top-k",
        "7",
        "--min-p",
        "0.1",
        "--max-tokens",
        "9",
        "--seed",
        "3",
    ]
    asked = json.loads(out(jan("chat", "request", "--system", "Be brief.", "--stop", "END", *flags)))
    wanted = {"temperature": 0.0, "top_p": 0.5, "top_k": 7, "min_p": 0.1, "max_tokens": 9, "seed": 3, "stop": ["END"]}
    assert {name: asked[name] for name in wanted} == wanted
    assert any(m["role"] == "system" and "Be brief." in m["content"] for m in asked["messages"])


def test_a_cut_answer_is_said_to_be_cut(jan: Jan) -> None:
    done = jan("chat", "long")
    assert out(done) == "done\n"
    assert b"token limit" in done.stderr
    cut = jan("chat", "long", "--json")
    assert json.loads(out(cut))["finish_reason"] == "length"
    assert b"token limit" in cut.stderr


def test_what_was_left_out_of_the_prompt_is_said(jan: Jan) -> None:
    thread = json.loads(out(jan("rpc", "threads.create", "{}")))["id"]
    message = {"thread_id": thread, "role": "user", "content": "word " * 3000}
    for _ in range(2):
        out(jan("rpc", "messages.create", "-", stdin=json.dumps(message).encode()))
    done = jan("chat", "--thread", thread, "say hello")
    assert out(done) == "hello \n"
    assert "older messages were left out" in done.stderr.decode()


def test_nothing_is_stored_unless_a_thread_is_named(jan: Jan) -> None:
    out(jan("chat", "say hello"))
    nothing = jan("threads", "list")
    assert (out(nothing), nothing.stderr) == ("", b"no threads yet; start one with: jan chat\n")
    thread = json.loads(out(jan("rpc", "threads.create", "{}")))["id"]
    out(jan("chat", "--thread", thread, "say hello"))
    answer = json.loads(out(jan("chat", "--thread", thread, "count 2", "--json")))
    assert answer["thread_id"] == thread
    listed = out(jan("threads", "list"))
    assert listed.startswith(f"{thread}\tsay hello\t")
    assert listed.count("\n") == 1
    assert "user:\ncount 2" in out(jan("threads", "show", thread))
    assert jan("threads", "rm", thread).returncode == 0
    assert "no thread" in one_line_of_complaint(jan("threads", "show", thread), 1).lower()
    assert "jan threads list" in one_line_of_complaint(jan("chat", "--thread", thread, "say x"), 1)


def test_text_comes_while_the_answer_is_being_made_and_sigint_ends_it(environment: dict[str, str]) -> None:
    with started(environment, "chat", "hang after 3") as process:
        assert process.stdout.read(6) == b"1 2 3 "
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 130
        assert process.stdout.read() == b""
        assert process.stderr.read().strip() == b""


def test_sigint_ends_it_though_nobody_reads_the_output(environment: dict[str, str]) -> None:
    with started(environment, "chat", "count 200000") as process:
        assert process.stdout.read(2) == b"1 "
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 130


def test_an_interrupted_download_says_how_it_goes_on(environment: dict[str, str]) -> None:
    with started(environment, "downloads", "start", "http://127.0.0.1:9/x.gguf") as process:  # nobody answers there
        assert process.stderr.readline()  # it waits, and says so
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert re.search(r"paused; go on with: jan downloads resume dl-[0-9a-f]{16}\n\Z", said.decode())


def test_an_ignored_interrupt_stays_ignored(environment: dict[str, str]) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for `jan … &`
    try:
        with started(environment, "chat", "slow 40") as process:
            assert process.stdout.read(2) == b"0 "
            process.send_signal(signal.SIGINT)
            assert process.wait(LIMIT) == 0
            assert process.stdout.read().endswith(b"39 \n")
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_reader_that_has_seen_enough_is_no_error(environment: dict[str, str]) -> None:
    with started(environment, "chat", "count 100000") as process:
        assert process.stdout.read(4) == b"1 2 "
        process.stdout.close()
        assert process.wait(LIMIT) == 0
        assert process.stderr.read() == b""


def test_closed_output_from_the_start_is_no_error(environment: dict[str, str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*PROGRAM, "models", "list"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=LIMIT,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_goes_into_a_pipe_is_what_the_model_said(jan: Jan) -> None:
    assert "\x1b[31m" in out(jan("chat", "escape"))


# -- failures ----------------------------------------------------------------------------------------------------------


def test_an_unknown_model_is_one_line_with_a_hint(jan: Jan) -> None:
    complaint = one_line_of_complaint(jan("chat", "-m", "nope", "say x"), 1)
    assert "there is no model 'nope' here" in complaint
    assert "jan models list" in complaint


def test_what_had_come_before_a_failure_is_kept_on_its_own_line(jan: Jan) -> None:
    done = jan("chat", "fail after 2")
    assert done.stdout == b"1 2 \n"
    assert "the worker ended" in one_line_of_complaint(done, 1)


@pytest.mark.parametrize("verbose", [[], ["-v"]])
def test_a_defect_is_in_the_log_and_not_on_the_terminal(jan_process: Jan, tmp_path: Path, verbose: list[str]) -> None:
    done = jan_process(*verbose, "chat", "defect")
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"a secret detail" not in done.stderr
    log = tmp_path / "data" / "logs" / "jan.log"
    assert str(log).encode() in done.stderr
    assert "RuntimeError: a secret detail" in log.read_text()
    error_id = done.stderr.decode().split("see the log for ")[1].split()[0]
    assert error_id in log.read_text()


def test_a_data_folder_that_cannot_be_made_is_one_line(jan: Jan, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    complaint = one_line_of_complaint(jan("--data-dir", str(blocked / "data"), "models", "list"), 1)
    assert "cannot make the data folder" in complaint
    assert "jan doctor" not in complaint  # it would fail in the same way


def test_a_defect_before_the_host_is_open_is_in_the_log_and_not_on_the_terminal(
    environment: dict[str, str], tmp_path: Path
) -> None:
    program = (
        "import sys\nfrom jan_sidecar.cli.app import run\n"
        "def opener(app, activate): raise RuntimeError('an early defect')\n"
        "sys.exit(run(['models', 'list'], opener))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, timeout=LIMIT, check=False
    )
    assert "an early defect" in one_line_of_complaint(done, 1)
    assert "RuntimeError: an early defect" in (tmp_path / "data" / "logs" / "jan.log").read_text()


def test_a_long_wait_is_told_ever_more_seldom(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("jan_sidecar.cli.progress.time.monotonic", lambda: now)
    progress = Progress()
    for second in range(1, 1001):
        now = float(second)
        progress("waiting", None, None)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == ["waiting (2 s)", "waiting (5 s)", "waiting (8 s)"]
    assert 20 < len(lines) < 50


DEEP = "[" * 20_000


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["models", "load", "m", "--api-key-file", sys.executable], 1, "holds more than ASCII"),
        (["models", "load", "\udcff", "--server", "http://127.0.0.1:9"], 1, "no server answers"),
        (["models", "load", "m", "--server", "\udcff"], 1, "is not a URL"),
        (["models", "show", "\udcff"], 1, ""),
        (["downloads", "start", "http://127.0.0.1:9/x", "--sha256", "00"], 2, "64 hexadecimal digits"),
        (["models", "pull", "http://127.0.0.1:9/x", "--sha256", "z" * 64], 2, "64 hexadecimal digits"),
        (["engines", "install", "--wheel", sys.executable, "--sha256", "00"], 2, "64 hexadecimal digits"),
        (["chat", "say \udcff"], 1, "not Unicode"),
        (["rpc", "ping", DEEP], 2, "nested too deeply"),
        (["settings", "set", "download.max_running", DEEP], 2, "nested too deeply"),
        (["settings", "set", "download.max_running", "\udcff"], 2, "not UTF-8"),
        (["downloads", "start", "http://["], 2, "is not the URL of a file"),
        (["models", "pull", "http://["], 2, "is not the URL of a file"),
        (["models", "pull", "http://127.0.0.1:99999/x.gguf"], 2, "is not the URL of a file"),
        (["--data-dir", "", "models", "list"], 2, "the name is empty"),
        (["--data-dir", "~no-such-user/x", "models", "list"], 2, "no such user"),
        (["chat", "hi", "--assistant", "nope"], 1, "jan assistants list"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_strange_input_is_a_complaint_and_no_defect(
    jan_process: Jan, tmp_path: Path, arguments: list[str], status: int, said: str
) -> None:
    done = jan_process(*arguments)
    assert done.returncode == status, done.stderr.decode()
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert b"internal error" not in done.stderr
    log = tmp_path / "data" / "logs" / "jan.log"
    assert not log.exists() or "Traceback" not in log.read_text()


def test_output_that_cannot_be_written_is_one_line(environment: dict[str, str]) -> None:
    for arguments in (["models", "list"], ["chat", "say hello"]):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [*PROGRAM, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=full,
                stderr=subprocess.PIPE,
                timeout=LIMIT,
                check=False,
            )
        done.stdout = b""
        assert one_line_of_complaint(done, 1) == "jan: cannot write: No space left on device"


def test_without_any_stdout_an_answer_is_no_error(environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM, "chat", "say hello"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_progress_in_a_pipe_is_a_few_lines(jan: Jan) -> None:
    done = jan("rpc", "chat.complete", '{"messages": [{"role": "user", "content": "work 120"}]}')
    assert json.loads(out(done))["choices"][0]["message"]["content"] == "done"
    lines = done.stderr.decode().splitlines()
    assert 1 <= len(lines) <= 3
    assert "of 120" in lines[0]


# -- the other commands ------------------------------------------------------------------------------------------------


def test_models_are_listed_for_people_and_for_scripts(jan: Jan) -> None:
    assert out(jan("models", "list")).split("\t")[:3] == [MODEL, "available", "1234"]
    assert json.loads(out(jan("models", "list", "--json")))[0]["id"] == MODEL


def test_assistants_are_made_used_and_deleted(jan: Jan) -> None:
    assert out(jan("assistants", "list")).startswith("jan\t")
    made = jan(
        "assistants",
        "create",
        "Pirate",
        "--id",
        "pirate",
        "--instructions",
        "Talk like a pirate.",
        "--parameter",
        "temperature=0.5",
    )
    assert b"jan chat --assistant pirate" in made.stderr
    assert "0.5" in out(jan("assistants", "show", "pirate"))
    asked = json.loads(out(jan("chat", "request", "--assistant", "pirate")))
    assert "Talk like a pirate." in asked["messages"][0]["content"]
    assert asked["temperature"] == 0.5
    out(jan("assistants", "rm", "pirate"))
    assert "jan assistants list" in one_line_of_complaint(jan("assistants", "show", "pirate"), 1)


def test_settings_are_read_and_changed(jan: Jan) -> None:
    assert "download.max_running\t2\n" in out(jan("settings", "list"))
    out(jan("settings", "set", "download.max_running", "3"))
    assert out(jan("settings", "get", "download.max_running")) == "3\n"
    assert json.loads(out(jan("settings", "get", "download")))["max_running"] == 3
    out(jan("settings", "set", "download.max_running", "null"))
    assert out(jan("settings", "get", "download.max_running")) == "2\n"
    one_line_of_complaint(jan("settings", "set", "download.max_running", "many"), 1)
    one_line_of_complaint(jan("settings", "set", "download.nonsense", "1"), 1)
    one_line_of_complaint(jan("settings", "get", "nothing.here"), 1)
    assert jan("settings", "set", "nodot", "1").returncode == 2
    assert "max_running" in one_line_of_complaint(jan("settings", "set", "download.max_running", "-5"), 1)


def test_any_method_can_be_called(jan: Jan) -> None:
    assert out(jan("rpc", "ping")) == "{}\n"
    assert json.loads(out(jan("rpc", "models.list", "-", stdin=b"{}")))["models"][0]["id"] == MODEL
    request = '{"stream": true, "messages": [{"role": "user", "content": "count 2"}]}'
    lines = [json.loads(line) for line in out(jan("rpc", "chat.complete", request, "--stream")).splitlines()]
    assert [c["choices"][0]["delta"].get("content") for c in lines[:-1]] == [None, "1 ", "2 ", None]
    assert lines[-1]["choices"][0]["message"]["content"] == "1 2 "
    assert "no method nope.x" in one_line_of_complaint(jan("rpc", "nope.x"), 1)
    one_line_of_complaint(jan("rpc", "chat.complete", "{}"), 1)
    assert jan("rpc", "ping", "{").returncode == 2
    assert jan("rpc", "ping", "-", stdin=b"\xff").returncode == 2


def test_the_openrpc_document_is_printed(jan: Jan) -> None:
    document = json.loads(out(jan("schema", "openrpc")))
    assert document["openrpc"].startswith("1.")
    assert {"threads.run", "chat.complete", "ping"} <= {m["name"] for m in document["methods"]}


def test_the_data_folder_is_the_named_one_then_the_environments(
    jan: Jan, environment: dict[str, str], tmp_path: Path
) -> None:
    assert json.loads(out(jan("rpc", "system.info")))["data_dir"] == environment["JAN_DATA_DIR"]
    other = str(tmp_path / "other")
    assert json.loads(out(jan("--data-dir", other, "rpc", "system.info")))["data_dir"] == other


def test_a_file_is_downloaded_checked_and_its_loss_is_said(jan: Jan, file_server: Any) -> None:
    good = jan("downloads", "start", f"{file_server.url}/model.gguf", "--sha256", file_server.sha256)
    path = Path(out(good).strip())
    assert path.read_bytes() == file_server.content
    listed = json.loads(out(jan("downloads", "list", "--json")))
    assert [(d["name"], d["state"], d["verified"]) for d in listed] == [("model.gguf", "completed", True)]
    assert jan("downloads", "verify", listed[0]["id"]).returncode == 0
    path.write_bytes(b"damaged")
    damaged = jan("downloads", "verify", listed[0]["id"])
    assert damaged.returncode == 1
    assert b"damaged" in damaged.stderr
    unchecked = jan("downloads", "start", f"{file_server.url}/other.bin")
    assert unchecked.returncode == 0
    assert unchecked.stderr.count(b"not checked: ") == 2, "it is told before and after"
    one_line_of_complaint(jan("downloads", "start", f"{file_server.url}/missing.gguf", "--sha256", "0" * 64), 1)
    assert jan("downloads", "start", "not-a-url").returncode == 2
    assert "jan downloads list" in one_line_of_complaint(jan("downloads", "pause", "dl-none"), 1)


def test_the_options_of_a_load_reach_the_server(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    server = ["--server", api.listening.url]
    options = ["--n-ctx", "512", "--kv-type", "q8_0", "--no-repack", "--adapter", "a=0.5", "--adapter", "b", "--force"]
    assert run(["models", "load", MODEL, *options, *server]) == 0
    assert api.engine.load_options == {
        "n_ctx": 512,
        "kv_type": "q8_0",
        "repack": False,
        "adapters": [{"id": "a", "scale": 0.5}, {"id": "b"}],
        "force": True,
    }
    assert "it takes about 3.0 GB" in capsys.readouterr().err
    assert run(["models", "load", MODEL, "--adapter", "a=much", *server]) == 2


def test_models_of_a_running_server_are_loaded_and_unloaded(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    server = ["--server", api.listening.url]
    assert run(["models", "load", MODEL, *server]) == 0
    assert api.engine.loaded
    assert run(["models", "unload", MODEL, "--server", api.base_url]) == 0
    assert not api.engine.loaded
    assert run(["models", "load", "nope", *server]) == 1
    assert capsys.readouterr().err.endswith("no model 'nope' here\n     see what is installed: jan models list\n")
    assert run(["models", "load", MODEL, "--n-ctx", "1000000", *server]) == 1
    assert capsys.readouterr().err == "jan: it does not fit\n     see what fits: jan models estimate MODEL\n"
    assert run(["models", "load", MODEL, "--server", "http://127.0.0.1:9"]) == 1
    assert "jan serve" in capsys.readouterr().err


class Broken:
    """An extension that does not start."""

    @hookimpl
    def jan_activate(self) -> None:
        raise RuntimeError("no \x1b[31mluck")


def test_the_doctor_names_what_fails_and_says_so_in_its_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], jan: Jan
) -> None:
    @asynccontextmanager
    async def opener(app: App, activate: bool) -> AsyncIterator[Caller]:
        async with Host(tmp_path, sources=[InlineSource("broken", Broken, ["broken."])]) as host:
            yield host.client("cli")

    assert run(["doctor"], opener) == 1
    text = capsys.readouterr().out
    assert "fail  extension broken: activate: no [31mluck" in text
    assert "ok    data folder" in text
    assert run(["doctor", "--json"], opener) == 1
    assert {"ok", "fail"} == {finding["status"] for finding in json.loads(capsys.readouterr().out)}
    assert run(["ext", "list"], opener) == 0
    assert "broken\t0\t" in capsys.readouterr().out
    assert jan("doctor").returncode == 0


STEERING = "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\x1b\x9b\x7f\r"


@given(st.text() | st.text(alphabet=STEERING + "ab\n\t"))
def test_cleaned_text_holds_nothing_that_a_terminal_obeys_reorders_or_takes_for_the_end_of_a_line(text: str) -> None:
    cleaned = clean(text)
    assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in cleaned if c not in "\n\t")
    assert not set(STEERING) & set(cleaned)
    assert [line for part in cleaned.split("\n") for line in part.splitlines()] == [p for p in cleaned.split("\n") if p]
    rest = iter(text)
    assert all(c in rest for c in cleaned), "what is left is as it was, in its order"


def test_what_people_write_is_left_as_it_is() -> None:
    for text in ("größer", "模型", "مدل\u200cها", "👩\u200d💻 🏴\U000e0067\U000e0062\U000e007f", "a\tb\nc"):
        assert clean(text) == text


def test_sizes_are_in_the_unit_that_reads_best() -> None:
    shown = [size(n) for n in (0, 999, 1000, 3_975_200, 2_000_000_000, 7_500_000_000_000)]
    assert shown == ["0 B", "999 B", "1.0 kB", "4.0 MB", "2.0 GB", "7.5 TB"]


def test_an_interrupt_while_modules_are_imported_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jan_sidecar.cli import app, main

    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "run", interrupted)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130
    assert capsys.readouterr().err == ""
