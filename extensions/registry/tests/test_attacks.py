"""Whoever holds the server, the way to it, the clock or a stolen key: what is served stays what the hub's keys signed.

Every attack is drawn from a seed, ten of each by default; `JAN_TEST_ATTACKS=1000` runs so many, and `pytest -s` prints
what they came to. After each, the client syncs with the true hub, so that none of them locks anybody out.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import socket
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from jan_registry.collections import COLLECTIONS, canonical
from jan_registry.publish.roles import utc
from jan_registry.signed.errors import Refused
from jan_registry.signed.fetching import Fetch, NotThere, Unreachable
from jan_registry.signed.http import HttpFetch
from jan_registry.signed.report import SyncReport
from jan_registry.signed.verification import vouch
from tuf.api.metadata import Metadata, MetaFile

from .hubmaker import Hub, key
from .signed_keys import newest, rotate_online, signed
from .signed_kit import Client, Overlay, Served
from .wire import Wire, answer, wire

__all__ = ["wire"]

SEEDS = int(os.environ.get("JAN_TEST_ATTACKS", "10"))
BASE = 1_800_000_000.0
HOUR, DAY = 3600, 86400
VERSIONS = 5
FAR = 1_000_000
"""A version that no hub comes to: how far a thief may raise one."""


@dataclass
class World:
    """A hub's history. `trees[v]`: the tree when version `v` was current; `served[v]`: what it published then;
    `machines[v]`: a client's folder that has followed it so far. `rotated`: the last one, with other online keys."""

    folder: Path
    root: bytes
    signers: dict[str, Any]
    trees: dict[int, Path] = field(default_factory=dict)
    served: dict[int, Served] = field(default_factory=dict)
    machines: dict[int, Path] = field(default_factory=dict)
    tally: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    copies: int = 0

    @property
    def rotated(self) -> Path:
        return self.folder / "rotated"

    def machine(self, version: int) -> Client:
        """A client that has followed the hub to this version."""
        self.copies += 1
        folder = self.folder / "run" / str(self.copies)
        shutil.copytree(self.machines[version], folder, symlinks=True)
        return Client(folder, self.root)

    def done(self, client: Client) -> None:
        client.close()
        shutil.rmtree(client.store.folder)


def published(hub: Hub) -> Served:
    def id_of(data: bytes) -> str:
        return str(json.loads(data)["id"])

    return {name: sorted(hub.collections.get(name, []), key=id_of) for name in COLLECTIONS}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    hub = Hub(folder, now=BASE)
    world = World(folder, hub.root, dict(hub.signers))
    follower = Client(folder / "follower", hub.root)
    for version in range(1, VERSIONS + 1):
        hub.models(*[f"maker/model-{number:02}" for number in range(version, 25 + 2 * version)])
        hub.set("featured", [{"id": "main", "models": [f"maker/model-{version:02}"]}])
        hub.set("revocations", [{"id": f"r{number}", "reason": "bad"} for number in range(version)])
        hub.publish(now=BASE + version * HOUR)
        world.trees[version] = Path(shutil.copytree(hub.tree, folder / "trees" / str(version)))
        world.served[version] = published(hub)
        follower.sync(hub.tree, BASE + version * HOUR)
        assert follower.served() == world.served[version]
        follower.close()
        world.machines[version] = Path(shutil.copytree(follower.store.folder, folder / "machines" / str(version)))
    fresh: dict[str, Any] = {role: [key(f"fresh {role}")] for role in ("snapshot", "timestamp")}
    rotate_online(Path(shutil.copytree(hub.tree, world.rotated)), dict(world.signers), fresh)
    yield world
    for attack, kinds in world.tally.items():
        print(f"\n{attack}: {sum(kinds.values())} runs, {dict(sorted(kinds.items()))}", end="")


