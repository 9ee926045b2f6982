"""Fills the cache: the engine as a host installs it, the peers, the models."""

from __future__ import annotations

import asyncio

import peers
from kit import Kit, NotTakenError, say
from models import COPIER

__all__ = ["everything", "usable_cores"]


def usable_cores() -> int:
    """What llama.cpp computes with when it is told nothing, and so do we."""
    from jan_llamacpp.worker.threads import usable_cores

    return usable_cores()


async def everything(kit: Kit) -> None:
    """Make what is not there. Raises NotTakenError."""
    for shape in [*kit.shapes, COPIER]:
        say(f"{shape.name}: {kit.model(shape).stat().st_size / 1e6:,.0f} MB")
    try:
        engine = kit.engine
    except NotTakenError:
        say("installing an engine; compiling it takes some minutes")
        await _install(kit)
        engine = kit.engine
    say(f"engine: {engine}")
    say("peers: llama-server, llama-batched-bench and llama_cpp.server; compiling them takes some minutes")
    await asyncio.to_thread(peers.build, kit.cache)


async def _install(kit: Kit) -> None:
    from starting import host

    from jan_core.errors import RpcError

    async with host(kit) as (client, _):
        # From source, as the peers: a prebuilt wheel is compiled for other processors.
        await client.call("settings.set", {"extension": "llamacpp", "values": {"prebuilt_wheels": False}})
        try:
            await client.call("engines.install", {"id": f"cpu-{peers.version()}"})
        except RpcError as error:
            raise NotTakenError(f"the engine cannot be installed: {error}") from error
