"""What the host really sends is what the contract for frontends says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import anyio
import jsonschema
import pytest

from jan_core import Event, RpcError

from .conftest import Spawn, question, taught


def validator(document: dict[str, Any], schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    """Checks a value against a schema of the document. Whatever the document says nothing of is refused."""
    return jsonschema.Draft202012Validator({**_closed(schema), "components": _closed(document["components"])})


def _closed(value: Any) -> Any:
    if isinstance(value, list):
        return [_closed(part) for part in value]
    if not isinstance(value, dict):
        return value
    closed = {name: _closed(inner) for name, inner in value.items()}
    if closed.get("type") == "object" and isinstance(closed.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed


async def test_results_items_and_events_are_what_the_document_says(sidecar: Spawn) -> None:
    async with sidecar() as running:
        document = await running.call("rpc.discover")
        methods = {method["name"]: method for method in document["methods"]}
        events = {event["name"]: event["schema"] for event in document["x-events"]}
        heard: list[Event] = []

        async def call(method: str, params: Any = None) -> Any:
            result = await running.call(method, params)
            validator(document, methods[method]["result"]["schema"]).validate(result)
            return result

        async def stream(method: str, params: Any) -> None:
            async with running.stream(method, params) as stream:
                items = [item async for item in stream]
                assert items
                for item in items:
                    validator(document, methods[method]["x-stream"]["schema"]).validate(item)
                validator(document, methods[method]["result"]["schema"]).validate(await stream.result())

        with running.client.notifications(heard.append):
            for method in ("extensions.list", "system.info", "system.doctor", "system.metrics", "settings.get"):
                await call(method)
            await call("settings.set", {"extension": "llamacpp", "values": {}})
            thread = await call("threads.create", {"title": "checked"})
            await call("assistants.create", {"name": "Checked", "parameters": {"temperature": 0}})
            await call("assistants.list")
            await call("models.load", {"id": "jan-tiny"})
            await call("models.list")
            await call("engines.list")
            await call("engines.explain")
            text, _ = taught("extension")
            await stream("chat.complete", question(text, stream=True, stream_options={"include_usage": True}))
            prompt = {"model": "jan-tiny", "prompt": "An extension", "max_tokens": 4, "stream": True}
            await stream("completions.create", prompt)
            await stream("threads.run", {"thread_id": thread["id"], "content": text})
            await call("messages.list", {"thread_id": thread["id"]})
            await call("tokens.count", question(text))
            await call("registry.status")
            await call("registry.featured")
            # Nobody listens on port 1: the download waits, and is there to be looked at.
            download = await call("downloads.start", {"file": {"name": "x.bin", "url": "http://127.0.0.1:1/x.bin"}})
            await call("downloads.cancel", {"id": download["id"]})
            with anyio.fail_after(10):
                while "downloads.changed" not in {event.name for event in heard}:
                    await call("ping")
        for event in heard:
            validator(document, events[event.name]).validate(event.data)
        assert {event.name for event in heard} >= {
            "assistants.changed",
            "downloads.changed",
            "models.changed",
            "settings.changed",
            "threads.changed",
        }


def test_every_event_that_is_emitted_has_a_type() -> None:
    root = Path(__file__).parents[1]
    sources = [*root.glob("jan_core/**/*.py"), *root.glob("extensions/*/src/**/*.py")]
    code = "".join(path.read_text("utf-8") for path in sources)
    emitted = set(re.findall(r"""(?:emit|\bEvent)\(\s*"([a-z]+\.[a-zA-Z]+)",""", code))
    declared = set(re.findall(r"^## `(.*)`$", (root / "docs/reference/events.md").read_text("utf-8"), re.MULTILINE))
    assert len(emitted) > 8
    assert emitted == declared


async def test_errors_are_those_that_their_methods_declare(sidecar: Spawn) -> None:
    async with sidecar() as running:
        document = await running.call("rpc.discover")
        codes = {(row["data"]["type"], row["code"]) for row in document["x-errors"]}
        for method, params in (
            ("threads.get", {"thread_id": "nope"}),
            ("assistants.get", {"assistant_id": "nope"}),
            ("models.inspect", {"id": "nope"}),
            ("downloads.get", {"id": "nope"}),
            ("engines.remove", {"id": "nope"}),
            ("registry.get", {"id": "nope"}),
        ):
            with pytest.raises(RpcError) as caught:
                await running.call(method, params)
            declared = next(m["errors"] for m in document["methods"] if m["name"] == method)
            assert (caught.value.type, caught.value.code) in {(e["data"]["type"], e["code"]) for e in declared}
            assert (caught.value.type, caught.value.code) in codes
