"""Keys change, and clients of the first root follow: python-tuf's, and our own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from jan_registry.publish.errors import MissingSignatures, PublishInvalid
from jan_registry.publish.keys import Keys
from jan_registry.publish.roles import DELEGATED
from jan_registry.publish.rotation import KeyChange, renew, rotate
from jan_registry.publish.signing import sign
from jan_registry.publish.state import read
from jan_registry.signed.folder import FolderFetch
from jan_registry.signed.store import HubStore
from jan_registry.signed.sync import sync
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Timestamp

from .hubmaker import Hub, Serve, key, nginx
from .publish_client import Client

__all__ = ["nginx"]
EVERY = ["root", "targets", *DELEGATED, "snapshot", "timestamp"]


class Both:
    """One client of each kind, both begun with the first root; `models` is what each of them sees."""

    def __init__(self, hub: Hub, folder: Path, url: str = "") -> None:
        self.hub = hub
        self.plain = Client(folder / "plain", url or hub.url, hub.root)
        self.store = HubStore(folder / "ours")

    def models(self) -> list[str]:
        sync(self.store, FolderFetch(self.hub.tree), self.hub.root, now=time.time)
        ours = [json.loads(record)["id"] for record in self.store.records("models")]
        assert self.plain.ids() == ours
        return ours

    def close(self) -> None:
        self.store.close()


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    hub = Hub(tmp_path)
    hub.models("a").publish()
    return hub


@pytest.fixture
def clients(hub: Hub, tmp_path: Path) -> Any:
    both = Both(hub, tmp_path / "clients")
    yield both
    both.close()


def swap(hub: Hub, role: str, number: int = 0) -> KeyChange:
    """Take one key of a role away and give it another one; `hub.signers` has the new one from then on."""
    old, new = hub.signers[role][number], key(f"another key for {role} {number}")
    hub.signers[role] = [signer for signer in hub.signers[role] if signer is not old] + [new]
    return KeyChange(add=[new.public_key], remove=[old.public_key.keyid])


@pytest.mark.parametrize("role", EVERY)
def test_a_key_of_any_role_is_replaced_and_clients_follow(hub: Hub, clients: Both, role: str) -> None:
    assert clients.models() == ["a"]
    everyone = Keys([*hub.keys, key(f"another key for {role} 0")])
    change = swap(hub, role)
    done = rotate(hub.tree, {role: change}, everyone, now=time.time())
    home = "targets" if role in DELEGATED else "root"
    assert {home, role, "timestamp"} <= {made.role for made in done.roles}
    assert clients.models() == ["a"]
    # From now on the new keys do it alone…
    hub.models("a", "b").publish()
    assert clients.models() == ["a", "b"]
    signers = {found.keyid for found in read(hub.tree).signers(role).keys}  # type: ignore[union-attr]
    assert signers == {signer.public_key.keyid for signer in hub.signers[role]}
    # …and the old one can do nothing: whoever needs it is told so.
    if role not in ("root", "targets"):
        without = [signer for name in hub.signers if name != role for signer in hub.signers[name]]
        for name in DELEGATED:
            hub.set(name, [{"id": "changed"}])
        with pytest.raises(MissingSignatures):
            hub.publish(keys=Keys([*without, key(f"hub {role} 0")]), pending=None)


def test_a_client_that_was_away_for_many_rotations_follows_them_all(hub: Hub, clients: Both) -> None:
    for number, role in enumerate(["timestamp", "snapshot", "root", "targets", "models"]):
        everyone = [*hub.keys, key(f"another key for {role} 0")]
        rotate(hub.tree, {role: swap(hub, role)}, Keys(everyone), now=time.time())
        hub.models(f"m{number}").publish()
    assert clients.models() == ["m4"]
    assert clients.plain.versions()["root"] == 5


def test_a_root_with_other_keys_altogether_is_signed_by_enough_of_the_old_and_of_the_new(
    hub: Hub, clients: Both
) -> None:
    old, new = hub.signers["root"], [key(f"root of another generation {number}") for number in range(3)]
    change = KeyChange([signer.public_key for signer in new], [signer.public_key.keyid for signer in old])
    online = [*hub.keys_of("targets", "snapshot", "timestamp")]
    for signers, lacking in ((new, old), (old, new)):
        with pytest.raises(MissingSignatures) as missing:
            rotate(hub.tree, {"root": change}, Keys([*online, *signers]), now=time.time())
        assert missing.value.data["roles"]["root"] == {
            "needs": 2,
            "keyids": sorted(signer.public_key.keyid for signer in lacking),
        }
    rotate(hub.tree, {"root": change}, Keys([*online, *old[1:], *new[:2]]), now=time.time())
    assert len(read(hub.tree).metadata["root"].signatures) == 4
    hub.signers["root"] = new
    hub.models("b").publish()
    assert clients.models() == ["b"]


def test_many_roles_are_rotated_in_one_ceremony(hub: Hub, clients: Both) -> None:
    assert clients.models() == ["a"]
    roles = ["flags", "featured", "snapshot", "timestamp"]
    everyone = Keys([*hub.keys, *(key(f"another key for {role} 0") for role in roles)])
    done = rotate(hub.tree, {role: swap(hub, role) for role in roles}, everyone, now=time.time())
    assert sorted(made.role for made in done.roles) == sorted([*roles, "root", "targets"])
    assert clients.models() == ["a"]


def test_a_stolen_online_key_is_worth_nothing_after_the_rotation(
    hub: Hub, clients: Both, nginx: Serve, tmp_path: Path
) -> None:
    victim = Both(hub, tmp_path / "victim", nginx(hub.tree))
    assert victim.models() == ["a"]
    thief = hub.signers["timestamp"][0]
    path = hub.tree / "metadata" / "timestamp.json"
    honest = path.read_bytes()

    def forged(version: int) -> bytes:
        state = read(hub.tree)
        payload = Timestamp(version=version, expires=state.metadata["timestamp"].signed.expires)
        payload.snapshot_meta = MetaFile(state.version_of("snapshot"))
        metadata = Metadata(payload)
        metadata.sign(thief)
        return metadata.to_bytes()

    # The thief raises the version as far as it goes, so that clients refuse what is honest…
    path.write_bytes(forged(2**31 - 1))
    assert victim.models() == ["a"]
    path.write_bytes(honest)
    with pytest.raises(Exception, match="2147483647"):
        victim.models()
    # …until the key is replaced: then it counts for nothing, forwards or backwards.
    everyone = Keys([*hub.keys, key("another key for timestamp 0")])
    rotate(hub.tree, {"timestamp": swap(hub, "timestamp")}, everyone, now=time.time(), collections=hub.collections)
    hub.models("a", "b").publish()
    assert victim.models() == clients.models() == ["a", "b"]
    after = path.read_bytes()
    path.write_bytes(forged(2**31 - 1))
    for refused in (victim.models, clients.models, victim.plain.ids):
        with pytest.raises(Exception, match=r"signed by 0/1 keys|signature"):
            refused()
    with pytest.raises(UnsignedMetadataError):
        clients.plain.ids()
    path.write_bytes(after)
    assert victim.models() == ["a", "b"]
    victim.close()


def test_a_rotation_is_signed_on_offline_machines_and_finished_by_the_next_publication(hub: Hub, clients: Both) -> None:
    online = Keys([*hub.keys_of(*DELEGATED, "snapshot", "timestamp"), key("another key for timestamp 0")])
    change = swap(hub, "timestamp")
    with pytest.raises(MissingSignatures) as missing:
        rotate(hub.tree, {"timestamp": change}, online, now=time.time(), pending=hub.pending)
    assert list(missing.value.data["roles"]) == ["root"]
    # Life goes on with the old key meanwhile.
    done = hub.models("a", "b").publish(keys=Keys([*online, key("hub timestamp 0")]))
    assert "Version 2 of root waits for 2 more signature(s)" in done.warnings[0]
    assert clients.models() == ["a", "b"]
    for signer in hub.signers["root"][1:]:
        sign(hub.pending / "2.root.json", signer)
    done = hub.publish(keys=online)
    assert [(made.role, made.reason) for made in done.roles] == [("root", "signed elsewhere"), ("timestamp", "always")]
    assert clients.models() == ["a", "b"]
    assert list(hub.pending.iterdir()) == []


def test_what_waits_is_not_thrown_away_for_another_change(hub: Hub) -> None:
    online = hub.keys_of(*DELEGATED, "snapshot", "timestamp")
    first = KeyChange(add=[key("first").public_key])
    with pytest.raises(MissingSignatures):
        rotate(hub.tree, {"flags": first}, online, now=time.time(), pending=hub.pending)
    sign(hub.pending / "2.targets.json", hub.signers["targets"][0])
    waiting = (hub.pending / "2.targets.json").read_bytes()
    with pytest.raises(PublishInvalid, match="waits for signatures and says something else"):
        rotate(
            hub.tree,
            {"flags": KeyChange(add=[key("second").public_key])},
            online,
            now=time.time(),
            pending=hub.pending,
        )
    assert (hub.pending / "2.targets.json").read_bytes() == waiting
    # Asked for once more, it goes on where it was.
    with pytest.raises(MissingSignatures) as missing:
        rotate(hub.tree, {"flags": first}, online, now=time.time(), pending=hub.pending)
    assert missing.value.data["roles"]["targets"]["needs"] == 1


def test_root_and_targets_are_renewed_without_a_change(hub: Hub, clients: Both) -> None:
    now = time.time()
    done = renew(hub.tree, ["root", "targets"], hub.keys, now=now)
    assert [(made.role, made.before, made.version) for made in done.roles] == [
        ("root", 1, 2),
        ("targets", 1, 2),
        ("snapshot", 1, 2),
        ("timestamp", 1, 2),
    ]
    assert [int(made.expires) for made in done.roles[:2]] == [int(now) + days * 86400 for days in (365, 90)]
    assert clients.models() == ["a"]


def test_more_signatures_than_before_can_be_asked_for(hub: Hub, clients: Both) -> None:
    other = key("second curator")
    keys = Keys([*hub.keys, other])
    rotate(hub.tree, {"models": KeyChange(add=[other.public_key], threshold=2)}, keys, now=time.time())
    with pytest.raises(MissingSignatures):
        hub.models("b").publish(pending=None)
    hub.publish(keys=keys)
    assert clients.models() == ["b"]


@pytest.mark.parametrize(
    ("role", "change", "reason"),
    [
        ("nonsense", KeyChange(), "no role nonsense"),
        ("flags", KeyChange(), "Nothing would change"),
        ("flags", KeyChange(remove=["00"]), "has no key 00"),
        ("flags", KeyChange(threshold=2), "2 of 1 keys"),
        ("flags", KeyChange(threshold=0), "0 of 1 keys"),
        ("timestamp", KeyChange(add=[key("hub timestamp 0").public_key]), "same key twice"),
        ("root", KeyChange(threshold=4), "4 of 3 keys"),
    ],
)
def test_a_change_that_cannot_be_is_refused(hub: Hub, role: str, change: KeyChange, reason: str) -> None:
    before = (hub.tree / "metadata" / "timestamp.json").read_bytes()
    with pytest.raises(PublishInvalid, match=reason):
        rotate(hub.tree, {role: change}, hub.keys, now=time.time())
    assert (hub.tree / "metadata" / "timestamp.json").read_bytes() == before


def test_only_root_and_targets_are_renewed(hub: Hub) -> None:
    with pytest.raises(PublishInvalid):
        renew(hub.tree, ["flags"], hub.keys, now=time.time())