def attack(
    world: World,
    name: str,
    client: Client,
    way: Fetch,
    at: float,
    *,
    kinds: Iterable[str],
    truth: int = VERSIONS,
    held: Sequence[str] = tuple(COLLECTIONS),
) -> None:
    """Sync by this way. It must be refused for one of `kinds`; the collections `held` must stay as they are, and any
    other may at most become what the hub signed as version `truth`."""
    before = client.served()
    try:
        report = client.sync(way, at)
    except Refused as error:
        outcome = error.kind
    except Unreachable:
        outcome = "unreachable"  # type: ignore[assignment]
    else:
        outcome = report.outcome  # type: ignore[assignment]
    after = client.served()
    for collection in COLLECTIONS:
        allowed = [before[collection]] if collection in held else [before[collection], world.served[truth][collection]]
        assert after[collection] in allowed, (name, outcome, collection)
    assert outcome in set(kinds), (name, outcome)
    world.tally[name][outcome] += 1


def recovers(world: World, client: Client, at: float = BASE + VERSIONS * HOUR + 60, tree: Path | None = None) -> None:
    client.sync(tree or world.trees[VERSIONS], at)
    assert client.served() == world.served[VERSIONS]
    assert vouch(client.state(), at).status == "verified"


def seeds(name: str) -> Iterator[random.Random]:
    for seed in range(SEEDS):
        yield random.Random(f"{name} {seed}")


def forget(world: World, client: Client, rng: random.Random) -> str:
    """What happens to TUF's own cache: nothing, loss, or an older machine's in its place."""
    how = rng.choice(["kept", "lost", "replaced"])
    cache = client.store.folder / "tuf"
    if how != "kept":
        shutil.rmtree(cache)
    if how == "replaced":
        shutil.copytree(world.machines[1] / "tuf", cache, symlinks=True)
    return how


def at_version(version: int, payload: Any) -> None:
    payload.version = version


def online(
    world: World,
    tree: Path,
    signers: dict[str, Any],
    *,
    snapshot: int,
    timestamp: int,
    meta: dict[str, int] | None = None,
    expires: float = BASE + 7 * DAY,
) -> dict[str, bytes | Exception | None]:
    """A snapshot and a timestamp of these versions, signed by whoever holds `signers`. `meta`: 0 leaves a role out."""

    def for_snapshot(payload: Any) -> None:
        payload.version, payload.expires = snapshot, utc(expires)
        payload.meta |= {f"{role}.json": MetaFile(version) for role, version in (meta or {}).items() if version}
        for role in [role for role, version in (meta or {}).items() if not version]:
            del payload.meta[f"{role}.json"]

    def for_timestamp(payload: Any) -> None:
        payload.version, payload.expires, payload.snapshot_meta = timestamp, utc(expires), MetaFile(snapshot)

    return {
        f"metadata/{snapshot}.snapshot.json": signed(newest(tree, "snapshot"), signers["snapshot"], for_snapshot),
        "metadata/timestamp.json": signed(newest(tree, "timestamp"), signers["timestamp"], for_timestamp),
    }


def test_rollback_to_what_was_once_signed(world: World) -> None:
    for rng in seeds("rollback"):
        version = rng.randint(2, VERSIONS)
        older = rng.randint(1, version - 1)
        client = world.machine(version)
        how = rng.choice(["everything", "timestamp key", "online keys", "online keys, nothing"])
        forget(world, client, rng)
        way = Overlay(world.trees[older if how == "everything" else version])
        if how == "timestamp key":  # a new timestamp leads to an old snapshot
            content = online(
                world, world.trees[older], world.signers, snapshot=older, timestamp=version + rng.randint(1, 9)
            )
            way.files["metadata/timestamp.json"] = content["metadata/timestamp.json"]
        elif how != "everything":  # everything is new but for one collection, which is old or gone
            models = older if how == "online keys" else 0
            way.files |= online(
                world,
                world.trees[version],
                world.signers,
                snapshot=version + 9,
                timestamp=version + 9,
                meta={"models": models},
            )
        at = BASE + rng.randint(version * HOUR, DAY)
        attack(
            world, f"rollback, {how}", client, way, at, kinds=["rollback", "mix"] if "nothing" in how else ["rollback"]
        )
        # With a stolen key the thief's timestamp was good, so that it takes other keys to be heard again.
        recovers(world, client, tree=world.trees[VERSIONS] if how == "everything" else world.rotated)
        world.done(client)


