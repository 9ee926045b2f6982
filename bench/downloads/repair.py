"""One byte of a complete file is another: what it costs to notice and to mend it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import content
from content import PIECE, Content
from host import LONGEST, Host, running
from kit import MIB, Kit, NotTakenError, say
from machine import Load
from report import Reach, Report, Table, figure
from sides import OURS, Ran, aria2_command
from web import Web

__all__ = ["measure"]

POLL = 0.01
ARIA2 = ("aria2c -V, metalink with pieces' hashes", "aria2c -V, the file's hash")


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    web, report, load, rows = kit.web, Report(), Load(), []
    for side, (run, pieces) in {
        OURS[0]: (_ours, True),
        OURS[1]: (_ours, False),
        ARIA2[0]: (_aria2, True),
        ARIA2[1]: (_aria2, False),
    }.items():
        say(f"repair: {side}")
        try:
            seconds, sent = await run(kit, web, pieces)
        except NotTakenError as error:
            report.notes.append(f"{side}: {error}")
            continue
        rows.append([side, figure(seconds), figure(sent / MIB)])
        if side == OURS[0]:
            report.reaches.append(Reach("one wrong byte costs", sent / MIB, PIECE / MIB, "MiB"))
    columns = ["", "s until it is whole", "fetched, MiB"]
    report.tables.append(Table("One flipped byte", columns, rows))
    report.notes.append(f"{web.content.size / MIB:,.0f} MiB, one run each, hashing it all included; {kit.busy(load)}")
    return report


async def _ours(kit: Kit, web: Web, pieces: bool) -> tuple[float, int]:
    async with running(kit.fresh("repair")) as host:
        done = await host.fetch(web.content.file(web.url, pieces=web.pieces if pieces else ""))
        path, sent = Path(done["path"]), web.sent()
        _flip(path, web.content)
        began = time.perf_counter()
        said = await host.call("downloads.verify", id=done["id"], repair=True)
        if said["ok"] or not said["repairing"]:
            raise NotTakenError(f"not noticed: {said}")
        done = await _completed(host, done["id"])
        seconds = time.perf_counter() - began
        _whole(Path(done["path"]), web.content)
    return seconds, web.sent() - sent


async def _completed(host: Host, id: str) -> dict[str, Any]:
    """The download once it is complete."""
    async with asyncio.timeout(LONGEST):
        while True:
            now = dict(await host.call("downloads.get", id=id))
            if now["state"] == "completed":
                return now
            if now["state"] not in ("queued", "running", "waiting", "verifying"):
                raise NotTakenError(f"it is {now['state']}: {now['error']}")
            await asyncio.sleep(POLL)


async def _aria2(kit: Kit, web: Web, pieces: bool) -> tuple[float, int]:
    folder = kit.fresh("repair")
    path = folder / web.content.path.name
    command = [*aria2_command(folder, 4), "--check-integrity=true", "--allow-overwrite=true"]
    if pieces:
        described = folder / "model.meta4"
        described.write_text(metalink(web.content, [web.url]))
        command.append(f"--metalink-file={described}")
    else:
        command += [f"--checksum=sha-256={web.content.sha256}", web.url]
    await asyncio.to_thread(Ran().add, command)
    sent = web.sent()
    _flip(path, web.content)
    ran = await asyncio.to_thread(Ran().add, command)
    _whole(path, web.content)
    return sum(ran.seconds), web.sent() - sent


def metalink(described: Content, urls: list[str]) -> str:
    """The file with the hashes of its pieces, as RFC 5854 has it."""
    hashes = [described.hashes[at : at + 32].hex() for at in range(0, len(described.hashes), 32)]
    pieces = "".join(f"<hash>{each}</hash>" for each in hashes)
    places = "".join(f'<url priority="{rank}">{url}</url>' for rank, url in enumerate(urls, 1))
    return (
        '<?xml version="1.0" encoding="UTF-8"?><metalink xmlns="urn:ietf:params:xml:ns:metalink">'
        f'<file name="{described.path.name}"><size>{described.size}</size>'
        f'<hash type="sha-256">{described.sha256}</hash><pieces length="{PIECE}" type="sha-256">{pieces}</pieces>'
        f"{places}</file></metalink>"
    )


def _flip(path: Path, expected: Content) -> None:
    at = expected.size // 2 + 12345
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def _whole(path: Path, expected: Content) -> None:
    if content.digest(path) != expected.sha256:
        raise NotTakenError("it is not whole afterwards")
