"""Ours: a real host with one extension behind the transport of the product, as `jan-sidecar` sets it up.

house.py [threads]     threads: the reader and writer threads that Windows needs, forced
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from jan_core.rpc import stdio

EXTENSION = Path(__file__).parent.parent / "extension"


async def main(read: int, write: int) -> None:
    from jan_core.host import Host
    from jan_core.loader import folder_source

    with tempfile.TemporaryDirectory() as folder:
        async with Host(Path(folder), sources=[folder_source(EXTENSION)]) as host:
            await host.activate_startup()
            await stdio.serve(host, read, write)


descriptors = stdio.claim()
sys.setswitchinterval(0.0005)
if "threads" in sys.argv[1:]:
    assert callable(stdio._pollable), "serve chooses its transport in another way now"
    stdio._pollable = lambda fd: False
asyncio.run(main(*descriptors))
