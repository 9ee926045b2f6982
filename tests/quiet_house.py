"""Run as a process: the whole house, asked for everything that might use a network, with its sockets watched.

    python quiet_house.py DATA_DIR SETTINGS BASE_URL

SETTINGS are those of `llamacpp`, as JSON. Prints one JSON object: `seen` are the audit events of sockets here
(PEP 578), `outcomes` what each call came to: its result's members, or its error's type.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

WATCHED = ("socket.connect", "socket.getaddrinfo", "socket.gethostby", "socket.getnameinfo", "socket.send")
QUESTION = {"messages": [{"role": "user", "content": "What is an extension?"}], "max_tokens": 8, "temperature": 0}


async def main(data_dir: Path, settings: dict[str, Any], base_url: str) -> dict[str, str]:
    from jan_sidecar.runtime import open_host

    from jan_core import RpcError

    outcomes: dict[str, str] = {}
    async with open_host(data_dir) as host:
        client = host.client()

        async def call(method: str, params: dict[str, Any], name: str = "") -> Any:
            try:
                result = await client.call(method, params)
                outcomes[name or method] = ",".join(sorted(result)) if isinstance(result, dict) else "done"
                return result
            except RpcError as error:
                outcomes[name or method] = error.type

        await client.call("settings.set", {"extension": "llamacpp", "values": settings})
        row = {"id": "there", "base_url": base_url, "models": ["far"], "connect_seconds": 0.3, "retries": 0}
        await call("remotes.add", {"remote": row, "key": "sk-test"})
        await call("remotes.list", {})
        await call("remotes.test", {"id": "there"})
        await call("remotes.complete", {**QUESTION, "model": "there/far"})
        await call("chat.complete", {**QUESTION, "model": "there/far"}, "remote chat")
        await call("chat.complete", {**QUESTION, "model": "far"}, "unknown chat")
        await call("chat.complete", QUESTION)
        await call("completions.create", {"prompt": "a", "max_tokens": 4})
        await call("tokens.count", QUESTION)
        thread = await call("threads.create", {"model": "there/far"})
        await call("threads.run", {"thread_id": thread["id"], "content": "Hello"}, "remote run")
        await call("threads.run", {"thread_id": thread["id"], "content": "Hello", "model": "jan-tiny"})
        await call("engines.list", {})
        await call("engines.explain", {})
        await call("engines.install", {})
        await call("models.list", {})
        await call("models.inspect", {"id": "jan-tiny"})
        await call("models.load", {"id": "jan-tiny"})
        await call("models.unload", {"id": "jan-tiny"})
        file = {"name": "x.gguf", "url": base_url.replace("/v1", "/x.gguf"), "sha256": "0" * 64}
        await call("downloads.start", {"file": file})
        settings = {"url": base_url, "timeout_seconds": 0.5}
        await call("settings.set", {"extension": "registry", "values": settings})
        await call("registry.refresh", {})
        await call("registry.featured", {})
        await call("registry.search", {"text": "qwen", "source": "huggingface"}, "search elsewhere")
        await call("downloads.list", {})
        await call("system.doctor", {})
        await call("remotes.remove", {"id": "there"})
    return outcomes


if __name__ == "__main__":
    seen: list[list[str]] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(WATCHED):
            where = arguments[1] if event.startswith(("socket.connect", "socket.send")) else arguments[0]
            seen.append([event, str(where)])

    sys.addaudithook(watch)
    outcomes = asyncio.run(main(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]))
    print(json.dumps({"seen": seen, "outcomes": outcomes}))
