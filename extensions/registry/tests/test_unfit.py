"""Records that were signed and may not be used all the same: not served, not found, and said."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from jan_registry.collections import canonical
from jan_registry.indexing import index
from jan_registry.listing import SignedListing, states_of
from jan_registry.search import find
from jan_registry.signed.fetching import fetcher
from jan_registry.signed.store import HubStore
from jan_registry.signed.sync import sync

from jan_core import RpcError

from .conftest import OpenHouse, no_network
from .hubmaker import Hub, model

pytestmark = pytest.mark.anyio


def with_file(id: str, **changes: Any) -> dict[str, Any]:
    record = model(id)
    return record | {"files": [record["files"][0] | changes]}


def from_url(id: str, url: str) -> dict[str, Any]:
    return with_file(id, sources=[{"kind": "https", "url": url}])


PIECES = {"len": 1, "n": 5, "sha256": "a" * 64, "target": "../../../../../etc/x"}
BAD = {
    "an id that leads out": model("../../evil/id"),
    "an id in capitals": model("EVIL/Upper"),
    "a file name that leads out": with_file("bad", path="../../../../escape.gguf"),
    "an absolute file name": with_file("bad", path="/tmp/x.gguf"),
    "a file of this machine": from_url("bad", "file:///etc/passwd"),
    "a source that anybody can change on the way": from_url("bad", "http://files.test/x.gguf"),
    "a repository that leads out": with_file(
        "bad", sources=[{"kind": "hf", "repo": "../..", "rev": "main", "path": "x"}]
    ),
    "pieces of a byte": with_file("bad", pieces=PIECES),
    "a name with an escape sequence": model("bad", name="\x1b]0;mine\x07"),
    "a name that turns the text around": model("bad", name="a\u202eb"),
    "a description of megabytes": model("bad", description="x" * 3_000_000),
    "a number beyond all measure": model("bad", params=2**70),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_signed_record_that_may_not_be_used_is_not_served_and_not_found(
    open_house: OpenHouse, hub: Hub, what: str
) -> None:
    bad = BAD[what]
    hub.models(model("good"), bad).set("featured", [{"id": "default", "models": ["bad", "good"]}])
    hub.publish()
    async with open_house(hub=hub) as house:
        await house.call("refresh")
        assert await house.ids() == ("network", ["good"])
        for method in ("get", "resolve"):
            with pytest.raises(RpcError) as unknown:
                await house.call(method, id=bad["id"])
            assert unknown.value.type == "model_unknown"
        with anyio.fail_after(10):  # what is found wanting in the background is no longer counted
            while (await house.call("search"))["total"] != 1:
                await anyio.lowlevel.checkpoint()
        assert [found["id"] for found in (await house.call("search"))["models"]] == ["good"]
        status = await house.call("status")
        assert status["models"] == 1
        assert any("1 passed over" in note and bad["id"] in note for note in status["notes"])


async def test_a_slot_that_may_not_be_used_is_passed_over(open_house: OpenHouse, hub: Hub) -> None:
    slots: list[dict[str, Any]] = [{"id": "UPPER", "models": ["a"], "priority": 9}, {"id": "default", "models": ["b"]}]
    hub.models("a", "b").set("featured", slots).publish()
    async with open_house(hub=hub) as house:
        await house.call("refresh")
        assert await house.ids() == ("network", ["b"])
        assert any("featured" in note for note in (await house.call("status"))["notes"])


async def test_a_revocation_that_is_not_in_order_still_holds_and_is_counted(open_house: OpenHouse, hub: Hub) -> None:
    hub.models("a", "b").set("featured", [{"id": "default", "models": ["a", "b"]}])
    hub.set("revocations", [{"id": "r1", "model": "A", "reason": "\x1b[2J"}, {"id": "r2", "reason": "of what?"}])
    hub.publish()
    async with open_house(hub=hub) as house:
        await house.call("refresh")
        assert await house.ids() == ("network", ["b"])
        with pytest.raises(RpcError) as revoked:
            await house.call("resolve", id="a")
        assert revoked.value.type == "model_revoked"
        assert "\x1b" not in revoked.value.message
        assert any("not in order: 2" in note for note in (await house.call("status"))["notes"])


def test_records_of_a_later_form_do_not_keep_the_list_from_being_had(hub: Hub, tmp_path: Path) -> None:
    later = {"id": "later", "schema": 2, "name": ["another form"]}
    hub.models("a", "b").collections["models"].append(canonical(later))
    hub.set("stats", [{"id": "a", "downloads": "many"}, {"id": "b", "downloads": 5}]).publish()
    store = HubStore(tmp_path / "store")
    try:
        fetch = fetcher(hub.url, no_network, timeout=9)
        sync(store, fetch, hub.root, now=time.time, on_models=index)
        with store.db.read() as db:
            assert find(db, "", 10, 0) == (["b", "a"], 2)
        listing = SignedListing(store, states_of(store), "cache", hub.url)
        assert listing.sweep(threading.Event()) == ["later"]
        assert (listing.count(), listing.get("later")) == (2, None)
        assert listing.sources("a" * 64) == []
        hub.models("a", "b", "c").publish()  # and the next change finds everything in its place
        sync(store, fetch, hub.root, now=time.time, on_models=index)
        with store.db.read() as db:
            assert find(db, "", 10, 0)[1] == 3
    finally:
        store.close()
