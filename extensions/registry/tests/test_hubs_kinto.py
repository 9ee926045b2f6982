"""A Kinto collection: what changed since, tombstones, and whether whoever signed it leads to the pinned root."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA224
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import example, given
from hypothesis import strategies as st
from jan_registry.hubs.content_signature import SignatureInvalid, root_hash, signed_bytes, verify
from jan_registry.hubs.errors import HubInvalid, HubRefused
from jan_registry.settings import SourceSetting

from jan_core import InvalidParams
from jan_core.types import ModelRecord, SourceQuery

from .contentsigner import NAME, NOW, Chain, signed_over
from .hubcase import Asked, Desk, HubServer, Shape, desk, everything, hub_server, json_shape
from .hubcase_kinto import COLLECTION, KINTO

pytestmark = pytest.mark.anyio

Records = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def chain() -> Chain:
    return Chain()


class Collection:
    """A collection as a server has it: what it holds, what changed when, and who signs it."""

    def __init__(self, *signers: Chain) -> None:
        self.signers = list(signers)
        self.records: Records = {}
        self.timestamp = 1000
        self.forgets: set[str] = set()  # changes that a broken server leaves out of its deltas
        self.tampered = False

    def put(self, id: str, **fields: Any) -> None:
        self.timestamp += 1
        self.records[id] = {"id": id, "name": id.title(), "last_modified": self.timestamp} | fields

    def delete(self, id: str) -> None:
        self.timestamp += 1
        self.records[id] = {"id": id, "deleted": True, "last_modified": self.timestamp}

    def reply(self, asked: Asked) -> Shape:
        if asked.path.startswith("/chains/"):
            return Shape(self.signers[int(asked.path[-1])].pem)
        assert asked.path == f"{COLLECTION}/changeset"
        assert "_expected" in asked.query
        since = int(asked.query.get("_since", '"0"').strip('"'))
        content = signed_over(list(self.records.values()), self.timestamp)
        changes = [
            one
            for one in self.records.values()
            if one["last_modified"] > since
            and (since or not one.get("deleted"))
            and not (since and one["id"] in self.forgets)
        ]
        if self.tampered:
            changes = [one | {"name": "Evil"} for one in changes]
        signatures = [
            {"signature": one.sign(content), "x5u": f"{{base}}/chains/{n}", "mode": "p384ecdsa"}
            for n, one in enumerate(self.signers)
        ]
        return json_shape({"changes": changes, "timestamp": self.timestamp, "metadata": {"signatures": signatures}})


def setting(server: HubServer, root: str, signer: str = NAME) -> SourceSetting:
    return SourceSetting("kinto", "kinto", server.url + COLLECTION, options={"root_hash": root, "signer": signer})


async def models(one: Desk, setting: SourceSetting) -> dict[str, ModelRecord]:
    return {model.id: model for model in await everything(one.hub(setting), limit=100)}


async def test_what_is_signed_is_verified_and_changes_come_as_changes(chain: Chain, tmp_path: Path) -> None:
    collection = Collection(chain)
    collection.put("a", description="Größe ☄ 😀", license="apache-2.0")
    collection.put("b")
    with hub_server() as server:
        server.reply = collection.reply
        async with desk(tmp_path) as one:
            first = await models(one, setting(server, chain.root))
            assert {id: model.verification for id, model in first.items()} == {"a": "verified", "b": "verified"}
            collection.delete("b")
            collection.put("c")
            collection.put("a", name="Renamed")
            one.clock.now += 2 * 3600
            second = await models(one, setting(server, chain.root))
    assert {id: model.name for id, model in second.items()} == {"a": "Renamed", "c": "C"}
    wholes = [asked for asked in server.asked if asked.path.endswith("changeset") and "_since" not in asked.query]
    assert len(wholes) == 1


async def test_a_delta_that_leaves_something_out_is_replaced_by_the_whole(chain: Chain, tmp_path: Path) -> None:
    collection = Collection(chain)
    collection.put("a")
    with hub_server() as server:
        server.reply = collection.reply
        async with desk(tmp_path) as one:
            await models(one, setting(server, chain.root))
            collection.put("b")
            collection.put("c")
            collection.forgets = {"b"}
            one.clock.now += 2 * 3600
            assert set(await models(one, setting(server, chain.root))) == {"a", "b", "c"}
        changesets = [asked.query for asked in server.asked if asked.path.endswith("changeset")]
        assert changesets[-1] == {"_expected": str(collection.timestamp)}


async def test_what_was_changed_on_the_way_is_refused_and_what_was_good_stays(chain: Chain, tmp_path: Path) -> None:
    collection = Collection(chain)
    collection.put("a")
    with hub_server() as server:
        server.reply = collection.reply
        async with desk(tmp_path) as one:
            await models(one, setting(server, chain.root))
            collection.put("a", name="Newer")
            collection.tampered = True
            one.clock.now += 2 * 3600
            with pytest.raises(HubInvalid, match="does not fit"):
                await models(one, setting(server, chain.root))
            collection.tampered = False
            one.clock.now += 2 * 3600
            assert (await models(one, setting(server, chain.root)))["a"].name == "Newer"


async def test_an_older_state_is_refused_even_when_it_is_signed(chain: Chain, tmp_path: Path) -> None:
    collection = Collection(chain)
    collection.put("a")
    collection.put("a", name="Fixed")
    with hub_server() as server:
        server.reply = collection.reply
        async with desk(tmp_path) as one:
            await models(one, setting(server, chain.root))
            collection.timestamp = 999
            one.clock.now += 2 * 3600
            with pytest.raises(HubInvalid, match="older state"):
                await models(one, setting(server, chain.root))


async def test_one_signature_of_several_is_enough(chain: Chain, tmp_path: Path) -> None:
    collection = Collection(Chain(), chain)
    collection.put("a")
    with hub_server() as server:
        server.reply = collection.reply
        async with desk(tmp_path) as one:
            assert (await models(one, setting(server, chain.root)))["a"].verification == "verified"


async def test_without_a_pinned_root_nobody_vouches_for_it(chain: Chain, tmp_path: Path) -> None:
    collection = Collection(chain)
    collection.put("a")
    with hub_server() as server:
        server.reply = collection.reply
        async with desk(tmp_path) as one:
            plain = SourceSetting("kinto", "kinto", server.url + COLLECTION)
            assert (await models(one, plain))["a"].verification == "unverified"
        assert not any(asked.path.startswith("/chains/") for asked in server.asked)


async def test_with_a_pinned_root_what_is_not_signed_is_refused(chain: Chain, tmp_path: Path) -> None:
    collection = Collection()
    collection.put("a")
    with hub_server() as server:
        server.reply = collection.reply
        async with desk(tmp_path) as one:
            with pytest.raises(HubInvalid, match="it is not signed"):
                await models(one, setting(server, chain.root))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"name": "other.content-signature.example"}, "somebody other"),
        ({"usage": ExtendedKeyUsageOID.SERVER_AUTH}, "not for signing code"),
        ({"ends": -1}, "not valid now"),
        ({"begins": 1}, "not valid now"),
        ({"issuer_is_ca": False}, "may not have issued"),
        ({"permitted": ".elsewhere.example"}, "may not give"),
        ({"curve": ec.SECP256R1()}, "P-384"),
        ({"forged": True}, "was not issued by"),
        ({"strange": True}, "not known here"),
        ({"hash": SHA224()}, "weak hash"),
    ],
)
def test_a_chain_with_a_fault_vouches_for_nothing(fault: dict[str, Any], reason: str) -> None:
    bad = Chain(**fault)
    content = signed_bytes([], 1)
    with pytest.raises(SignatureInvalid, match=reason):
        verify(content, bad.sign(content), bad.pem, root=bytes.fromhex(bad.root), signer=NAME, now=NOW)


def test_only_the_whole_truth_fits_a_signature(chain: Chain) -> None:
    content = signed_bytes([{"id": "a"}], 1)
    signature, root = chain.sign(content), bytes.fromhex(chain.root)

    def fits(**other: Any) -> bool:
        given = {"content": content, "signature": signature, "chain": chain.pem, "root": root, "signer": NAME} | other
        try:
            verify(**given, now=NOW)
        except SignatureInvalid:
            return False
        return True

    leaf, issuer, last = chain.pem.split(b"-----END CERTIFICATE-----\n")[:3]
    end = b"-----END CERTIFICATE-----\n"
    assert fits()
    assert not fits(content=content + b" ")
    assert not fits(signature=chain.sign(b"other"))
    assert not fits(signature=signature[:-4])
    assert not fits(signature="not base64!")
    assert not fits(signature=" " + signature)
    assert not fits(root=bytes(32))
    assert not fits(chain=b"")
    assert not fits(chain=leaf + end)
    assert not fits(chain=leaf + end + last + end)
    assert not fits(chain=issuer + end + leaf + end + last + end)
    assert not fits(chain=leaf + end + last + end + issuer + end)
    assert not fits(chain=chain.pem * 4)


@pytest.mark.parametrize("bad", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_no_chain(bad: bytes, chain: Chain) -> None:
    with pytest.raises(SignatureInvalid):
        verify(b"", chain.sign(b""), bad, root=bytes.fromhex(chain.root), signer=NAME, now=NOW)


@example(b"/", 453)  # an algorithm that nobody knows
@given(st.binary(max_size=60), st.integers(0, 3000))
def test_a_chain_with_a_byte_changed_is_refused_in_words(noise: bytes, at: int) -> None:
    chain = _shared()
    broken = chain.pem[:at] + noise + chain.pem[at + len(noise) :]
    if broken == chain.pem:
        return
    try:
        verify(b"x", chain.sign(b"x"), broken, root=bytes.fromhex(chain.root), signer=NAME, now=NOW)
    except SignatureInvalid:
        return
    # What still fits must be the same certificates, written otherwise (PEM allows text around them).
    assert _certificates(broken) == _certificates(chain.pem)


@cache
def _shared() -> Chain:
    return Chain()


def _certificates(pem: bytes) -> list[Any]:
    from cryptography import x509

    return x509.load_pem_x509_certificates(pem)


def test_what_is_signed_is_written_as_the_server_writes_it() -> None:
    records: list[dict[str, Any]] = [
        {"id": "b", "name": "I ❤ testing", "n": 2300, "attachment": None, "schema": 5},
        {"id": "gone", "deleted": True},
        {"id": "a", "é": "𝄞", "path": "image/jpeg", "quote": "'\"\\\n", "x": [{"b": 1, "a": None}]},
    ]
    # As canonicaljson-rs has it: keys in order, whatever is not ASCII escaped in lower case, `/` and `'` as they are.
    assert signed_bytes([one for one in records if one["id"] != "gone"], 1337) == (
        b'Content-Signature:\x00{"data":[{"id":"a","path":"image/jpeg","quote":"\'\\"\\\\\\n","x":[{"a":null,"b":1}],'
        b'"\\u00e9":"\\ud834\\udd1e"},{"id":"b","n":2300,"name":"I \\u2764 testing","schema":5}]'
        b',"last_modified":"1337"}'
    )
    with pytest.raises(SignatureInvalid, match="not whole"):
        signed_bytes([{"id": "a", "x": [{"y": 1.5}]}], 1)


def test_a_root_is_named_by_its_hash() -> None:
    assert root_hash(":".join(["aB"] * 32)) == b"\xab" * 32
    for text in ("", "abc", "zz" * 32, "ab" * 31):
        with pytest.raises(ValueError, match="root_hash"):
            root_hash(text)


async def test_a_source_with_a_root_that_is_no_hash_is_refused(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        with pytest.raises(InvalidParams, match="root_hash"):
            one.hub(SourceSetting("k", "kinto", "https://k.example", options={"root_hash": "abc"}))


async def test_records_that_are_not_ours_are_left_out_and_named(tmp_path: Path) -> None:
    with hub_server(KINTO.routes) as server:
        async with desk(tmp_path) as one:
            page = await one.hub(KINTO.setting(server.url)).page(SourceQuery())
    assert len(page.notes) == 1
    assert page.notes[0].startswith("wrong: files[0].path: ")


async def test_of_two_records_with_one_id_the_first_counts(chain: Chain, tmp_path: Path) -> None:
    collection = Collection(chain)
    collection.put("a", model="acme/a", schema=1790000000000)
    collection.put("b", model="acme/a")
    with hub_server() as server:
        server.reply = collection.reply
        async with desk(tmp_path) as one:
            page = await one.hub(setting(server, chain.root)).page(SourceQuery())
    assert [(model.id, model.name) for model in page.models] == [("acme/a", "A")]
    assert page.notes == ["b: id: another record has it"]


async def test_a_server_that_asks_for_peace_gets_it(chain: Chain, tmp_path: Path) -> None:
    collection = Collection(chain)
    collection.put("a")
    with hub_server() as server:

        def busy(asked: Asked) -> Shape:
            found = collection.reply(asked)
            return Shape(found.body, 200, {"Backoff": "60"} if "_since" in asked.query else {})

        server.reply = busy
        async with desk(tmp_path) as one:
            plain = SourceSetting("kinto", "kinto", server.url + COLLECTION)
            await models(one, plain)
            fresh = SourceSetting("kinto", "kinto", server.url + COLLECTION + "2")
            with pytest.raises(HubRefused) as refused:
                await models(one, fresh)
    assert (refused.value.reason, refused.value.retry_after) == ("rate_limited", 60)
    assert json.loads(json.dumps(refused.value.data))["reason"] == "rate_limited"
