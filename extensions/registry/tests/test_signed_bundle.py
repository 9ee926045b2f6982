"""What is shipped with the program: read at once, without signatures; held against the keys when there is time."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from jan_registry.collections import COLLECTIONS
from jan_registry.publish.package import package
from jan_registry.signed.bundle import read_bundle, shipped_root, verify_bundle
from jan_registry.signed.check import verify_store
from jan_registry.signed.errors import Refused
from jan_registry.signed.fetching import Unreachable
from jan_registry.signed.verification import vouch

from .hubmaker import Hub, key
from .signed_keys import newest, rotate_online, signed, write
from .signed_kit import Client, Overlay

DAY = 86400
IDS = [f"maker/model-{number:03}" for number in range(20)]


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    hub = Hub(tmp_path)
    hub.models(*IDS[1:]).publish()
    hub.models(*IDS).set("featured", [{"id": "main", "models": IDS[:2]}]).publish()
    return hub


@pytest.fixture
def folder(hub: Hub, tmp_path: Path) -> Path:
    package(hub.tree, tmp_path / "bundle")
    return tmp_path / "bundle"


def snapshot_file(folder: Path) -> Path:
    target = newest(folder, "models").signed.targets["collections/models.json"]
    return folder / "targets" / "collections" / f"{target.hashes['sha256']}.models.json.gz"


def test_it_reads_as_a_client_that_has_just_synced(hub: Hub, folder: Path, tmp_path: Path) -> None:
    client = Client(tmp_path / "client", hub.root)
    client.sync(hub.tree)
    bundle = read_bundle(folder, now=time.time())
    for name in COLLECTIONS:
        kept, shipped = client.store.state(name), bundle.state(name)
        assert kept is not None
        assert shipped is not None
        assert bundle.records(name) == client.store.records(name)
        same = ("seq", "sha256", "count", "expires_at", "role", "keyids", "versions")
        assert [getattr(shipped, field) for field in same] == [getattr(kept, field) for field in same]
    assert bundle.get("models", IDS[3]) == client.store.get("models", IDS[3])
    assert bundle.get("models", "nothing") is None
    assert bundle.state("nothing") is None
    client.close()


def test_a_first_sync_fetches_only_what_changed_since_it_was_made(hub: Hub, folder: Path, tmp_path: Path) -> None:
    client = Client(tmp_path / "client", hub.root)
    hub.models(*IDS[2:], "maker/new").publish()
    way = Overlay(hub.tree)
    client.sync(way, base=read_bundle(folder, now=time.time()))
    assert [path for path in way.paths if not path.startswith("metadata/")] == ["deltas/models/2-3.json.gz"]
    assert client.ids() == [*IDS[2:], "maker/new"]
    assert client.ids("featured") == ["main"]
    assert client.indexed == [None, None]
    assert verify_store(client.store) == []
    assert client.state().origin == "net"
    client.close()


@pytest.mark.parametrize("damage", ["package", "delta", "other"])
def test_a_first_sync_fetches_all_of_it_when_that_is_no_base(
    hub: Hub, folder: Path, tmp_path: Path, damage: str
) -> None:
    client = Client(tmp_path / "client", hub.root)
    way = Overlay(hub.tree)
    if damage == "package":
        snapshot_file(folder).write_bytes(b"")
    elif damage == "delta":
        hub.models(*IDS[2:]).publish()
        way.files["deltas/models/2-3.json.gz"] = gzip.compress(
            json.dumps({"collection": "models", "from": 2, "to": 3, "upsert": [], "delete": []}).encode()
        )
    else:
        other = Hub(tmp_path, name="other")
        other.models("evil/model").publish()
        other.publish()
        shutil.rmtree(folder)
        package(other.tree, folder)
    report = client.sync(way, base=read_bundle(folder, now=time.time()))
    assert {one.name: one.how for one in report.collections}["models"] == "full"
    assert client.ids() == (IDS[2:] if damage == "delta" else IDS)
    assert verify_store(client.store) == []
    client.close()


def test_it_says_that_it_was_shipped_and_when_it_was_published(folder: Path) -> None:
    now = time.time()
    state = read_bundle(folder, now=now + 400 * DAY).state("models")
    assert state is not None
    assert vouch(state, now + 400 * DAY).status == "bundled"
    assert now - 60 <= state.verified_at <= now
    early = read_bundle(folder, now=1000.0).state("models")
    assert early is not None
    assert early.verified_at == 1000  # a clock that is wrong makes nothing younger than new


def test_it_is_read_without_what_is_slow_to_import(folder: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from jan_registry.signed import bundle;"
        f"assert len(bundle.read_bundle(Path({str(folder)!r}), now=time.time()).records('models')) == 20;"
        "print([name for name in ('tuf', 'cryptography', 'httpx', 'sqlite3', 'filelock') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"


def test_it_is_held_against_the_keys_and_may_have_expired(hub: Hub, folder: Path) -> None:
    verify_bundle(folder, hub.root)
    for role in ("timestamp", "snapshot"):
        write(folder, role, signed(newest(folder, role), hub.signers[role], lambda s: setattr(s, "expires", past())))
    verify_bundle(folder, hub.root)


def past() -> Any:
    from jan_registry.publish.roles import utc

    return utc(time.time() - 1000 * DAY)


def test_keys_that_were_rotated_before_it_was_made_are_followed(hub: Hub, tmp_path: Path) -> None:
    rotate_online(hub.tree, hub.signers, {role: [key(f"new {role}")] for role in ("snapshot", "timestamp")})
    folder = Path(shutil.copytree(hub.tree, tmp_path / "bundle"))
    verify_bundle(folder, hub.root)
    assert shipped_root(folder) == hub.root
    state = read_bundle(folder, now=time.time()).state("models")
    assert state is not None
    assert state.versions["root"] == 2


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "models", "root"])
def test_what_somebody_else_signed_is_refused(hub: Hub, folder: Path, role: str) -> None:
    write(folder, role, signed(newest(folder, role), [key("thief"), key("thief's brother")]))
    root = hub.root
    if role == "root":
        root = (folder / "metadata/1.root.json").read_bytes()
    with pytest.raises(Refused):
        verify_bundle(folder, root)


def test_the_keys_of_another_hub_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        verify_bundle(folder, Hub(tmp_path, name="other").root)


def test_a_snapshot_that_is_damaged_is_refused_by_both(hub: Hub, folder: Path) -> None:
    path = snapshot_file(folder)
    good = path.read_bytes()
    for content in (good[:-9], b"", gzip.compress(gzip.decompress(good).replace(b"model-003", b"model-666"))):
        path.write_bytes(content)
        bundle = read_bundle(folder, now=time.time())
        with pytest.raises(Refused) as caught:
            bundle.records("models")
        assert caught.value.kind == "tampered"
        with pytest.raises(Refused):
            verify_bundle(folder, hub.root)


def test_a_snapshot_and_its_hash_changed_together_are_found_by_the_keys(hub: Hub, folder: Path) -> None:
    import hashlib

    content = gzip.decompress(snapshot_file(folder).read_bytes()).replace(b"apache", b"unfree")
    path = folder / "metadata" / "2.models.json"
    metadata = json.loads(path.read_bytes())
    sha256 = hashlib.sha256(content).hexdigest()
    metadata["signed"]["targets"]["collections/models.json"]["hashes"]["sha256"] = sha256
    path.write_text(json.dumps(metadata))
    (folder / "targets" / "collections" / f"{sha256}.models.json.gz").write_bytes(gzip.compress(content))
    assert len(read_bundle(folder, now=time.time()).records("models")) == 20
    with pytest.raises(Refused) as caught:
        verify_bundle(folder, hub.root)
    assert caught.value.kind == "forged"


@pytest.mark.parametrize("content", [b"", b"{}", b"[", b'{"signed":{},"signatures":[]}', b"\xff", b"[" * 200_000])
@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "1.targets.json", "2.models.json"])
def test_metadata_that_are_none_are_refused(hub: Hub, folder: Path, name: str, content: bytes) -> None:
    (folder / "metadata" / name).write_bytes(content)
    with pytest.raises(Refused):
        read_bundle(folder, now=time.time())
    with pytest.raises(Refused):
        verify_bundle(folder, hub.root)


def test_what_is_missing_is_said(hub: Hub, folder: Path, tmp_path: Path) -> None:
    snapshot_file(folder).unlink()
    with pytest.raises(Refused, match="models"):
        read_bundle(folder, now=time.time()).records("models")
    with pytest.raises((Refused, Unreachable)):
        verify_bundle(folder, hub.root)
    (folder / "metadata" / "timestamp.json").unlink()
    with pytest.raises(Refused, match="timestamp"):
        read_bundle(folder, now=time.time())
    (folder / "metadata" / "timestamp.json").symlink_to(folder / "metadata" / "timestamp.json")
    with pytest.raises(Refused):
        read_bundle(folder, now=time.time())
    with pytest.raises(Refused, match="root"):
        shipped_root(tmp_path / "nothing")


def test_a_hub_of_one_collection_is_enough(hub: Hub, folder: Path) -> None:
    for name in COLLECTIONS:
        if name != "models":
            for path in (folder / "metadata").glob(f"*.{name}.json"):
                path.unlink()

    def only_models(payload: Any) -> None:
        payload.meta = {name: meta for name, meta in payload.meta.items() if name in ("targets.json", "models.json")}

    write(folder, "snapshot", signed(newest(folder, "snapshot"), hub.signers["snapshot"], only_models))
    bundle = read_bundle(folder, now=time.time())
    assert len(bundle.records("models")) == 20
    assert (bundle.state("flags"), bundle.records("flags"), bundle.get("flags", "x")) == (None, [], None)
    verify_bundle(folder, hub.root)
