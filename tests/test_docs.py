"""The documentation is run: its files are the files, its session is a session, its reference is the code's."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from jan_core.rpc.peer import Peer
from jan_core.testing import InlineSource

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"```(?:python|toml) file=(\S+)\n(.*?)```", re.DOTALL)
FENCED = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = sorted({ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/*/README.md"), *ROOT.glob("*/README.md")})


def test_code_on_a_page_is_the_code_in_the_file() -> None:
    blocks = [block for page in PAGES for block in BLOCK.findall(page.read_text("utf-8"))]
    assert len(blocks) > 10
    for path, text in blocks:
        code = (ROOT / path).read_text("utf-8")
        assert any(textwrap.indent(text, " " * n) in code for n in (0, 4, 8)), f"{path} has not:\n{text}"


def test_the_guide_runs_as_printed(tmp_path: Path) -> None:
    with Guide(tmp_path) as guide:
        for language, file, text in FENCED.findall((ROOT / "docs" / "extension.md").read_text("utf-8")):
            if language == "diff":
                guide.edit(file, text)
            elif language == "console":
                guide.type(text)


class Guide:
    """A person at a shell who does what the page says. In what is shown, … stands for anything, alone for any lines."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "JAN_DATA_DIR": str(folder / "data"),
        }
        self._running: subprocess.Popen[str] | None = None

    def __enter__(self) -> Guide:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._running is not None:
            self._clock.cancel()
            self._running.kill()
            self._running.communicate()

    def edit(self, file: str, text: str) -> None:
        old, new = ("".join(f"{line[1:]}\n" for line in text.splitlines() if line[0] == sign) for sign in "-+")
        before = (self._folder / file).read_text("utf-8")
        assert before.count(old) == 1, old
        written = self._folder / "written"
        written.write_text(before.replace(old, new), "utf-8")
        written.replace(self._folder / file)  # in one step, as editors save: half a file is a mistake like any other

    def type(self, text: str) -> None:
        """Commands, each with what it prints; what stands before the first is said by the one that is running."""
        begun, *commands = re.split(r"^\$ ", text, flags=re.MULTILINE)
        self._hear(begun)
        for command in commands:
            line, _, shown = command.partition("\n")
            words = shlex.split(line)
            if words[0] == "cd":
                self._folder = (self._folder / words[1]).resolve()
            elif words[:3] == ["jan", "ext", "dev"]:
                self._running = self._start(words)
                self._clock = threading.Timer(120, self._running.kill)  # nobody waits for ever for a line
                self._clock.start()
                self._hear(shown)
            else:
                printed, _ = (process := self._start(words)).communicate(timeout=120)
                assert "Traceback" not in printed
                assert self._fits(shown, printed), f"$ {line}\n{printed}"
                assert (process.returncode == 0) == ("failed" not in shown), printed

    def _start(self, words: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            words,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _hear(self, shown: str) -> None:
        for line in shown.splitlines():
            assert self._running is not None
            assert self._running.stdout is not None
            if line == "^C":
                self._running.send_signal(signal.SIGINT)
                assert self._running.wait(60) == 0
            else:
                said = self._running.stdout.readline()
                assert self._fits(line + "\n", said), said

    @staticmethod
    def _fits(shown: str, printed: str) -> bool:
        anything = {"…\n": "(?:.*\n)*", "…": ".*"}
        parts = re.split(r"(^…\n|…)", shown, flags=re.MULTILINE)
        return re.fullmatch("".join(anything.get(part) or re.escape(part) for part in parts), printed) is not None


async def test_the_session_on_the_channel_page_runs_as_printed(open_host: Any) -> None:
    from jan_hello.plugin import HelloExtension

    text = (ROOT / "docs" / "channel.md").read_text("utf-8")
    lines = re.search(r"```transcript\n(.*?)```", text, re.DOTALL)
    assert lines is not None
    wrote = asyncio.Event()
    written: list[bytes] = []

    class Pipe:
        blocked = full = False

        def write(self, data: bytes) -> None:
            written.extend(data.splitlines())
            wrote.set()

        async def drained(self) -> None:
            return

    hello = InlineSource("hello", HelloExtension, ["hello."], activation="on-method")
    async with open_host(sources=[hello]) as host:
        peer = Peer(host, Pipe())
        for line in lines[1].splitlines():
            arrow, _, message = line.partition(" ")
            if arrow == "→":
                peer.feed(message.encode() + b"\n")
                continue
            with anyio.fail_after(5):
                while not written:
                    wrote.clear()
                    await wrote.wait()
            pattern = ".*".join(re.escape(part) for part in message.split("…"))
            assert re.fullmatch(pattern, written.pop(0).decode())
        assert peer.closed.is_set()
        await peer.aclose()
    assert written == []


def test_the_reference_is_what_the_code_says() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools" / "reference.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


RPC = re.compile(r"^(?:\$ |    )jan rpc (?:--stream )?(\S+)(?: '(.*?)')?(?:\s|$)", re.MULTILINE | re.DOTALL)
EXAMPLES = [
    pytest.param(method, params or "{}", id=f"{page.parent.name}: {method}")
    for page in PAGES
    for method, params in RPC.findall(page.read_text("utf-8"))
    if not method.startswith("my_tool.")  # the guide's own: it is called in earnest
]


@pytest.mark.parametrize(("method", "params"), EXAMPLES)
async def test_a_call_shown_on_a_page_is_one_the_method_takes(method: str, params: str, tmp_path: Path) -> None:
    from jan_hello.plugin import HelloExtension

    from jan_core.host import Host
    from jan_core.loader import installed

    hello = InlineSource("hello", HelloExtension, ["hello."])
    async with Host(tmp_path, sources=[*installed(), hello]) as host:
        (await host.resolve(method)).decode(params.encode())
