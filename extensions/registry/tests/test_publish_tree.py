"""A published tree, as python-tuf's own client sees it: over nginx, and as a folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_registry.collections import canonical
from jan_registry.publish import tree as publishing
from jan_registry.publish.errors import (
    MissingSignatures,
    PublishBusy,
    PublishConflict,
    PublishInvalid,
    TreeDamaged,
    TreeUnknown,
)
from jan_registry.publish.files import exclusive
from jan_registry.publish.keys import Keys
from jan_registry.publish.roles import RoleKeys, lifetime
from jan_registry.publish.status import status
from tuf.api.exceptions import DownloadError, ExpiredMetadataError

from .hubmaker import Hub, Serve, key, model, nginx
from .publish_client import Client

__all__ = ["nginx"]
DAY = 86400
NOW = 1_800_000_000.0
"""For what no client of the real time has to believe."""


def contents(tree: Path) -> dict[str, str]:
    """Every file of a tree, by its hash."""
    files = (path for path in tree.rglob("*") if path.is_file() and path.name != ".publish.lock")
    return {path.relative_to(tree).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def signed(hub: Hub, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((hub.tree / "metadata" / path).read_bytes())["signed"]
    return found


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path, now=NOW)


@pytest.fixture
def live(tmp_path: Path) -> Hub:
    """With metadata that are valid today."""
    return Hub(tmp_path, name="live").models("b/two", "a/one").set("stats", [{"id": "a/one", "downloads": 3}])


@pytest.mark.parametrize("where", ["nginx", "nginx with gzip", "folder"])
def test_an_independent_client_reads_what_was_published(live: Hub, nginx: Serve, tmp_path: Path, where: str) -> None:
    url = live.url if where == "folder" else nginx(live.tree, gzip="gzip" in where)
    client = Client(tmp_path / "client", url, live.root)
    live.publish()
    assert client.get("models") == [model("a/one"), model("b/two")]
    assert client.get("stats") == [{"id": "a/one", "downloads": 3}]
    assert client.get("flags") == []
    live.models("c/three").publish()
    assert client.ids() == ["c/three"]
    assert client.ids("stats") == ["a/one"]


def test_a_hub_whose_server_was_killed_is_as_it_was_when_it_is_started_again(
    live: Hub, nginx: Serve, tmp_path: Path
) -> None:
    live.publish()
    url = nginx(live.tree)
    client = Client(tmp_path / "client", url, live.root)
    assert client.ids() == ["a/one", "b/two"]
    nginx.at(url).kill()
    with pytest.raises(DownloadError):
        client.ids()
    nginx.at(url).start()
    assert client.ids() == ["a/one", "b/two"]
    assert any("GET /metadata/timestamp.json HTTP/1.1" in line for line in nginx.at(url).requests())


def test_an_unchanged_hub_costs_a_client_two_requests_and_at_most_500_bytes(
    live: Hub, nginx: Serve, tmp_path: Path
) -> None:
    live.publish()
    client = Client(tmp_path / "client", nginx(live.tree), live.root)
    client.versions()
    live.publish()
    client.versions()
    assert list(client.seen) == ["metadata/2.root.json", "metadata/timestamp.json"]
    assert sum(client.seen.values()) <= 500


def test_only_what_changed_gets_a_new_version(hub: Hub) -> None:
    first = hub.models("a", "b").publish(now=NOW)
    assert {change.role: change.reason for change in first.roles} == dict.fromkeys(
        ["models", "featured", "flags", "revocations", "stats", "snapshot", "timestamp"], "first"
    )
    again = hub.publish(now=NOW + 60)
    assert [(change.role, change.version, change.reason) for change in again.roles] == [("timestamp", 2, "always")]
    assert again.collections == []
    changed = hub.models("a", "b", "c").publish(now=NOW + 120)
    assert [(change.role, change.before, change.version) for change in changed.roles] == [
        ("models", 1, 2),
        ("snapshot", 1, 2),
        ("timestamp", 2, 3),
    ]
    (models,) = changed.collections
    assert (models.name, models.seq, models.count, models.created, models.updated, models.deleted) == (
        *("models", 2, 3),
        *(["c"], [], []),
    )
    assert models.delta_from == [1]
    assert changed.version == 3


def test_the_signed_target_says_counter_count_deltas_size_and_time(hub: Hub) -> None:
    hub.models("a").publish(now=NOW)
    hub.models("a", "b").publish(now=NOW + 9)
    target = signed(hub, "2.models.json")["targets"]["collections/models.json"]
    packed = hub.tree / "targets" / "collections" / f"{target['hashes']['sha256']}.models.json.gz"
    size = packed.stat().st_size
    assert target["custom"] == {"seq": 2, "count": 2, "delta_from": [1], "gz": size, "at": int(NOW) + 9}
    delegations = signed(hub, "1.targets.json")["delegations"]["roles"]
    assert [(role["name"], role["paths"], role["terminating"]) for role in delegations] == [
        (name, [f"collections/{name}.json"], True) for name in ("models", "featured", "flags", "revocations", "stats")
    ]
    assert signed(hub, "1.root.json")["consistent_snapshot"] is True


def test_every_role_is_valid_for_as_long_as_it_should_be(hub: Hub) -> None:
    hub.publish(now=NOW)
    days = {"root": 365, "targets": 90, "models": 30, "featured": 7, "flags": 7, "revocations": 7, "stats": 7}
    days |= {"snapshot": 7, "timestamp": 2}
    for role, expected in days.items():
        name = "timestamp.json" if role == "timestamp" else f"1.{role}.json"
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW + expected * DAY))
        assert (role, signed(hub, name)["expires"]) == (role, expires)


def test_what_expires_soon_is_signed_anew_when_its_keys_are_there_and_said_when_not(hub: Hub) -> None:
    hub.models("a").publish(now=NOW)
    online = hub.keys_of("featured", "flags", "revocations", "stats", "snapshot", "timestamp")
    days: dict[int, list[str]] = {}
    for day in range(1, 46):
        # Every day, as a job would; the curators come with their key on the 28th day.
        done = hub.publish(now=NOW + day * DAY, keys=hub.keys_of("models", *hub.signers) if day == 28 else online)
        days[day] = [change.role for change in done.roles if change.reason.startswith("expire")]
        assert any(warning.startswith("models expires") for warning in done.warnings) == (15 < day < 28 or day > 43)
        assert set(done.due) - {"root", "targets"} == ({"models"} if 15 < day < 28 or day > 43 else set())
        for role in ("featured", "snapshot", "models"):
            path = max((hub.tree / "metadata").glob(f"*.{role}.json"), key=lambda path: int(path.name.split(".")[0]))
            expires = json.loads(path.read_bytes())["signed"]["expires"]
            assert expires > time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW + day * DAY))
    assert days[3] == []
    assert days[4] == ["featured", "flags", "revocations", "stats"]
    assert "models" in days[28]
    # A collection that has expired keeps no other back…
    done = hub.set("revocations", [{"id": "r1", "reason": "x"}]).publish(now=NOW + 80 * DAY, keys=online)
    assert [change.name for change in done.collections] == ["revocations"]
    assert done.due["models"].keyids == [hub.signers["models"][0].public_key.keyid]
    assert any(warning.startswith("models expired 2027-03-14, and") for warning in done.warnings)
    # …but without the top nothing is believed.
    with pytest.raises(MissingSignatures) as missing:
        hub.publish(now=NOW + 91 * DAY, keys=online)
    keyids = sorted(signer.public_key.keyid for signer in hub.signers["targets"])
    assert missing.value.data["roles"] == {"targets": {"needs": 2, "keyids": keyids}}


def test_the_same_input_keys_and_time_give_the_same_bytes(tmp_path: Path) -> None:
    trees = []
    for folder in (tmp_path / "x", tmp_path / "y"):
        hub = Hub(folder, now=NOW)
        hub.models("a", "b", "ü/ñ").publish(now=NOW)
        hub.models("b", "c").set("stats", [{"id": "b", "likes": 1}]).publish(now=NOW + 60)
        trees.append(contents(hub.tree))
    assert trees[0] == trees[1]


def test_the_order_in_which_records_are_given_changes_nothing(hub: Hub) -> None:
    hub.models("b", "a", "c").publish(now=NOW)
    assert hub.models("c", "b", "a").publish(now=NOW).collections == []


def test_a_plan_writes_nothing_and_is_what_publishing_then_does(hub: Hub) -> None:
    hub.models("a", "b").publish(now=NOW)
    before = contents(hub.tree)
    hub.models("b", model("a", name="Other"), "c").set("featured", [{"id": "start", "models": ["a"]}])
    planned = publishing.plan(hub.tree, hub.collections, now=NOW + 60, keys=hub.keys)
    assert contents(hub.tree) == before
    done = hub.publish(now=NOW + 60)
    assert (planned.roles, planned.collections, planned.version) == (done.roles, done.collections, done.version)
    assert planned.bytes_written == done.bytes_written
    models, featured = planned.collections
    assert (models.created, models.updated, models.deleted) == (["c"], ["a"], [])
    assert (featured.created, featured.delta_from) == (["start"], [1])
    assert models.full_bytes == len(packed_models(hub))
    assert 0 < models.delta_bytes < models.full_bytes


def packed_models(hub: Hub) -> bytes:
    return max(
        (hub.tree / "targets" / "collections").glob("*.models.json.gz"), key=lambda p: p.stat().st_size
    ).read_bytes()


def test_a_plan_does_not_count_what_is_there_already(hub: Hub) -> None:
    hub.models(*(f"m{number}" for number in range(100))).set("stats", []).publish(now=NOW)
    hub.set("stats", [{"id": "m1", "likes": 2}])
    planned = publishing.plan(hub.tree, hub.collections, now=NOW + 60, keys=hub.keys)
    assert planned.bytes_written == hub.publish(now=NOW + 60).bytes_written < 4096


def test_a_plan_says_which_signatures_would_be_missing(hub: Hub) -> None:
    hub.publish(now=NOW)
    hub.models("a")
    planned = publishing.plan(hub.tree, hub.collections, now=NOW, keys=hub.keys_of("snapshot"))
    assert {role: lack.needs for role, lack in planned.missing.items()} == {"models": 1, "timestamp": 1}
    assert publishing.plan(hub.tree, hub.collections, now=NOW).missing == {}


def test_collections_that_are_not_given_stay_as_they_are(hub: Hub) -> None:
    hub.models("a").set("flags", [{"id": "x", "kind": "flag", "value": 1}]).publish(now=NOW)
    hub.models("a", "b").set("flags", [])
    done = hub.publish(now=NOW, only=["flags"], keys=hub.keys_of("flags", "snapshot", "timestamp"))
    assert [change.name for change in done.collections] == ["flags"]
    assert signed(hub, "1.models.json")["targets"]["collections/models.json"]["custom"]["count"] == 1


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'{"id": "a"}', "not in canonical form"),
        (b'{"name":"x","id":"a"}', "not in canonical form"),
        (b'{"name":"x"}', "missing required field `id`"),
        (b'{"id":1}', "Expected `str`"),
        (b"nonsense", "malformed"),
    ],
)
def test_a_record_that_is_not_canonical_is_refused(hub: Hub, record: bytes, reason: str) -> None:
    hub.publish(now=NOW)
    before = contents(hub.tree)
    with pytest.raises(PublishInvalid, match=reason):
        publishing.publish(hub.tree, hub.keys, {"models": [record]}, now=NOW)
    assert contents(hub.tree) == before


def test_an_id_twice_and_an_unknown_collection_are_refused(hub: Hub) -> None:
    with pytest.raises(PublishInvalid, match="two records with the id a"):
        hub.models("a", "a").publish(now=NOW)
    with pytest.raises(PublishInvalid, match="no collection nonsense"):
        publishing.publish(hub.tree, hub.keys, {"nonsense": []}, now=NOW)


def test_two_publishers_at_once_the_second_is_refused(hub: Hub) -> None:
    with exclusive(hub.tree), pytest.raises(PublishBusy):
        hub.publish(now=NOW)
    hub.publish(now=NOW)


def test_nobody_publishes_over_what_somebody_else_published(hub: Hub) -> None:
    seen = hub.models("a").publish(now=NOW).version
    hub.models("b").publish(now=NOW, expect=seen)
    with pytest.raises(PublishConflict, match="Somebody else has published: the hub is at version 2, not 1"):
        hub.models("c").publish(now=NOW, expect=seen)
    with pytest.raises(PublishConflict, match="older copy"):
        hub.publish(now=NOW, expect=9)


def test_a_clock_that_went_back_is_said(hub: Hub) -> None:
    hub.publish(now=NOW)
    (warning,) = hub.publish(now=NOW - 3600).warnings
    assert warning.startswith("The clock says 2027-01-15 07:00:00, but this was last published 2027-01-15 08:00:00")


def test_what_has_expired_is_refused_by_a_client_until_it_is_published_again(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    hub.models("a").publish(now=time.time() - 3 * DAY)
    client = Client(tmp_path / "client", hub.url, hub.root)
    with pytest.raises(ExpiredMetadataError):
        client.ids()
    hub.publish()
    assert client.ids() == ["a"]


def test_a_folder_without_a_hub_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(TreeUnknown):
        publishing.publish(tmp_path, Keys(), {}, now=NOW)


def test_there_is_one_hub_in_a_folder(hub: Hub) -> None:
    with pytest.raises(PublishInvalid, match="already"):
        publishing.create(hub.tree, hub.roles, hub.keys, now=NOW)


@pytest.mark.parametrize(
    ("role", "signers", "threshold", "reason"),
    [("models", [], 1, "0 keys"), ("root", ["a", "b"], 3, "3 of 2 keys"), ("flags", ["a", "a"], 2, "same key twice")],
)
def test_roles_that_nobody_could_sign_are_refused(
    hub: Hub, tmp_path: Path, role: str, signers: list[str], threshold: int, reason: str
) -> None:
    roles = hub.roles | {role: RoleKeys([key(name).public_key for name in signers], threshold)}
    with pytest.raises(PublishInvalid, match=reason):
        publishing.create(tmp_path / "new", roles, hub.keys, now=NOW)
    assert not (tmp_path / "new" / "metadata").exists()


def damage_bytes(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"version"', b'"versiom"', 1))


def damage_signature(path: Path) -> None:
    metadata = json.loads(path.read_bytes())
    for signature in metadata["signatures"]:
        signature["sig"] = "00" * 64
    path.write_text(json.dumps(metadata))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("damage", [damage_bytes, damage_signature, cut, Path.unlink])
@pytest.mark.parametrize("name", ["1.root", "1.targets", "1.models", "1.snapshot", "timestamp"])
def test_damaged_metadata_are_refused_with_the_file_and_nothing_is_signed_over_them(
    hub: Hub, name: str, damage: Any
) -> None:
    hub.models("a").publish(now=NOW)
    damage(hub.tree / "metadata" / f"{name}.json")
    before = contents(hub.tree)
    with pytest.raises(TreeDamaged) as damaged:
        hub.models("b").publish(now=NOW)
    assert damaged.value.data["file"] == f"metadata/{name}.json"
    assert contents(hub.tree) == before


def test_a_lost_snapshot_is_written_again_without_a_delta_to_it(hub: Hub, tmp_path: Path) -> None:
    hub.models("a").publish(now=NOW)
    (lost,) = (hub.tree / "targets" / "collections").glob("*.models.json.gz")
    content = lost.read_bytes()
    lost.unlink()
    assert "written anew" in hub.publish(now=NOW).warnings[0]
    assert lost.read_bytes() == content
    lost.write_bytes(b"damaged")
    (models,) = hub.models("a", "b").publish(now=NOW).collections
    assert (models.seq, models.delta_from) == (2, [])


def test_old_files_stay_until_no_client_can_be_in_the_middle_of_them(hub: Hub) -> None:
    hub.models("a").publish(now=NOW)
    first = set(contents(hub.tree))
    grace = lifetime("timestamp") + DAY
    for minute in range(1, 4):
        done = hub.models("a", f"m{minute}").publish(now=NOW + 60 * minute)
        assert done.pruned == []
    assert first <= set(contents(hub.tree))
    hub.publish(now=NOW + 60 + grace)  # not yet: it has to be longer than that
    assert first <= set(contents(hub.tree))
    done = hub.publish(now=NOW + 61 + grace)
    gone = first - set(contents(hub.tree))
    assert gone == {path for path in first if "models" in path and path.endswith((".models.json", ".gz"))} | {
        "metadata/1.snapshot.json"
    }
    assert gone == set(done.pruned)


def test_what_is_referred_to_again_is_not_pruned(hub: Hub) -> None:
    hub.models("a").publish(now=NOW)
    hub.models("b").publish(now=NOW + 1)
    hub.models("a").publish(now=NOW + 2)
    done = hub.publish(now=NOW + 30 * DAY)
    (kept,) = (hub.tree / "targets" / "collections").glob("*.models.json.gz")
    assert signed(hub, "4.models.json")["targets"]["collections/models.json"]["hashes"]["sha256"] in kept.name
    assert done.pruned


def test_a_tree_can_be_read_by_a_web_server_however_private_its_publisher_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        hub = Hub(tmp_path, now=NOW)
        hub.models("a").publish(now=NOW)
    finally:
        os.umask(before)
    for folder in ("metadata", "targets", "deltas"):
        for path in [hub.tree / folder, *(hub.tree / folder).rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


JUNK = [b"", b"0", b"-1", b"null", b'"', b"[", b"}", b"\xff", b"9" * 5000, b"[" * 5000]


def test_metadata_of_any_damage_are_a_clear_error_or_as_good_as_before(hub: Hub) -> None:
    hub.models("a").publish(now=NOW)
    hub.models("b")
    files = {path: path.read_bytes() for path in sorted((hub.tree / "metadata").iterdir())}

    @given(st.sampled_from(list(files)), st.floats(0, 1), st.sampled_from(JUNK), st.integers(0, 12))
    def check(path: Path, where: float, junk: bytes, gone: int) -> None:
        content = files[path]
        at = int(where * len(content))
        path.write_bytes(content[:at] + junk + content[at + gone :])
        for use in (
            lambda: status(hub.tree, now=NOW),
            lambda: publishing.plan(hub.tree, hub.collections, now=NOW, keys=hub.keys),
        ):
            with contextlib.suppress(TreeDamaged):
                use()
        path.write_bytes(content)

    check()


def test_piece_lists_are_published_with_the_models_that_name_them(hub: Hub) -> None:
    content = bytes(range(64))
    name = hashlib.sha256(content).hexdigest()
    pieces = {"len": 8 << 20, "n": 2, "sha256": name, "target": f"pieces/{name}.bin"}
    record = model("a")
    record["files"][0]["pieces"] = pieces
    (warning,) = hub.models(record).publish(now=NOW).warnings
    assert warning.startswith(f"The piece list targets/pieces/{name}.bin is not there")
    hub.pieces.mkdir()
    (hub.pieces / f"{name}.bin").write_bytes(content)
    (hub.pieces / "other.bin").write_bytes(b"not named by anything")
    assert hub.publish(now=NOW).warnings == []
    published = hub.tree / "targets" / "pieces"
    assert [path.read_bytes() for path in published.iterdir()] == [content]
    hub.models("a").publish(now=NOW + DAY)
    hub.publish(now=NOW + 5 * DAY)
    assert list(published.iterdir()) == []


def test_a_record_cannot_reach_for_files_outside(hub: Hub, tmp_path: Path) -> None:
    record = model("a")
    record["files"][0]["pieces"] = {"len": 1, "n": 1, "sha256": "", "target": "pieces/../../../secret.bin"}
    hub.pieces.mkdir()
    (hub.pieces / "secret.bin").write_bytes(b"secret")
    hub.collections["models"] = [canonical(record)]
    hub.publish(now=NOW)
    assert b"secret" not in b"".join(path.read_bytes() for path in hub.tree.rglob("*.bin"))
