"""A host in a new profile, with a packaged list of our choice: how long its first list takes once it is up.

    python first.py PACKAGED DATA

Prints milliseconds as JSON: until the extension is `up`, the `first` `registry.featured` and the one after it `again`.
Using the network is an error.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import NoReturn

import jan_registry.catalogue
from jan_registry.plugin import RegistryExtension

from jan_core.host import Host
from jan_core.testing import InlineSource


def no_network() -> NoReturn:
    raise AssertionError("the network was used")


async def main() -> None:
    jan_registry.catalogue.PACKAGED = Path(sys.argv[1])
    sources = [InlineSource("registry", RegistryExtension, ["registry."])]
    times = [time.perf_counter()]
    async with Host(Path(sys.argv[2]), sources=sources, http=no_network) as host:
        await host.activate_startup()
        times.append(time.perf_counter())
        for _ in range(2):
            answer = await host.client().call("registry.featured")
            times.append(time.perf_counter())
            assert answer["provenance"]["origin"] == "bundle"
            assert answer["models"]
    begun, up, first, again = times
    print(json.dumps({"up": (up - begun) * 1e3, "first": (first - up) * 1e3, "again": (again - first) * 1e3}))


if __name__ == "__main__":
    asyncio.run(main())
