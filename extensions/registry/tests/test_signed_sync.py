"""Syncing with a real hub's tree: what is fetched, what is kept, what heals, and what holds nothing else up."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jan_registry.collections import COLLECTIONS, canonical
from jan_registry.publish.roles import utc
from jan_registry.signed.check import verify_store
from jan_registry.signed.errors import Refused
from jan_registry.signed.fetching import NotThere, Unreachable
from jan_registry.signed.report import SyncReport
from jan_registry.signed.sync import sync
from jan_registry.signed.verification import vouch
from tuf.api.metadata import MetaFile

from jan_core import StorageError

from .hubmaker import Hub, key, model
from .signed_keys import newest, rotate_online, signed, write
from .signed_kit import Client, Overlay

DAY = 86400
IDS = [f"maker/model-{number:03}" for number in range(60)]


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    hub = Hub(tmp_path)
    hub.models(*IDS).set("featured", [{"id": "main", "models": IDS[:2]}])
    hub.publish()
    return hub


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Any:
    client = Client(tmp_path / "client", hub.root)
    yield client
    client.close()


def how(report: SyncReport) -> dict[str, str]:
    return {one.name: one.how for one in report.collections}


def collection(report: SyncReport, name: str = "models") -> dict[str, Any]:
    return next(msgspec.to_builtins(one) for one in report.collections if one.name == name)


def changed(hub: Hub, role: str, what: Callable[[Any], object]) -> None:
    """The next version of a role's metadata, with something changed, signed as it must be."""

    def next_version(payload: Any) -> None:
        payload.version += 1
        what(payload)

    write(hub.tree, role, signed(newest(hub.tree, role), hub.signers[role][:2], next_version))


def is_published(client: Client, hub: Hub) -> bool:
    in_order = {
        name: sorted(hub.collections.get(name, []), key=lambda data: json.loads(data)["id"]) for name in COLLECTIONS
    }
    return client.served() == in_order


def test_the_first_sync_fetches_everything_and_says_who_signed_it(hub: Hub, client: Client) -> None:
    report = client.sync(hub.tree)
    assert report.outcome == "updated"
    assert set(how(report).values()) == {"full"}
    assert collection(report) == {
        "name": "models",
        "how": "full",
        "seq": 1,
        "created": 60,
        "updated": 0,
        "deleted": 0,
        "error": "",
    }
    assert is_published(client, hub)
    assert client.indexed == [None, None]  # the numbers, and the models
    state = client.state()
    assert (state.seq, state.count, state.origin, state.role) == (1, 60, "net", "models")
    assert state.keyids == [hub.signers["models"][0].public_key.keyid]
    assert state.versions == {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1, "models": 1}
    said = vouch(state, time.time())
    assert (said.status, said.digest) == ("verified", state.sha256)


def test_an_idle_poll_is_two_requests_and_small(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)
    before = client.state()
    report = client.sync(hub.tree, time.time() + 60)
    assert (report.outcome, report.requests) == ("unchanged", 2)
    assert report.bytes <= 500
    assert set(how(report).values()) == {"unchanged"}
    after = client.state()
    assert after.checked_at > before.checked_at
    assert after.verified_at == before.verified_at
    assert client.indexed == [None, None]


def test_a_change_comes_as_a_delta_and_names_what_it_touched(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)
    hub.models(*IDS[1:], "maker/new")
    hub.collections["models"][0] = canonical({"id": IDS[1], "name": "Another name"})
    hub.publish()
    report = client.sync(hub.tree)
    assert how(report)["models"] == "delta"
    assert {name: collection(report)[name] for name in ("created", "updated", "deleted")} == {
        "created": 1,
        "updated": 1,
        "deleted": 1,
    }
    assert report.fallbacks == []
    assert client.indexed[2:] == [{IDS[0], IDS[1], "maker/new"}]
    assert is_published(client, hub)