def test_freeze_at_a_state_that_has_expired(world: World) -> None:
    for rng in seeds("freeze"):
        version = rng.randint(1, VERSIONS)
        client = world.machine(version)
        forget(world, client, rng)
        soon = BASE + rng.randint(version * HOUR, 40 * HOUR)
        attack(world, "freeze", client, Overlay(world.trees[version]), soon, kinds=["unchanged"], truth=version)
        late = BASE + rng.randint(3 * DAY, 3000 * DAY)
        attack(world, "freeze, expired", client, Overlay(world.trees[version]), late, kinds=["expired"])
        assert vouch(client.state(), late).status == "stale"
        recovers(world, client)
        world.done(client)


def test_mixing_files_of_different_states(world: World) -> None:
    for rng in seeds("mix"):
        version = rng.randint(1, VERSIONS - 1)
        client = world.machine(version)
        tree, other = world.trees[VERSIONS], world.trees[rng.randint(1, VERSIONS - 1)]
        forget(world, client, rng)
        way = Overlay(tree)
        role = rng.choice(["snapshot", "models", "featured", "revocations"])
        held, what = tuple(COLLECTIONS), rng.choice(["metadata", "metadata of another role", "content"])
        current = newest(tree, role).signed.version
        if what == "metadata":
            way.files[f"metadata/{current}.{role}.json"] = newest(other, role).to_bytes()
            held = held if role == "snapshot" else (role,)
        elif what == "metadata of another role":
            way.files[f"metadata/{current}.{role}.json"] = newest(
                tree, rng.choice(["targets", "stats", "flags"])
            ).to_bytes()
            held = held if role == "snapshot" else (role,)
        else:
            role = "models" if role == "snapshot" else role
            target = newest(tree, role).signed.targets[f"collections/{role}.json"].hashes["sha256"]
            old = newest(other, role).signed.targets[f"collections/{role}.json"].hashes["sha256"]
            shutil_path = other / "targets" / "collections" / f"{old}.{role}.json.gz"
            way.files[f"targets/collections/{target}.{role}.json.gz"] = shutil_path.read_bytes()
            way.files[f"deltas/{role}/{client.state(role).seq}-{current}.json.gz"] = None
            held = (role,)
        at = BASE + VERSIONS * HOUR + 60
        attack(world, f"mix, {what}", client, way, at, kinds=["mix", "rollback", "forged", "tampered"], held=held)
        recovers(world, client)
        world.done(client)


def test_metadata_that_the_wrong_keys_signed(world: World) -> None:
    thief = [key("thief"), key("thief's brother"), key("thief's sister")]
    roles = ["root", "timestamp", "snapshot", "targets", "models", "featured", "flags", "revocations", "stats"]
    for rng in seeds("forged"):
        version = rng.randint(1, VERSIONS - 1)
        client = world.machine(version)
        tree = world.trees[VERSIONS]
        role = rng.choice(roles)
        forget(world, client, rng)
        present = newest(tree, role)
        how = rng.choice(["other keys", "no keys", "one key of two", "changed", "signature", "key id"])
        if how == "one key of two" and role not in ("root", "targets"):
            how = "no keys"

        def longer(payload: Any, role: str = role) -> None:
            payload.version += role == "root"
            payload.expires = utc(BASE + 5000 * DAY)

        mine = world.signers[role]
        signers = {"other keys": thief, "no keys": [], "one key of two": [mine[0], *thief]}.get(how, mine[:2])
        forged = json.loads(signed(present, signers, longer))
        if how == "changed":
            forged["signed"]["expires"] = "2099-01-01T00:00:00Z"
        for signature in forged["signatures"]:
            if how == "signature":
                place = rng.randrange(len(signature["sig"]))
                digit = rng.choice([d for d in "0123456789abcdef" if d != signature["sig"][place]])
                signature["sig"] = signature["sig"][:place] + digit + signature["sig"][place + 1 :]
            elif how == "key id":
                signature["keyid"] = rng.choice(thief).public_key.keyid
        if how == "key id" and len({s["keyid"] for s in forged["signatures"]}) < len(forged["signatures"]):
            del forged["signatures"][1:]
        way = Overlay(tree)
        name = "timestamp.json" if role == "timestamp" else f"{forged['signed']['version']}.{role}.json"
        way.files[f"metadata/{name}"] = json.dumps(forged).encode()
        if role not in ("root", "timestamp") and way.files[f"metadata/{name}"] is not None:
            # What a client still has, it does not ask for: it must ask.
            (client.store.folder / "tuf" / f"{role}.json").unlink(missing_ok=True)
        held = (role,) if role in COLLECTIONS else tuple(COLLECTIONS)
        at = BASE + VERSIONS * HOUR + 60
        attack(world, f"forged, {how}", client, way, at, kinds=["forged"], held=held)
        recovers(world, client)
        world.done(client)


