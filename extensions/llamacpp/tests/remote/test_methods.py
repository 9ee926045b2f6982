"""The methods of remote engines, and where their keys are kept."""

# ruff: noqa: ASYNC240 (a test has its event loop to itself)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jan_core import RpcError

from ..endpoint import Answer, Endpoint, reply, streamed, text_chunks
from .asking import KEY, add, ask, question

pytestmark = pytest.mark.anyio


async def test_a_remote_is_added_listed_tested_and_removed(client: Any, endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.answers = [reply("200 OK", '{"object": "list", "data": [{"id": "m"}, {"id": "n"}]}')]
    added = await add(client, endpoint, key=KEY, models=["m"])
    assert added["key"] == "file"
    listed = await client.call("remotes.list")
    assert listed == {"remotes": [added], "kept_here": ""}
    tested = await client.call("remotes.test", {"id": "there"})
    assert (tested["models"], tested["key"]) == (["m", "n"], "file")
    assert (endpoint.asked[0].method, endpoint.asked[0].path) == ("GET", "/v1/models")
    assert endpoint.asked[0].headers["authorization"] == f"Bearer {KEY}"
    keys = tmp_path / "data" / "llamacpp" / "keys"
    assert [path.name for path in keys.iterdir()] == ["there.json"]
    assert await client.call("remotes.remove", {"id": "there"}) == {}
    assert (await client.call("remotes.list"))["remotes"] == []
    assert list(keys.iterdir()) == []
    for name in ("remotes.remove", "remotes.test"):
        with pytest.raises(RpcError) as caught:
            await client.call(name, {"id": "there"})
        assert (caught.value.type, caught.value.data["known"]) == ("remote_not_found", [])


async def test_the_key_is_in_no_setting_no_answer_no_log_and_in_a_file_of_its_owners_alone(
    client: Any, endpoint: Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    endpoint.answers = [streamed(text_chunks("x"))]
    answers = [await add(client, endpoint, key=KEY), await client.call("remotes.list")]
    await ask(client)
    assert endpoint.asked[0].headers["authorization"] == f"Bearer {KEY}"
    answers += [await client.call("settings.get"), await client.call("settings.schema")]
    assert KEY not in json.dumps(answers)
    assert KEY not in caplog.text
    holding = [p for p in tmp_path.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    assert [p.name for p in holding] == ["there.json"]
    assert holding[0].stat().st_mode & 0o777 == 0o600
    assert holding[0].parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", ["readable", "link", "folder", "gone", "garbage"])
async def test_a_key_file_that_is_not_its_owners_alone_is_not_used(
    client: Any, endpoint: Endpoint, tmp_path: Path, damage: str
) -> None:
    endpoint.answers = [streamed(text_chunks("x"))]
    await add(client, endpoint, key=KEY)
    path = tmp_path / "data" / "llamacpp" / "keys" / "there.json"
    if damage == "readable":
        path.chmod(0o640)
    elif damage == "garbage":
        path.write_bytes(b"\xff{")
    else:
        path.rename(path.with_suffix(".moved"))
        if damage == "link":
            path.symlink_to(path.with_suffix(".moved"))
        elif damage == "folder":
            path.mkdir()
    with pytest.raises(RpcError) as caught:
        await ask(client)
    assert caught.value.type == "remote_key_unavailable"
    assert KEY not in str(caught.value.to_object())
    assert endpoint.asked == []


async def test_a_key_goes_to_no_other_address_than_the_one_it_was_given_for(client: Any, endpoint: Endpoint) -> None:
    await add(client, endpoint, key=KEY)
    async with Endpoint().serving() as thief:
        thief.answers = [streamed(text_chunks("x"))]
        row = {"id": "there", "base_url": thief.base_url, "key": "file"}
        await client.call("settings.set", {"extension": "llamacpp", "values": {"remotes": [row]}})
        with pytest.raises(RpcError) as caught:
            await ask(client)
        assert (caught.value.type, thief.connections) == ("remote_key_unavailable", 0)


async def test_a_changed_address_loses_the_key_and_a_changed_limit_keeps_it(
    client: Any, endpoint: Endpoint, tmp_path: Path
) -> None:
    await add(client, endpoint, key=KEY)
    assert (await add(client, endpoint, retries=0))["key"] == "file"
    async with Endpoint().serving() as other:
        assert (await add(client, other)).get("key", "none") == "none"
    assert list((tmp_path / "data" / "llamacpp" / "keys").iterdir()) == []


async def test_two_of_one_id_are_refused_unless_one_replaces_the_other(client: Any, endpoint: Endpoint) -> None:
    await add(client, endpoint)
    for id in ("there", "llamacpp"):
        with pytest.raises(RpcError) as caught:
            await client.call("remotes.add", {"remote": {"id": id, "base_url": endpoint.base_url}})
        assert caught.value.type == "remote_exists"


async def test_a_key_goes_to_the_systems_keyring_where_there_is_one(
    client: Any, endpoint: Endpoint, tmp_path: Path
) -> None:
    import keyring
    from keyring.backend import KeyringBackend

    class Ring(KeyringBackend):
        """A keyring in memory."""

        priority = 5
        kept: dict[tuple[str, str], str]
        locked = False

        def get_password(self, service: str, username: str) -> str | None:
            if self.locked:
                raise keyring.errors.KeyringLocked("no")
            return self.kept.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            self.kept[service, username] = password

        def delete_password(self, service: str, username: str) -> None:
            del self.kept[service, username]

    ring = Ring()  # type: ignore[no-untyped-call]
    ring.kept = {}
    keyring.set_keyring(ring)
    endpoint.answers = [streamed(text_chunks("x"))]
    assert (await add(client, endpoint, key=KEY))["key"] == "keyring"
    assert ring.kept == {("jan remote engine", f"there http://127.0.0.1:{endpoint.port}"): KEY}
    assert [p for p in tmp_path.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()] == []
    await ask(client)
    assert endpoint.asked[0].headers["authorization"] == f"Bearer {KEY}"
    ring.locked = True
    with pytest.raises(RpcError) as caught:
        await ask(client)
    assert (caught.value.type, len(endpoint.asked)) == ("remote_key_unavailable", 1)
    ring.locked = False
    await client.call("remotes.remove", {"id": "there"})
    assert ring.kept == {}


async def test_without_the_library_of_keyrings_the_file_is_used(
    client: Any, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "keyring", None)
    assert (await add(client, endpoint, key=KEY))["key"] == "file"


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "\u00fcmlaut", "x" * 5000])
async def test_a_key_that_fits_no_header_is_refused_without_being_quoted(
    client: Any, endpoint: Endpoint, key: str
) -> None:
    with pytest.raises(RpcError) as caught:
        await add(client, endpoint, key=key)
    assert caught.value.type == "invalid_params"
    assert not key or key not in str(caught.value.to_object())


@pytest.mark.parametrize(
    ("answer", "type"),
    [
        (reply("401 Unauthorized"), "remote_auth_failed"),
        (reply("200 OK", '{"models": 3, "data": 5}'), "remote_answer_invalid"),
        (reply("200 OK", "<html>", kind="text/html"), "remote_answer_invalid"),
    ],
)
async def test_a_test_says_what_is_wrong(client: Any, endpoint: Endpoint, answer: Answer, type: str) -> None:
    endpoint.answers = [answer]
    await add(client, endpoint)
    with pytest.raises(RpcError) as caught:
        await client.call("remotes.test", {"id": "there"})
    assert caught.value.type == type


async def test_an_endpoint_that_lists_no_models_passes_the_test(client: Any, endpoint: Endpoint) -> None:
    endpoint.answers = [reply("404 Not Found")]
    await add(client, endpoint)
    assert (await client.call("remotes.test", {"id": "there"}))["models"] == []


async def test_only_the_models_that_were_named_may_be_asked_for(client: Any, endpoint: Endpoint) -> None:
    await add(client, endpoint, models=["n"])
    with pytest.raises(RpcError) as caught:
        await client.call("remotes.complete", question())
    assert (caught.value.type, caught.value.data["known"]) == ("remote_model_not_found", ["n"])
    assert endpoint.asked == []


def test_nothing_heavy_is_imported_before_a_remote_is_asked() -> None:
    import subprocess
    import sys

    program = (
        "import sys, jan_llamacpp.plugin; from jan_llamacpp.plugin import LlamaCppExtension; LlamaCppExtension(); "
        "print([m for m in ('httpx', 'keyring') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