def test_a_delta_over_many_versions_is_one_step(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)
    for number in range(10):
        hub.models(*IDS[number:], f"maker/new-{number}").publish()
    report = client.sync(hub.tree)
    assert how(report)["models"] == "delta"
    assert report.requests == 5  # root, timestamp, snapshot, the role, the delta
    assert is_published(client, hub)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_edited_every_client_ends_in_what_was_published(tmp_path: Path, seed: int) -> None:
    """One asks after each publication, one now and then, one only at the end."""
    rng = random.Random(seed)
    hub = Hub(tmp_path)
    often, seldom, once = (Client(tmp_path / name, hub.root) for name in ("often", "seldom", "once"))
    texts = {f"maker/{rng.randrange(10**6)}": "" for _ in range(rng.randint(0, 80))}
    deltas = 0
    for _ in range(12):
        for _ in range(rng.randint(0, 8)):
            id = rng.choice([f"maker/{rng.randrange(10**6)}", *texts])
            if id in texts and rng.random() < 0.4:
                del texts[id]
            else:
                texts[id] = rng.randbytes(60).hex()
        hub.models(*[model(id, description=text) for id, text in texts.items()])
        hub.set("revocations", [{"id": id, "reason": "bad"} for id in texts if rng.random() < 0.1]).publish()
        for client in (often, seldom) if rng.random() < 0.3 else (often,):
            report = client.sync(hub.tree)
            assert report.fallbacks == []
            assert is_published(client, hub)
            deltas += how(report)["models"] == "delta"
    for client in (seldom, once):
        client.sync(hub.tree)
        assert is_published(client, hub)
        client.close()
    often.close()
    assert deltas >= 8


def test_a_client_that_is_older_than_all_deltas_takes_the_whole(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)
    hub.models(*IDS[1:]).publish()
    shutil.rmtree(hub.tree / "deltas")
    report = client.sync(hub.tree)
    assert how(report)["models"] == "full"
    assert len(report.fallbacks) == 1
    assert collection(report)["deleted"] == 1
    assert is_published(client, hub)


def test_a_delta_that_is_larger_than_half_the_whole_is_not_taken(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)
    hub.models(*IDS[1:]).publish()
    delta = hub.tree / "deltas/models/1-2.json.gz"
    padded = (
        gzip.decompress(delta.read_bytes())[:-1] + b',"padding":"' + b"".join(b"%06d" % i for i in range(3000)) + b'"}'
    )
    delta.write_bytes(gzip.compress(padded))
    assert len(delta.read_bytes()) > 4096
    report = client.sync(hub.tree)
    assert how(report)["models"] == "full"
    assert is_published(client, hub)


def test_a_server_that_fails_on_one_delta_only_costs_the_whole_snapshot(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)
    hub.models(*IDS[1:]).publish()
    way = Overlay(hub.tree)
    way.files["deltas/models/1-2.json.gz"] = Unreachable("500", status=500)
    assert how(client.sync(way))["models"] == "full"
    assert is_published(client, hub)


def test_a_hub_that_asks_for_patience_is_not_asked_for_more(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)
    hub.models(*IDS[1:]).publish()
    way = Overlay(hub.tree)
    way.files["deltas/models/1-2.json.gz"] = Unreachable("429", status=429, retry_after=60)
    with pytest.raises(Unreachable) as caught:
        client.sync(way)
    assert caught.value.retry_after == 60
    assert not any(path.startswith("targets/") for path in way.paths)
    assert client.ids() == IDS


def test_what_could_not_be_had_is_asked_for_again_although_nothing_is_new(hub: Hub, client: Client) -> None:
    way = Overlay(hub.tree)
    way.change = lambda path, content: b"" if path.startswith("targets/") and "models" in path else content
    for _ in range(3):
        with pytest.raises(Refused):
            client.sync(way)
        assert client.ids() == []
        assert client.ids("featured") == ["main"]
    client.sync(hub.tree)
    assert is_published(client, hub)


def test_what_is_dropped_is_had_again_although_nothing_is_new(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)
    with client.store.db.write() as db:
        db.execute("DELETE FROM collection WHERE name = 'models'")
        db.execute("DELETE FROM record WHERE coll = 'models'")
    assert how(client.sync(hub.tree))["models"] == "full"
    assert is_published(client, hub)


def test_what_nobody_changed_is_still_current_after_a_new_signature(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)
    before = client.state()
    hub.publish(now=time.time() + DAY)
    report = client.sync(hub.tree)
    assert how(report)["models"] == "unchanged"
    assert client.state().expires_at > before.expires_at
    assert client.state().versions["timestamp"] == 2


def test_a_collection_that_the_hub_withdraws_is_forgotten(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)

    changed(hub, "featured", lambda payload: payload.targets.clear())
    changed(hub, "snapshot", lambda payload: payload.meta.update({"featured.json": MetaFile(2)}))
    changed(hub, "timestamp", lambda payload: setattr(payload, "snapshot_meta", MetaFile(2)))
    report = client.sync(hub.tree)
    assert collection(report, "featured")["how"] == "removed"
    assert collection(report, "featured")["deleted"] == 1
    assert client.store.state("featured") is None
    assert client.store.records("featured") == []
    assert client.ids() == IDS
    with client.store.db.read() as db:
        assert db.execute("SELECT version FROM trusted_version WHERE role = 'featured'").fetchone() == (2,)


