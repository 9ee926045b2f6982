"""What a release ships: the signed hub of one moment. And what the hub says of itself."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from jan_registry.publish.errors import PublishInvalid, TreeDamaged, TreeUnknown
from jan_registry.publish.package import package
from jan_registry.publish.rotation import KeyChange, rotate
from jan_registry.publish.status import status
from jan_registry.signed.bundle import read_bundle, shipped_root, verify_bundle

from .hubmaker import Hub, key
from .publish_client import Client

DAY = 86400
NOW = 1_800_000_000.0
SHORT = ["featured", "flags", "revocations", "stats"]


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    """Published three times, and with a second root."""
    hub = Hub(tmp_path, now=NOW)
    hub.models("a").publish(now=NOW)
    hub.models("a", "b").publish(now=NOW + 1)
    new = key("new")
    rotate(hub.tree, {"stats": KeyChange(add=[new.public_key])}, hub.keys, now=NOW + 2)
    rotate(hub.tree, {"snapshot": KeyChange(add=[new.public_key])}, hub.keys, now=NOW + 3)
    return hub


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_package_holds_what_is_current_and_every_root_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    paths = package(hub.tree, tmp_path / "package")
    assert files(tmp_path / "package") == sorted(paths)
    metadata = {path.removeprefix("metadata/").removesuffix(".json") for path in paths if path.startswith("metadata/")}
    current = {"2.targets", "2.models", "1.featured", "1.flags", "1.revocations", "1.stats", "3.snapshot", "timestamp"}
    assert metadata == {"1.root", "2.root"} | current
    assert len(paths) - len(metadata) == len(["models", "featured", "flags", "revocations", "stats"])
    for path in paths:
        assert (tmp_path / "package" / path).read_bytes() == (hub.tree / path).read_bytes()


def test_a_package_is_read_and_verified_without_a_network(hub: Hub, tmp_path: Path) -> None:
    package(hub.tree, tmp_path / "package")
    verify_bundle(tmp_path / "package", hub.root)
    assert shipped_root(tmp_path / "package") == hub.root
    bundle = read_bundle(tmp_path / "package", now=NOW + 9)
    assert [json.loads(record)["id"] for record in bundle.records("models")] == ["a", "b"]
    state = bundle.state("models")
    assert state is not None
    assert (state.seq, state.count, state.origin, state.verified_at) == (2, 2, "bundle", int(NOW) + 1)
    assert (state.versions["root"], state.expires_at) == (2, int(NOW) + 3 + 2 * DAY)


def test_a_package_is_a_hub_that_any_client_can_use(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    hub.models("a").publish()
    package(hub.tree, tmp_path / "package")
    client = Client(tmp_path / "client", (tmp_path / "package").as_uri() + "/", hub.root)
    assert client.ids() == ["a"]


def test_a_package_is_replaced_by_the_next_and_nothing_else_ever_is(hub: Hub, tmp_path: Path) -> None:
    package(hub.tree, tmp_path / "package")
    hub.models("c").publish(now=NOW + 9)
    paths = package(hub.tree, tmp_path / "package")
    assert files(tmp_path / "package") == sorted(paths)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(PublishInvalid, match="holds something else"):
        package(hub.tree, tmp_path / "mine")
    assert files(tmp_path / "mine") == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    assert package(hub.tree, tmp_path / "empty") == paths


def test_there_is_no_package_of_what_is_damaged_or_was_never_published(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(PublishInvalid, match="Nothing was published"):
        package(Hub(tmp_path, name="new", now=NOW).tree, tmp_path / "package")
    with pytest.raises(TreeUnknown):
        package(tmp_path / "nowhere", tmp_path / "package")
    for path in (hub.tree / "targets" / "collections").glob("*.models.json.gz"):
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(TreeDamaged, match=r"models\.json\.gz"):
        package(hub.tree, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_status_says_versions_expiries_keys_and_sizes(hub: Hub) -> None:
    found = status(hub.tree, now=NOW + 60)
    roles = {role.role: role for role in found.roles}
    assert list(roles) == list(hub.signers)
    assert found.version == 4
    assert found.expires == roles["timestamp"].expires == int(NOW) + 3 + 2 * DAY
    assert (roles["root"].version, roles["root"].threshold, len(roles["root"].keyids)) == (2, 2, 3)
    assert len(roles["root"].signed_by) == 2
    assert set(roles["snapshot"].keyids) == {
        hub.signers["snapshot"][0].public_key.keyid,
        key("new").public_key.keyid,
    }
    assert roles["models"].sign_by == int(NOW) + 1 + 15 * DAY
    models = {collection.name: collection for collection in found.collections}["models"]
    assert (models.seq, models.count, models.delta_from, models.at, models.problem) == (2, 2, [1], int(NOW) + 1, "")
    on_disk = [path for path in hub.tree.rglob("*") if path.is_file()]
    assert (found.files, found.bytes) == (len(on_disk), sum(path.stat().st_size for path in on_disk))
    assert not found.interrupted


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (0.5, {}),
        (1.5, {"timestamp": "expires soon"}),
        (4, {"timestamp": "expired"} | dict.fromkeys([*SHORT, "snapshot"], "expires soon")),
        (400, dict.fromkeys(["root", "targets", "models", *SHORT, "snapshot", "timestamp"], "expired")),
    ],
)
def test_status_says_what_has_to_be_signed(hub: Hub, days: float, expected: dict[str, str]) -> None:
    found = {role.role: role.standing for role in status(hub.tree, now=NOW + days * DAY).roles}
    valid = dict.fromkeys(hub.signers, "valid")
    assert found == valid | expected


def test_status_says_what_was_never_signed(tmp_path: Path) -> None:
    hub = Hub(tmp_path, now=NOW)
    new = status(hub.tree, now=NOW)
    assert (new.version, new.expires, new.collections) == (0, 0, [])
    assert {role.role for role in new.roles if role.standing == "missing"} == set(hub.signers) - {"root", "targets"}


def test_status_says_which_files_of_a_collection_are_lost_or_damaged(hub: Hub) -> None:
    (hub.tree / "deltas" / "models" / "1-2.json.gz").unlink()

    def problem() -> str:
        return {collection.name: collection for collection in status(hub.tree, now=NOW).collections}["models"].problem

    assert problem() == "1 of its deltas are missing; clients download the whole collection instead."
    for path in (hub.tree / "targets" / "collections").glob("*.models.json.gz"):
        path.write_bytes(b"damaged")
    assert "it is not gzip" in problem()


def test_status_of_what_is_no_hub_is_a_clear_error(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(TreeUnknown, match="There is no hub in"):
        status(tmp_path / "nowhere", now=NOW)
    (hub.tree / "metadata" / "2.targets.json").write_text("[]")
    with pytest.raises(TreeDamaged, match=r"metadata/2\.targets\.json: it is not TUF metadata"):
        status(hub.tree, now=NOW)


def test_status_changes_nothing(hub: Hub) -> None:
    before = {path: path.read_bytes() for path in hub.tree.rglob("*") if path.is_file()}
    status(hub.tree, now=time.time())
    assert {path: path.read_bytes() for path in hub.tree.rglob("*") if path.is_file()} == before
