"""The command line over a host with the scripted engine in place of the real one; everything else is as installed."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from jan_sidecar.cli.app import App, run
from jan_sidecar.cli.session import start_log
from scripted import METHODS, ScriptedEngine  # type: ignore[import-not-found]

from jan_core import Caller
from jan_core.host import Host
from jan_core.loader import installed
from jan_core.testing import InlineSource


@asynccontextmanager
async def opener(app: App, activate: bool) -> AsyncIterator[Caller]:
    start_log(app)
    kept = [source for source in installed() if source.id in ("assistant", "conversational", "download")]
    async with Host(app.data_dir, sources=[*kept, InlineSource("llamacpp", ScriptedEngine(), METHODS)]) as host:
        if activate:
            await host.activate_startup()
        yield host.client("cli")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], opener))