def test_a_collection_that_no_one_else_signs_for_may_be_signed_with_the_targets(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)
    file = newest(hub.tree, "featured").signed.targets

    def own(payload: Any) -> None:
        payload.targets.update(file)
        for role in ("featured", "stats"):
            del payload.delegations.roles[role]

    changed(hub, "targets", own)
    changed(hub, "snapshot", lambda payload: payload.meta.update({"targets.json": MetaFile(2)}))
    changed(hub, "timestamp", lambda payload: setattr(payload, "snapshot_meta", MetaFile(2)))
    report = client.sync(hub.tree)
    assert how(report) == {
        "revocations": "unchanged",
        "flags": "unchanged",
        "models": "unchanged",
        "featured": "unchanged",
        "stats": "removed",
    }
    state = client.state("featured")
    assert (state.role, state.keyids) == ("targets", sorted(key.public_key.keyid for key in hub.signers["targets"][:2]))


def test_one_collection_that_cannot_be_had_holds_no_other_up(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)
    hub.models(*IDS[1:]).set("revocations", [{"id": "r", "reason": "bad", "model": IDS[0]}])
    hub.set("featured", []).publish()
    way = Overlay(hub.tree)
    way.change = lambda path, content: b"{}" if "models" in path and "metadata" not in path else content
    with pytest.raises(Refused) as caught:
        client.sync(way)
    assert caught.value.kind == "tampered"
    report = caught.value.report
    assert report is not None
    assert how(report) == {
        "revocations": "delta",
        "flags": "unchanged",
        "models": "failed",
        "featured": "delta",
        "stats": "unchanged",
    }
    assert client.ids() == IDS
    assert client.ids("revocations") == ["r"]
    client.sync(hub.tree)
    assert is_published(client, hub)


def test_one_role_whose_signature_has_expired_holds_no_other_up(hub: Hub, client: Client) -> None:
    """The stats' machine is ill: everything else is signed anew, a day later."""
    now = time.time()
    client.sync(hub.tree, now)
    write(
        hub.tree,
        "stats",
        signed(newest(hub.tree, "stats"), hub.signers["stats"], lambda s: setattr(s, "expires", utc(now + 1.2 * DAY))),
    )
    shutil.rmtree(client.store.folder / "tuf")  # which holds another version 1 of it
    hub.models(*IDS[1:]).publish(now=now + 60, keys=hub.keys_of("models", "snapshot", "timestamp"))
    hub.models(*IDS[1:]).publish(now=now + DAY, keys=hub.keys_of("models", "snapshot", "timestamp"))
    with pytest.raises(Refused) as caught:
        client.sync(hub.tree, now + 1.5 * DAY)
    assert caught.value.kind == "expired"
    assert client.ids() == IDS[1:]
    assert vouch(client.state(), now + 1.5 * DAY).status == "verified"


