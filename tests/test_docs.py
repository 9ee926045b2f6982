"""The documentation is run: its files are the files, its session is a session, its reference is the code's."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from jan_core.rpc.peer import Peer
from jan_core.testing import InlineSource

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"```\w+ file=(\S+)\n(.*?)```", re.DOTALL)
PAGES = sorted({ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/*/README.md"), *ROOT.glob("*/README.md")})


@pytest.mark.parametrize("name", ["extension.md"])
def test_code_on_a_page_is_the_code_in_the_file(name: str) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / name).read_text("utf-8"))
    assert blocks
    for path, text in blocks:
        assert (ROOT / path).read_text("utf-8") == text, path


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
]


@pytest.mark.parametrize(("method", "params"), EXAMPLES)
async def test_a_call_shown_on_a_page_is_one_the_method_takes(method: str, params: str, tmp_path: Path) -> None:
    from jan_hello.plugin import HelloExtension

    from jan_core.host import Host
    from jan_core.loader import installed

    hello = InlineSource("hello", HelloExtension, ["hello."])
    async with Host(tmp_path, sources=[*installed(), hello]) as host:
        (await host.resolve(method)).decode(params.encode())
