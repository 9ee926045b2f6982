"""The house the command line is tested in: as installed, with the scripted engine in place of the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jan_sidecar.cli.app import App

from jan_core import Caller
from jan_core.host import Host
from jan_core.loader import installed
from jan_core.testing import InlineSource

from .scripted import METHODS, ScriptedEngine


@asynccontextmanager
async def open_house(app: App, activate: bool) -> AsyncIterator[Caller]:
    """An opener as `jan_sidecar.cli.app.run` takes it."""
    kept = [source for source in installed() if source.id in ("assistant", "conversational", "download")]
    async with Host(app.data_dir, sources=[*kept, InlineSource("llamacpp", ScriptedEngine(), METHODS)]) as host:
        if activate:
            await host.activate_startup()
        yield host.client("cli")
