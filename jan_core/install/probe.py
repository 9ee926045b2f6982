"""The child of a smoke load: a script that `smoke.py` starts. It loads extensions as a host would.

    python -I probe.py request.json

`request.json`: {"path": the sys.path to load with, "ids": the extensions, "dataDir": a folder to throw away, "answer":
where the answer goes, as {id: failure or null}}. The answer is a file and not the output, which is the extension's.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx


def main(request_file: str) -> None:
    request = json.loads(Path(request_file).read_text("utf-8"))
    sys.path[:] = request["path"]  # that of the host, so that the same things are found in the same order
    answer = asyncio.run(_load(request["ids"], Path(request["dataDir"])))
    Path(request["answer"]).write_text(json.dumps(answer), "utf-8")


async def _load(ids: list[str], data_dir: Path) -> dict[str, Any]:
    import msgspec

    from jan_core.errors import JanError
    from jan_core.host import Host

    answer: dict[str, Any] = {}
    host = Host(data_dir, http=_http)
    async with host:
        for id in ids:
            extension = host.lifecycle.extensions.get(id)
            if extension is None:
                answer[id] = {
                    "stage": "discover",
                    "type": "NotFound",
                    "message": "it is not found once it is installed",
                }
                continue
            try:
                await host.lifecycle.activate(extension)
                answer[id] = None
            except JanError as error:
                answer[id] = {"stage": "activate", "type": error.type, "message": error.message}
    for id in ids:  # again: leaving the host has ended them, and that can fail too
        extension = host.lifecycle.extensions.get(id)
        if extension is not None and extension.failure is not None:
            answer[id] = msgspec.to_builtins(extension.failure)
    return answer


def _http() -> httpx.AsyncClient:
    import httpx

    return httpx.AsyncClient()


if __name__ == "__main__":
    main(sys.argv[1])