def test_collections_that_were_tampered_with(world: World) -> None:
    for rng in seeds("tampered"):
        version = rng.randint(1, VERSIONS - 1)
        client = world.machine(version)
        role = rng.choice(["models", "featured", "revocations"])

        def change(path: str, content: bytes, rng: random.Random = rng, role: str = role) -> bytes:
            if path.startswith(f"deltas/{role}/"):
                raise NotThere(path)
            if not (path.startswith("targets/") and role in path):
                return content
            plain = gzip.decompress(content)
            how = rng.choice(["flip", "record", "cut", "longer", "space", "packed", "garbage", "nothing"])
            place = rng.randrange(len(plain))
            made = {
                "flip": lambda: plain[:place] + bytes([plain[place] ^ (1 << rng.randrange(8))]) + plain[place + 1 :],
                "record": lambda: canonical({"records": [{"id": "evil/model", "name": "Evil"}]}),
                "cut": lambda: plain[:place],
                "longer": lambda: plain + rng.randbytes(rng.randint(1, 2000)),
                "space": lambda: plain[:-1] + b" }",
            }.get(how)
            if made is not None:
                return gzip.compress(made())
            if how == "packed":
                return content[: rng.randrange(1, len(content))]
            return rng.randbytes(rng.randint(1, 3000)) if how == "garbage" else b""

        way = Overlay(world.trees[VERSIONS])
        way.change = change
        kinds = ["tampered", "too_large"]
        attack(world, "tampered", client, way, BASE + VERSIONS * HOUR + 60, kinds=kinds, held=[role])
        recovers(world, client)
        world.done(client)


def poisoned(content: bytes, rng: random.Random) -> bytes:
    """A delta whose outcome is another one."""
    delta = json.loads(gzip.decompress(content))
    evil = {"id": "evil/model", "name": "Evil"}
    how = rng.choice(
        ["add", "drop", "change", "keep", "delete", "from", "other", "form", "deep", "bomb", "cut", "bytes"]
    )
    if how == "drop" and delta["upsert"]:
        del delta["upsert"][rng.randrange(len(delta["upsert"]))]
    elif how == "change" and delta["upsert"]:
        rng.choice(delta["upsert"])["name"] = "Evil"
    elif how == "keep" and delta["delete"]:
        del delta["delete"][rng.randrange(len(delta["delete"]))]
    elif how == "delete" and delta["upsert"]:
        delta["delete"].append(delta["upsert"].pop()["id"])
    elif how == "from":
        delta[rng.choice(["from", "to"])] += rng.choice([-1, 1])
    elif how == "other":
        delta["collection"] = "flags"
    elif how == "form":
        delta[rng.choice(["upsert", "delete", "to"])] = rng.choice([None, {}, "x", [1], [{}], 1.5])
    elif how == "deep":
        return gzip.compress(b'{"upsert":[' + b'{"id":' + b"[" * 50_000 + b"]" * 50_000 + b"}]}")
    elif how == "bomb":
        return gzip.compress(bytes(30_000_000))
    elif how == "cut":
        return content[: rng.randrange(len(content))]
    elif how == "bytes":
        return rng.randbytes(rng.randint(0, 3000))
    else:
        delta["upsert"].append(evil)
    return gzip.compress(json.dumps(delta).encode())


