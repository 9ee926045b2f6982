"""A file that another program has fetched already: how long it takes to have it, and how many bytes come."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import content
from host import running
from kit import MIB, Kit, NotTakenError, say
from machine import Load
from report import Reach, Report, Table, figure
from web import Web

from jan_core import RpcError

__all__ = ["measure"]


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    web, report, load, rows = kit.web, Report(), Load(), []
    began = time.perf_counter()
    content.digest(web.content.path)
    hashing = time.perf_counter() - began
    rows.append(["SHA-256 of the file alone", figure(hashing), "-", "-", "-"])
    for name, place in {
        "the Hugging Face cache": f"huggingface/hub/models--bench--model/blobs/{web.content.sha256}",
        "Ollama's blobs": f"ollama/models/blobs/sha256-{web.content.sha256}",
    }.items():
        say(f"adoption: {name}")
        try:
            seconds, sent, done, more = await _adopted(kit, web, place)
        except NotTakenError as error:
            report.notes.append(f"{name}: {error}")
            continue
        rows.append([name, figure(seconds), figure(sent), done["origin"] or "-", figure(more / MIB)])
        report.reaches += [
            Reach(f"{name}: bytes fetched", sent, 0, ""),
            Reach(f"{name}: beyond the hash of the file", seconds - hashing, 1, "s"),
        ]
    columns = ["", "s until it is complete", "bytes fetched", "taken from", "disk it takes, MiB"]
    report.tables.append(Table("A file that this machine has", columns, rows))
    report.notes.append(f"{web.content.size / MIB:,.0f} MiB on the same disk, one run each; {kit.busy(load)}")
    return report


async def _adopted(kit: Kit, web: Web, place: str) -> tuple[float, int, dict[str, Any], int]:
    """Seconds, bytes that came, the download, and bytes that the disk has fewer."""
    home = kit.fresh("home")
    blob = home / place
    blob.parent.mkdir(parents=True)
    shutil.copyfile(web.content.path, blob)
    os.sync()
    places = {"HF_HOME": "huggingface", "OLLAMA_MODELS": "ollama/models", "XDG_CACHE_HOME": ".cache", "HOME": "."}
    environment = {name: str(home / where) for name, where in places.items()}
    environment |= {"HF_HUB_CACHE": "", "HUGGINGFACE_HUB_CACHE": ""}
    async with running(home / "data", environment, adopt=True) as host:
        sent, free = web.sent(), shutil.disk_usage(home).free
        began = time.perf_counter()
        try:
            done = await host.fetch(web.content.file(web.url, pieces=web.pieces))
        except RpcError as error:
            raise NotTakenError(str(error)) from error
        seconds = time.perf_counter() - began
    if content.digest(Path(done["path"])) != web.content.sha256:
        raise NotTakenError("it is not the file")
    return seconds, web.sent() - sent, done, max(0, free - shutil.disk_usage(home).free)