def test_a_hub_of_which_nothing_is_there_is_unreachable(client: Client, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(Unreachable):
            client.sync(folder)
    assert client.served() == {name: [] for name in COLLECTIONS}


@pytest.mark.parametrize("root", [b"", b"{}", b"\xff", b'{"signed":{"_type":"root"},"signatures":[]}'])
def test_a_root_that_is_none_is_refused(hub: Hub, tmp_path: Path, root: bytes) -> None:
    client = Client(tmp_path / "other", root)
    with pytest.raises(Refused):
        client.sync(hub.tree)
    client.close()


def test_a_root_of_another_hub_is_refused(hub: Hub, tmp_path: Path) -> None:
    other = Hub(tmp_path, name="other")
    client = Client(tmp_path / "third", other.root)
    with pytest.raises(Refused) as caught:
        client.sync(hub.tree)
    assert caught.value.kind == "forged"
    client.close()


def damage_nothing(cache: Path) -> None:
    shutil.rmtree(cache)


def damage_a_file(cache: Path) -> None:
    shutil.rmtree(cache)
    cache.write_bytes(b"")


def damage_content(cache: Path) -> None:
    for path in cache.rglob("*.json"):
        path.unlink()
        path.write_bytes(b'{"signed":' + path.name.encode())


def damage_length(cache: Path) -> None:
    for path in cache.rglob("*.json"):
        path.unlink()
        path.write_bytes(b"")


def damage_folders(cache: Path) -> None:
    for path in list(cache.rglob("*.json")):
        path.unlink()
        (path / "inner").mkdir(parents=True)


@pytest.mark.parametrize(
    "damage", [damage_nothing, damage_a_file, damage_content, damage_length, damage_folders], ids=lambda f: f.__name__
)
def test_a_damaged_cache_of_metadata_heals_itself(hub: Hub, client: Client, damage: Callable[[Path], None]) -> None:
    client.sync(hub.tree)
    damage(client.store.folder / "tuf")
    assert client.sync(hub.tree).outcome == "unchanged"
    hub.models(*IDS[1:]).publish()
    damage(client.store.folder / "tuf")
    assert how(client.sync(hub.tree))["models"] == "delta"
    assert is_published(client, hub)
    assert client.sync(hub.tree).requests == 2


def test_a_disk_that_takes_nothing_is_an_error_of_storage(hub: Hub, client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    other = Client(tmp_path / "file" / "hub", hub.root)
    with pytest.raises(StorageError):
        other.sync(hub.tree)


def test_a_damaged_row_is_found_dropped_and_had_again(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)
    assert verify_store(client.store) == []
    with sqlite3.connect(client.store.db.path) as db:
        db.execute("UPDATE record SET data = ? WHERE id = ?", [canonical({"id": IDS[3], "name": "Evil"}), IDS[3]])
    db.close()
    indexed: list[Any] = []
    assert verify_store(client.store, on_models=lambda db, ids: indexed.append(ids)) == ["models"]
    assert indexed == [None]
    assert client.store.state("models") is None
    assert client.ids() == []
    assert client.ids("featured") == ["main"]
    assert how(client.sync(hub.tree))["models"] == "full"
    assert is_published(client, hub)
    assert verify_store(client.store) == []


def test_rows_of_no_collection_are_dropped(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)
    with sqlite3.connect(client.store.db.path) as db:
        db.execute("DELETE FROM collection WHERE name = 'models'")
    db.close()
    assert verify_store(client.store) == ["models"]
    assert client.ids() == []


def test_a_row_that_was_changed_on_disk_does_not_survive_a_delta(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)
    with sqlite3.connect(client.store.db.path) as db:
        db.execute("DELETE FROM record WHERE id = ?", [IDS[5]])
    db.close()
    hub.models(*IDS[1:]).publish()
    report = client.sync(hub.tree)
    assert how(report)["models"] == "full"
    assert "not what was signed" in report.fallbacks[0]
    assert is_published(client, hub)


def test_an_index_that_cannot_be_made_leaves_everything_as_it_was(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)
    hub.models(*IDS[1:]).publish()

    def fails(db: Any, ids: Any) -> None:
        db.execute("INSERT INTO no_such_table VALUES (1)")

    with pytest.raises(StorageError):
        sync(client.store, Overlay(hub.tree), hub.root, now=time.time, on_models=fails)
    assert client.ids() == IDS
    assert client.state().seq == 1
    client.sync(hub.tree)
    assert is_published(client, hub)


def test_a_rotated_root_is_kept_and_walked_again_when_it_is_lost(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)
    old = client.state().versions["root"]
    rotate_online(hub.tree, hub.signers, {role: [key(f"new {role}")] for role in ("snapshot", "timestamp")})
    assert client.sync(hub.tree).outcome == "unchanged"
    assert client.state().versions["root"] == old + 1
    assert client.sync(hub.tree).requests == 2
    shutil.rmtree(client.store.folder / "tuf")
    assert client.sync(hub.tree).outcome == "unchanged"
    way = Overlay(hub.tree)
    way.files["metadata/2.root.json"] = None
    assert client.sync(way).outcome == "unchanged"  # it is in the cache
    shutil.rmtree(client.store.folder / "tuf")
    with pytest.raises(Refused):
        client.sync(way)


def test_a_server_that_denies_every_rare_file_keeps_nobody_from_a_rotation(hub: Hub, client: Client) -> None:
    """One that answers 404 to HEAD, whatever there is."""

    class Denying(Overlay):
        def __call__(self, path: str, limit: int, *, rare: bool = False) -> bytes:
            if rare:
                raise NotThere(path, status=404)
            return super().__call__(path, limit)

    client.sync(Denying(hub.tree))
    rotate_online(hub.tree, hub.signers, {role: [key(f"new {role}")] for role in ("snapshot", "timestamp")})
    hub.models(*IDS[1:]).publish()
    client.sync(Denying(hub.tree))
    assert is_published(client, hub)
    assert client.state().versions["root"] == 2


def test_a_missing_file_of_a_published_state_changes_nothing(hub: Hub, client: Client) -> None:
    client.sync(hub.tree)
    before = client.served()
    hub.models(*IDS[1:]).publish()
    paths = [path.relative_to(hub.tree).as_posix() for path in hub.tree.rglob("*") if path.is_file()]
    for path in [path for path in paths if path.startswith("metadata/2.") or path == "metadata/timestamp.json"]:
        way = Overlay(hub.tree)
        way.files[path] = None
        with pytest.raises(NotThere):
            client.sync(way)
        assert client.served() == before
    client.sync(hub.tree)
    assert is_published(client, hub)
