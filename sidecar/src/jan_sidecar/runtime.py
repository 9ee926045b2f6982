"""Opens a host the way the product runs it: its data folder, its log, its HTTP client.

Every frontend (stdio, HTTP, command line) starts here. Nothing in this module is needed by more than one of them and
known to the core, and nothing heavy is imported before it is used.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jan_core.host import Host, ServerInfo

if TYPE_CHECKING:
    import httpx

__all__ = ["FIRST_PARTY", "SERVER", "data_folder", "log_to", "open_host"]

FIRST_PARTY = frozenset({"assistant", "conversational", "download", "llamacpp", "registry"})
"""Extensions that ship with the product; safe mode starts only these."""

SERVER = ServerInfo("jan-sidecar", "0.1.0")


def data_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """Where everything is kept: `given`, else JAN_DATA_DIR, else the platform's user data folder."""
    chosen = given or os.environ.get("JAN_DATA_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("jan", appauthor=False))


@asynccontextmanager
async def open_host(
    data_dir: Path,
    *,
    safe_mode: bool = False,
    activate: bool = True,
    watch: bool = False,
    folders: Sequence[Path] = (),
    server: ServerInfo = SERVER,
) -> AsyncIterator[Host]:
    """A running host on `data_dir`. `activate`: wait until the extensions that start with the application are up.
    `watch`: reload extensions when their files change. `folders`: projects of extensions that are being written; they
    take the place of an installed one of the same id.

    Raises jan_core.StorageError when the data folder cannot be made, ManifestError when a folder holds no extension.
    """
    clients: list[httpx.AsyncClient] = []

    def http() -> httpx.AsyncClient:
        if not clients:
            import httpx

            clients.append(httpx.AsyncClient(headers={"user-agent": f"jan/{server.version}"}, timeout=30.0))
        return clients[0]

    from jan_core.install import overlay
    from jan_core.loader import folder_source, installed

    if not safe_mode:
        overlay.activate(data_dir)
    sources = [folder_source(folder) for folder in folders]
    written = {s.id for s in sources}
    # The product's own come first: a method prefix stays with whoever had it first.
    found = sorted(installed(live=watch), key=lambda s: s.id not in FIRST_PARTY)
    sources += [s for s in found if s.id not in written]
    disabled = [s.id for s in sources if safe_mode and s.id not in FIRST_PARTY]
    try:
        async with Host(data_dir, sources=sources, disabled=disabled, http=http, server=server, watch=watch) as host:
            if activate:
                await host.activate_startup()
            yield host
    finally:
        for client in clients:
            await client.aclose()


def log_to(data_dir: Path, *, console: int = logging.WARNING) -> None:
    """Warnings to standard error, everything to `logs/jan.log` (1 MiB, three kept). Never a request's text.

    A folder that cannot be written costs the file, not the start.
    """
    logging.raiseExceptions = False  # a disk that is full by now costs lines too, and is no traceback for each of them
    root = logging.getLogger()
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setLevel(console)
    stderr.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root.setLevel(logging.INFO)
    root.addHandler(stderr)
    from jan_core.logs import file_handler

    try:
        root.addHandler(file_handler(data_dir))
    except OSError as error:
        root.warning("no log file: %s", error)
