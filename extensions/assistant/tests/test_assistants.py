"""The methods `assistants.*` through the real host."""

from __future__ import annotations

from typing import Any

import pytest

from jan_core import RpcError
from jan_core.events import Event
from jan_core.rpc.direct import DirectClient
from jan_core.types import Assistant

from .conftest import OpenHouse

pytestmark = pytest.mark.anyio

JAN = {"id": "jan", "name": "Jan", "instructions": "You are a helpful assistant."}


async def expect(client: DirectClient, method: str, params: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await client.call(method, params)
    return caught.value


async def test_the_default_assistant_is_there_from_the_beginning(client: DirectClient) -> None:
    assert await client.call("assistants.get", {"assistant_id": "jan"}) == JAN
    assert await client.call("assistants.list") == {"assistants": [JAN]}


async def test_the_default_assistant_can_be_changed_but_not_deleted(client: DirectClient) -> None:
    changed = await client.call("assistants.update", {"assistant_id": "jan", "instructions": "Be brief."})
    assert (changed["name"], changed["instructions"]) == ("Jan", "Be brief.")
    error = await expect(client, "assistants.delete", {"assistant_id": "jan"})
    assert (error.code, error.type, error.retryable) == (-32022, "assistant_protected", False)
    assert await client.call("assistants.get", {"assistant_id": "jan"}) == changed


async def test_what_was_made_changed_and_deleted_is_so_after_a_restart(open_house: OpenHouse) -> None:
    params = {
        "name": "Grüße 👩‍🚀",
        "instructions": "a\x00b\n世界",
        "description": "d",
        "model": "jan-tiny",
        "parameters": {"temperature": 0.2, "stop": ["x"]},
        "avatar": "👋",
    }
    async with open_house() as host:
        client = host.client("test")
        made = await client.call("assistants.create", params, result=Assistant)
        gone = await client.call("assistants.create", {"name": "Gone"})
        changed = await client.call("assistants.update", {"assistant_id": made.id, "model": ""}, result=Assistant)
        await client.call("assistants.delete", {"assistant_id": gone["id"]})
    assert made.created_at == changed.created_at <= changed.updated_at
    async with open_house() as host:
        client = host.client("test")
        found = await client.call("assistants.get", {"assistant_id": made.id})
        assert {k: found.get(k) for k in params} == {**params, "model": None}
        listed = (await client.call("assistants.list"))["assistants"]
        assert [a["id"] for a in listed] == ["jan", made.id]


async def test_an_update_leaves_what_is_not_given_and_replaces_parameters_as_a_whole(client: DirectClient) -> None:
    await client.call(
        "assistants.create",
        {"id": "poet", "name": "Poet", "model": "m", "parameters": {"top_k": 3, "seed": 1}},
    )
    changed = await client.call("assistants.update", {"assistant_id": "poet", "parameters": {"top_p": 0.5}})
    assert (changed["name"], changed["model"], changed["parameters"]) == ("Poet", "m", {"top_p": 0.5})


async def test_ids_of_nothing_and_ids_taken_are_typed_errors(client: DirectClient) -> None:
    for method in ("assistants.get", "assistants.update", "assistants.delete"):
        error = await expect(client, method, {"assistant_id": "nobody"})
        assert (error.code, error.type, error.data) == (-32020, "assistant_not_found", {"assistant_id": "nobody"})
    await client.call("assistants.create", {"id": "poet", "name": "Poet"})
    for taken in ("poet", "jan"):
        error = await expect(client, "assistants.create", {"id": taken, "name": "x"})
        assert (error.code, error.type) == (-32021, "assistant_exists")


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, "$"),
        ({"name": ""}, "$.name"),
        ({"name": " \u3000 "}, "$.name"),
        ({"name": "two\nlines"}, "$.name"),
        ({"name": "nul\x00"}, "$.name"),
        ({"name": "x" * 201}, "$.name"),
        ({"name": "x", "id": "../jan"}, "$.id"),
        ({"name": "x", "id": ""}, "$.id"),
        ({"name": "x", "colour": "red"}, "$"),
        ({"name": "x", "instructions": "x" * (256 * 1024 + 1)}, "$.instructions"),
        ({"name": "x", "instructions": "\ud800"}, "$"),
        ({"name": "x", "parameters": {"temperature": -1}}, "$.parameters.temperature"),
        ({"name": "x", "parameters": {"temperature": "hot"}}, "$.parameters.temperature"),
        ({"name": "x", "parameters": {"warmth": 1}}, "$.parameters"),
        ({"name": "x", "parameters": {"stop": ["x"] * 65}}, "$.parameters.stop"),
    ],
)
async def test_bad_params_are_refused_with_the_path_of_the_field(
    client: DirectClient, params: dict[str, Any], path: str
) -> None:
    error = await expect(client, "assistants.create", params)
    assert (error.code, error.data["path"]) == (-32602, path)
    assert await client.call("assistants.list") == {"assistants": [JAN]}


async def test_changes_are_told(client: DirectClient) -> None:
    heard: list[Event] = []
    with client.notifications(heard.append):
        await client.call("assistants.create", {"id": "poet", "name": "Poet"})
        await client.call("assistants.update", {"assistant_id": "poet", "name": "Bard"})
        await client.call("assistants.delete", {"assistant_id": "poet"})
        await client.call("assistants.list")
    assert [(e.name, e.data) for e in heard] == [("assistants.changed", {"assistant_id": "poet"})] * 3
