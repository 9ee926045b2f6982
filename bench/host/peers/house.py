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
    from jan_core.loader import installed

    with tempfile.TemporaryDirectory() as folder:
        # As an editable install would leave it: an entry point, and the project's folder on the path.
        record = Path(folder) / "jan_bench-0.dist-info"
        record.mkdir()
        (record / "METADATA").write_text("Metadata-Version: 2.1\nName: jan-bench\nVersion: 0\n")
        (record / "entry_points.txt").write_text("[jan.extensions]\nbench = jan_bench:Bench\n")
        sys.path[:0] = [folder, str(EXTENSION)]
        sources = [source for source in installed() if source.id == "bench"]
        async with Host(Path(folder) / "data", sources=sources) as host:
            await host.activate_startup()
            await stdio.serve(host, read, write)


descriptors = stdio.claim()
sys.setswitchinterval(0.0005)
if "threads" in sys.argv[1:]:
    assert callable(stdio._pollable), "serve chooses its transport in another way now"
    stdio._pollable = lambda fd: False
asyncio.run(main(*descriptors))