def test_poisoned_deltas_cost_only_the_whole_snapshot(world: World) -> None:
    for rng in seeds("poisoned"):
        version = rng.randint(1, VERSIONS - 1)
        client = world.machine(version)
        before = client.served()
        way = Overlay(world.trees[VERSIONS])
        way.change = lambda path, content: poisoned(content, rng) if path.startswith("deltas/") else content  # noqa: B023
        both = rng.random() < 0.5
        if both:  # and the whole is not what it should be either
            clean = way.change

            def change(path: str, content: bytes, clean: Any = clean) -> bytes:
                return gzip.compress(b'{"records":[]}') if path.startswith("targets/") else clean(path, content)

            way.change = change
            attack(world, "poisoned delta and snapshot", client, way, BASE + DAY, kinds=["tampered"])
            assert client.served() == before
        else:
            report = client.sync(way, BASE + DAY)
            touched = [one for one in report.collections if one.how != "unchanged"]
            assert {one.how for one in touched} == {"full"}
            assert len(report.fallbacks) == len(touched)
            assert client.served() == world.served[VERSIONS]
            world.tally["poisoned delta"]["full"] += 1
        recovers(world, client, BASE + DAY + 60)
        world.done(client)


def test_stolen_online_keys_are_worth_nothing_after_a_rotation(world: World) -> None:
    rotated = world.rotated
    for rng in seeds("stolen"):
        version = rng.randint(1, VERSIONS)
        tree, client = world.trees[version], world.machine(version)
        thief = partial(online, world, tree, world.signers)
        at = BASE + VERSIONS * HOUR + rng.randint(0, DAY)
        # The thief raises versions as far as they go: what is published is what it was, and nothing newer is believed.
        raised = Overlay(tree)
        far = rng.randint(VERSIONS + 5, FAR)
        raised.files |= thief(snapshot=far, timestamp=far + rng.randint(0, 9))
        attack(world, "stolen key, versions raised", client, raised, at, kinds=["unchanged"], truth=version)
        attack(world, "stolen key, true hub shut out", client, Overlay(world.trees[VERSIONS]), at, kinds=["rollback"])
        # Older content, or content of the thief's own, needs other keys.
        older = Overlay(tree)
        older.files |= thief(snapshot=far + 20, timestamp=far + 20, meta={"models": version - 1})
        kinds = ["rollback"] if version > 1 else ["mix"]  # which has no older list: it is left out
        attack(world, "stolen key, older list", client, older, at, kinds=kinds)
        own = Overlay(tree)
        own.files |= thief(snapshot=far + 30, timestamp=far + 30, meta={"models": far})
        evil = signed(newest(tree, "models"), world.signers["snapshot"], partial(at_version, far))
        own.files[f"metadata/{far}.models.json"] = evil
        attack(world, "stolen key, own list", client, own, at, kinds=["forged"])
        # The operator replaces the keys. Whoever was deceived is back at once, whatever became of the cache.
        forget(world, client, rng)
        client.sync(rotated, at)
        assert client.served() == world.served[VERSIONS]
        assert client.state().versions["root"] == 2
        # The thief goes on as before, and hides the new root from who has lost it.
        again = Overlay(tree)
        again.files |= thief(snapshot=far + 40, timestamp=far + 40)
        again.files["metadata/2.root.json"] = None
        lost = forget(world, client, rng) != "kept"
        attack(world, "stolen key, after", client, again, at, kinds=["rollback"] if lost else ["forged"])
        client.sync(rotated, at)
        assert client.served() == world.served[VERSIONS]
        world.done(client)


def test_a_wrong_clock_makes_a_list_stale_and_never_another_one(world: World) -> None:
    for rng in seeds("clock"):
        version = rng.randint(2, VERSIONS)
        client = world.machine(version)
        forget(world, client, rng)
        if rng.random() < 0.5:
            at = BASE + rng.randint(3 * DAY, 100 * 365 * DAY)
            attack(world, "clock ahead", client, Overlay(world.trees[VERSIONS]), at, kinds=["expired"])
            assert vouch(client.state(), at).status == "stale"
        else:
            at = float(rng.randint(0, int(BASE) - 2 * DAY))
            assert vouch(client.state(), at).status == "stale"
            old = Overlay(world.trees[rng.randint(1, version - 1)])
            attack(world, "clock behind, old list", client, old, at, kinds=["rollback"])
            client.sync(world.trees[VERSIONS], at)
            assert client.served() == world.served[VERSIONS]
            world.tally["clock behind, true list"]["updated"] += 1
        recovers(world, client)
        world.done(client)


