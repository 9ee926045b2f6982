"""The product's own extensions are replaced while they run, as everybody's."""

from __future__ import annotations

from pathlib import Path

import anyio

from jan_core.host import Host


async def test_every_first_party_extension_is_reloaded_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with Host(tmp_path) as host:
        client = host.client()
        await host.lifecycle.activate_all()
        ids = sorted(host.lifecycle.extensions)
        assert set(ids) >= {"assistant", "conversational", "download", "llamacpp", "registry"}
        thread = await client.call("threads.create", {"title": "kept"})
        for id in ids:
            assert (await client.call("extensions.reload", {"id": id, "force": True}))["generation"] == 2
        assert (await client.call("threads.get", {"thread_id": thread["id"]}))["title"] == "kept"
        with anyio.fail_after(20):
            await host.lifecycle.generations.settled()
        rows = (await client.call("extensions.list"))["extensions"]
        assert {row["id"]: row.get("leaks", row.get("failure")) for row in rows} == dict.fromkeys(ids)
