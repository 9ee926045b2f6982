"""Threads and messages through the real host."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from jan_core import RpcError
from jan_core.types import Message, Thread

from .conftest import House, OpenHouse

pytestmark = pytest.mark.anyio

TEXTS = [
    "",
    "Grüße, 世界, 👩‍🚀🏳️‍🌈, e\u0301",
    "a\x00b\x00",
    "\u2028\u2029\ufeff\ufffe\x7f\x1b[31m",
    "'; DROP TABLE threads; --",
    "🜁" * (1024 * 1024 // 4),
    "\x00" * (4 * 1024 * 1024),
]


async def expect(house: House, method: str, params: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await house.call(method, params)
    return caught.value


@pytest.mark.parametrize("incognito", [False, True])
@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:12]))
async def test_any_text_comes_back_as_it_was(house: House, text: str, incognito: bool) -> None:
    id = await house.thread(incognito=incognito)
    params = {"thread_id": id, "content": text, "metadata": {"größe": [1, None, {"a": "\x00"}]}}
    message = await house.call("messages.create", params, result=Message)
    assert await house.messages(id) == [message]
    assert (message.content, message.metadata) == (text, params["metadata"])


async def test_what_was_stored_is_there_after_a_restart(open_house: OpenHouse) -> None:
    async with open_house() as house:
        id = await house.thread(title="Named", model="m", assistant_id="a", metadata={"k": 1})
        thread = await house.call("threads.get", {"thread_id": id})
        await house.call("messages.create", {"thread_id": id, "content": "x", "pinned": True})
        before = await house.messages(id)
    async with open_house() as house:
        assert await house.messages(id) == before
        after = await house.call("threads.get", {"thread_id": id})
        assert {**after, "updated_at": ""} == {**thread, "updated_at": ""}


async def test_the_first_user_message_names_a_thread_unless_it_is_named(house: House) -> None:
    unnamed, named = await house.thread(), await house.thread(title="Mine")
    for id in (unnamed, named):
        await house.call("messages.create", {"thread_id": id, "role": "system", "content": "rules"})
        await house.call("messages.create", {"thread_id": id, "content": "What is a whale?\nTell me."})
        await house.call("messages.create", {"thread_id": id, "content": "And a fish?"})
    titles = [(await house.call("threads.get", {"thread_id": id}))["title"] for id in (unnamed, named)]
    assert titles == ["What is a whale?", "Mine"]


async def test_an_update_changes_what_is_given_and_nothing_else(house: House) -> None:
    id = await house.thread(title="A", model="m", metadata={"k": 1})
    before = await house.call("threads.get", {"thread_id": id}, result=Thread)
    after = await house.call("threads.update", {"thread_id": id, "title": "B"}, result=Thread)
    assert (after.title, after.model, after.metadata) == ("B", "m", {"k": 1})
    assert after.updated_at > before.updated_at
    message = await house.call("messages.create", {"thread_id": id, "content": "x", "metadata": {"k": 1}})
    changed = await house.call(
        "messages.update", {"thread_id": id, "message_id": message["id"], "pinned": True}, result=Message
    )
    assert (changed.content, changed.pinned, changed.metadata) == ("x", True, {"k": 1})
    assert await house.messages(id) == [changed]


async def test_deleted_messages_and_threads_are_gone_and_numbers_are_not_used_again(house: House) -> None:
    id = await house.thread()
    ids = [(await house.call("messages.create", {"thread_id": id, "content": c}))["id"] for c in "abc"]
    await house.call("messages.delete", {"thread_id": id, "message_id": ids[2]})
    added = await house.call("messages.create", {"thread_id": id, "content": "d"})
    assert added["sequence"] == 4
    assert [m.content for m in await house.messages(id)] == ["a", "b", "d"]
    await house.call("threads.delete", {"thread_id": id})
    assert (await expect(house, "threads.get", {"thread_id": id})).type == "thread_not_found"
    assert (await expect(house, "messages.list", {"thread_id": id})).type == "thread_not_found"


async def test_ids_of_nothing_are_typed_errors(house: House) -> None:
    id, other = await house.thread(), await house.thread()
    message = (await house.call("messages.create", {"thread_id": other, "content": "x"}))["id"]
    missing = {"thread_id": "nobody"}
    for method, params in [
        ("threads.get", missing),
        ("threads.update", {**missing, "title": "x"}),
        ("threads.delete", missing),
        ("messages.list", missing),
        ("messages.create", {**missing, "content": "x"}),
        ("messages.update", {**missing, "message_id": message}),
        ("messages.delete", {**missing, "message_id": message}),
    ]:
        error = await expect(house, method, params)
        assert (error.code, error.type, error.data) == (-32025, "thread_not_found", missing)
    for method in ("messages.update", "messages.delete"):  # a message of another thread is not this one's
        error = await expect(house, method, {"thread_id": id, "message_id": message})
        assert (error.code, error.type) == (-32026, "message_not_found")


@pytest.mark.parametrize(
    ("method", "params", "path"),
    [
        ("threads.get", {"thread_id": "../../etc"}, "$.thread_id"),
        ("threads.get", {"thread_id": "x" * 200}, "$.thread_id"),
        ("threads.get", {"thread_id": "x", "extra": 1}, "$"),
        ("threads.create", {"title": "x" * 501}, "$.title"),
        ("threads.create", {"metadata": {"k": "x" * 70_000}}, "$.metadata"),
        ("threads.list", {"limit": 0}, "$.limit"),
        ("threads.list", {"limit": 201}, "$.limit"),
        ("threads.list", {"cursor": "not one"}, "$.cursor"),
        ("threads.list", {"cursor": "ä"}, "$.cursor"),
        ("messages.list", {"thread_id": "T", "cursor": "W10"}, "$.cursor"),
        ("messages.create", {"thread_id": "T", "content": "x" * (4 * 1024 * 1024 + 1)}, "$.content"),
        ("messages.create", {"thread_id": "T", "content": "x", "role": "king"}, "$.role"),
        ("messages.create", {"thread_id": "T", "content": "x", "metadata": {"k": "x" * 70_000}}, "$.metadata"),
        ("messages.create", {"thread_id": "T", "content": "\ud800"}, "$"),
        ("threads.run", {"thread_id": "T", "content": "x", "parameters": {"temperature": 9}},
         "$.parameters.temperature"),
        ("threads.run", {"thread_id": "T", "content": "x", "parameters": {"warmth": 1}}, "$.parameters"),
    ],
)  # fmt: skip
async def test_bad_params_are_refused_with_the_path_of_the_field(
    house: House, method: str, params: dict[str, Any], path: str
) -> None:
    id = await house.thread()
    if params.get("thread_id") == "T":
        params = {**params, "thread_id": id}
    error = await expect(house, method, params)
    assert (error.code, error.data["path"]) == (-32602, path)
    assert await house.messages(id) == []


async def test_pages_hold_every_thread_once_the_last_used_first(house: House) -> None:
    ids = [await house.thread() for _ in range(7)]
    await house.call("messages.create", {"thread_id": ids[2], "content": "x"})
    seen: list[str] = []
    cursor = ""
    while True:
        page = await house.call("threads.list", {"limit": 3, "cursor": cursor})
        seen += [t["id"] for t in page["threads"]]
        cursor = page.get("cursor", "")
        if not cursor:
            break
    assert seen == [ids[2], *reversed(ids[3:]), ids[1], ids[0]]


async def test_a_page_of_long_messages_ends_before_it_outgrows_the_channel(house: House) -> None:
    id = await house.thread()
    for _ in range(3):
        await house.call("messages.create", {"thread_id": id, "content": "x" * (3 * 1024 * 1024)})
    cursor, sizes = "", []
    while True:
        page = await house.call("messages.list", {"thread_id": id, "cursor": cursor})
        sizes.append(len(page["messages"]))
        cursor = page.get("cursor", "")
        if not cursor:
            break
    assert sizes == [1, 1, 1]


async def test_a_cursor_of_the_other_order_is_refused(house: House) -> None:
    id = await house.thread()
    for c in "ab":
        await house.call("messages.create", {"thread_id": id, "content": c})
    page = await house.call("messages.list", {"thread_id": id, "limit": 1})
    error = await expect(house, "messages.list", {"thread_id": id, "cursor": page["cursor"], "order": "desc"})
    assert error.data["path"] == "$.cursor"


async def test_changes_are_told(house: House) -> None:
    heard: list[Any] = []
    with house.client.notifications(lambda e: heard.append((e.name, msgspec.to_builtins(e.data)))):
        id = await house.thread()
        await house.call("threads.update", {"thread_id": id, "title": "x"})
        message = (await house.call("messages.create", {"thread_id": id, "content": "x"}))["id"]
        await house.call("messages.update", {"thread_id": id, "message_id": message, "content": "y"})
        await house.call("messages.delete", {"thread_id": id, "message_id": message})
        await house.call("threads.delete", {"thread_id": id})
    assert [event for event in heard if event[0] == "threads.changed"] == [("threads.changed", {"thread_id": id})] * 6
    erased = [event for event in heard if event[0] == "threads.erased"]
    assert erased == [("threads.erased", {"thread_id": id})] * 3, "for what was replaced, and what was deleted"
    with anyio.fail_after(30):
        while not house.engine.added:
            await anyio.lowlevel.checkpoint()
    assert [m.content for m in house.engine.added] == ["x"]