def test_a_stolen_curators_key_is_worth_nothing_after_a_rotation(world: World, tmp_path: Path) -> None:
    """With the online keys too, a thief can sign a list of his own: no client can tell until the keys are replaced."""
    tree, client = Path(shutil.copytree(world.trees[VERSIONS], tmp_path / "tree")), world.machine(VERSIONS)
    at = BASE + VERSIONS * HOUR + 60

    def put(path: Path, files: dict[str, Any]) -> None:
        for name, content in files.items():
            (path / name).write_bytes(content)

    stolen = Path(shutil.copytree(tree, tmp_path / "stolen"))

    def emptied(payload: Any) -> None:
        payload.targets.clear()
        at_version(FAR, payload)

    evil = signed(newest(tree, "models"), world.signers["models"], emptied)
    put(stolen, {f"metadata/{FAR}.models.json": evil})
    put(stolen, online(world, tree, world.signers, snapshot=FAR, timestamp=FAR, meta={"models": FAR}))
    client.sync(stolen, at)
    assert client.ids() == []

    curator = key("fresh curator")
    fresh: dict[str, Any] = {role: [key(f"fresh {role}")] for role in ("snapshot", "timestamp")}

    def other_curator(payload: Any) -> None:
        payload.version += 1
        for keyid in list(payload.delegations.roles["models"].keyids):
            payload.revoke_key(keyid, "models")
        payload.add_key(curator.public_key, "models")

    targets = signed(newest(tree, "targets"), world.signers["targets"][:2], other_curator)
    models = signed(newest(tree, "models"), [curator], lambda s: setattr(s, "version", s.version + 1))
    put(tree, {"metadata/2.targets.json": targets, f"metadata/{VERSIONS + 1}.models.json": models})
    rotate_online(tree, dict(world.signers), fresh)
    versions = {"targets": 2, "models": VERSIONS + 1}
    number = newest(tree, "snapshot").signed.version + 1
    put(tree, online(world, tree, fresh, snapshot=number, timestamp=number, meta=versions))
    client.sync(tree, at)
    assert client.served() == world.served[VERSIONS]
    with pytest.raises(Refused):
        client.sync(stolen, at)
    assert client.served() == world.served[VERSIONS]
    world.done(client)


# -- over a real socket -----------------------------------------------------------------------------------------------


@pytest.fixture
async def web() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as web:
        yield web


class Bad:
    """Serves the newest tree, but for one file, of which there is no end, or which takes for ever."""

    def __init__(self, world: World, wire: Wire, rng: random.Random, slow: bool) -> None:
        tree = world.trees[VERSIONS]
        targets = newest(tree, "models").signed.targets["collections/models.json"]
        files = {
            "root": "metadata/2.root.json",
            "timestamp": "metadata/timestamp.json",
            "snapshot": f"metadata/{VERSIONS}.snapshot.json",
            "role": f"metadata/{VERSIONS}.models.json",
            "delta": f"deltas/models/{VERSIONS - 1}-{VERSIONS}.json.gz",
            "target": f"targets/collections/{targets.hashes['sha256']}.models.json.gz",
        }
        self.what = rng.choice(sorted(files))
        self.how = rng.choice(["plain", "chunked", "length", "bomb"])
        self._bad, self._tree, self._wire, self._rng, self._slow = files[self.what], tree, wire, rng, slow

    def __call__(self, connection: socket.socket, path: str) -> None:
        file = self._tree / path.lstrip("/")
        if path.lstrip("/") == self._bad:
            (self._trickle if self._slow else self._flood)(connection)
        elif file.is_file() and not (self.what == "target" and path.startswith("/deltas/models/")):
            connection.sendall(answer("200 OK", file.read_bytes()))
        else:
            connection.sendall(answer("404 Not Found"))

    def _trickle(self, connection: socket.socket) -> None:
        where = self._rng.choice(["nothing", "head", "body"])
        if where == "nothing":
            self._wire.gone.wait()
        if where == "body":
            connection.sendall(answer("200 OK", Content_Length=200))
        self._wire.trickle(connection, b"{", 0.02)

    def _flood(self, connection: socket.socket) -> None:
        piece = bytes([self._rng.randrange(256)]) * 65536
        if self.how == "bomb":
            connection.sendall(answer("200 OK", BOMB, Content_Encoding="gzip"))
            return
        if self.how == "chunked":
            piece = b"10000\r\n" + piece + b"\r\n"
            connection.sendall(answer("200 OK", Content_Length=None, Transfer_Encoding="chunked"))
        else:
            connection.sendall(answer("200 OK", Content_Length=None if self.how == "plain" else 1 << 40))
        while not self._wire.gone.is_set():
            connection.sendall(piece)


BOMB = gzip.compress(bytes(20_000_000))
MOST = 6_000_000
"""Bytes: the most that any of these files may have, and a little."""


async def test_data_without_an_end(world: World, wire: Wire, web: httpx.AsyncClient) -> None:
    for rng in seeds("endless"):
        client = world.machine(VERSIONS - 1)
        bad = Bad(world, wire, rng, slow=False)
        wire.reply = bad
        fetch = HttpFetch(lambda: web, wire.url, timeout=30)
        before = client.served()
        outcome = await outcome_of(client, fetch)
        held = bad.what in ("root", "timestamp", "snapshot")
        assert client.served()["models"] in (
            [before["models"]] if bad.what != "delta" else [world.served[VERSIONS]["models"]]
        )
        assert client.served() == before or not held
        assert outcome == ("updated" if bad.what == "delta" else "too_large"), (bad.what, bad.how, outcome)
        assert fetch.received < MOST
        world.tally[f"endless {bad.what}"][outcome] += 1
        recovers(world, client)
        world.done(client)


async def test_retrieval_that_takes_for_ever(world: World, web: httpx.AsyncClient) -> None:
    left = list(seeds("slow"))

    async def some() -> None:
        while left:
            rng = left.pop()
            client, wire = world.machine(VERSIONS - 1), Wire()
            bad = Bad(world, wire, rng, slow=True)
            wire.reply = bad
            before = client.served()
            with anyio.fail_after(20):
                outcome = await outcome_of(client, HttpFetch(lambda: web, wire.url, timeout=0.5))
            assert outcome == "unreachable", (bad.what, outcome)
            assert client.served()["models"] == before["models"]
            world.tally[f"slow {bad.what}"][outcome] += 1
            await anyio.to_thread.run_sync(wire.stop)
            recovers(world, client)
            world.done(client)

    async with anyio.create_task_group() as tasks:
        for _ in range(min(10, SEEDS)):
            tasks.start_soon(some)


async def outcome_of(client: Client, fetch: Fetch) -> str:
    try:
        report: SyncReport = await anyio.to_thread.run_sync(client.sync, fetch, BASE + VERSIONS * HOUR + 60)
    except Refused as error:
        return error.kind
    except Unreachable:
        return "unreachable"
    return report.outcome


def test_random_damage_to_any_file_is_refused_or_harmless(world: World) -> None:
    """Whatever bytes a file becomes, a sync ends in an error that has a name, and in a state that was signed."""
    for rng in seeds("damage"):
        version = rng.randint(1, VERSIONS - 1)
        client = world.machine(version)
        way = Overlay(world.trees[VERSIONS])

        def change(path: str, content: bytes, rng: random.Random = rng) -> bytes:
            if rng.random() < 0.8 or not content:
                return content
            made = bytearray(content)
            for _ in range(rng.randint(1, 4)):
                place = rng.randrange(len(made))
                made[place : place + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
            return bytes(made)

        way.change = change
        at = BASE + VERSIONS * HOUR + 60
        kinds = ["forged", "malformed", "mix", "rollback", "expired", "tampered", "too_large", "updated", "unreachable"]
        attack(world, "damage", client, way, at, kinds=kinds, held=[])
        assert Metadata.from_bytes(world.root)
        recovers(world, client)
        world.done(client)
