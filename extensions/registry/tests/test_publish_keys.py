"""Private keys in files, and signatures that are given elsewhere."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import pytest
from jan_registry.publish import tree as publishing
from jan_registry.publish.errors import KeyUnusable, MissingSignatures, PublishInvalid
from jan_registry.publish.keys import Keys, generate, load, load_public, public_pem, save
from jan_registry.publish.rotation import KeyChange, renew, rotate
from jan_registry.publish.signing import describe, sign

from .hubmaker import Hub, key
from .publish_client import Client

NOW = 1_800_000_000.0
DAY = 86400


@pytest.mark.parametrize("passphrase", [b"correct horse", None])
def test_a_key_comes_back_from_its_file_which_only_its_owner_may_read(tmp_path: Path, passphrase: bytes | None) -> None:
    signer, path = generate(), tmp_path / "keys" / "one.pem"
    save(signer, path, passphrase)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (b"ENCRYPTED" in path.read_bytes()) == (passphrase is not None)
    assert load(path, passphrase).public_key == signer.public_key
    assert load(path, passphrase).sign(b"x") == signer.sign(b"x")


def test_a_passphrase_that_is_wrong_missing_or_empty_is_said(tmp_path: Path) -> None:
    path = tmp_path / "one.pem"
    save(generate(), path, b"right")
    with pytest.raises(KeyUnusable, match="the passphrase is wrong, or the file is damaged"):
        load(path, b"wrong")
    with pytest.raises(KeyUnusable, match="it is encrypted, and there is no passphrase"):
        load(path, None)
    with pytest.raises(KeyUnusable, match="protects nothing"):
        save(generate(), tmp_path / "two.pem", b"")
    assert not (tmp_path / "two.pem").exists()


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    save(key("a"), tmp_path / "one.pem", None)
    with pytest.raises(KeyUnusable, match="exists"):
        save(key("b"), tmp_path / "one.pem", None)
    assert load(tmp_path / "one.pem", None).public_key == key("a").public_key


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n"]
)
def test_a_file_that_is_no_key_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "one.pem"
    path.write_bytes(content)
    for opened in (lambda: load(path, None), lambda: load_public(path)):
        with pytest.raises(KeyUnusable) as unusable:
            opened()
        assert unusable.value.data["file"] == str(path)
    with pytest.raises(KeyUnusable, match="No such file"):
        load(tmp_path / "none.pem", None)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    from securesystemslib.signer import CryptoSigner

    other = CryptoSigner.generate_ecdsa()
    (tmp_path / "one.pem").write_bytes(other.private_bytes)
    (tmp_path / "one.pub").write_text(other.public_key.keyval["public"])
    with pytest.raises(KeyUnusable, match="no Ed25519 key"):
        load(tmp_path / "one.pem", None)
    with pytest.raises(KeyUnusable, match="no Ed25519 key"):
        load_public(tmp_path / "one.pub")


def test_a_public_key_travels_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "one.pub").write_bytes(public_pem(key("a").public_key))
    assert load_public(tmp_path / "one.pub") == key("a").public_key


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path, now=NOW)


def keyids(hub: Hub, role: str) -> list[str]:
    return sorted(signer.public_key.keyid for signer in hub.signers[role])


def test_no_private_key_is_in_the_tree(hub: Hub) -> None:
    hub.models("a").publish(now=NOW)
    everything = b"".join(path.read_bytes() for path in hub.tree.rglob("*") if path.is_file())
    assert b"PRIVATE" not in everything
    for signers in hub.signers.values():
        for signer in signers:
            assert signer._private_key.private_bytes_raw() not in everything  # type: ignore[union-attr]
            assert signer._private_key.private_bytes_raw().hex().encode() not in everything  # type: ignore[union-attr]


def test_a_missing_key_is_said_by_role_with_how_many_signatures_of_which_keys(hub: Hub) -> None:
    hub.publish(now=NOW)
    before = sorted(hub.tree.rglob("*"))
    with pytest.raises(MissingSignatures) as missing:
        hub.models("a").publish(now=NOW, keys=Keys(), pending=None)
    assert missing.value.data["roles"] == {
        role: {"needs": 1, "keyids": keyids(hub, role)} for role in ("models", "snapshot", "timestamp")
    }
    assert keyids(hub, "models")[0] in str(missing.value)
    assert sorted(hub.tree.rglob("*")) == before


def test_root_and_targets_are_signed_on_machines_of_their_own(tmp_path: Path) -> None:
    """The whole ceremony: nobody ever has two offline keys on one machine."""
    hub = Hub(tmp_path / "other")
    tree, pending = tmp_path / "tree", tmp_path / "pending"
    online = hub.keys_of("models", "featured", "flags", "revocations", "stats", "snapshot", "timestamp")
    now = time.time()
    with pytest.raises(MissingSignatures) as missing:
        publishing.create(tree, hub.roles, online, now=now, pending=pending)
    assert missing.value.data["roles"] == {
        role: {"needs": 2, "keyids": keyids(hub, role)} for role in ("root", "targets")
    }
    assert sorted(path.name for path in pending.iterdir()) == ["1.root.json", "1.targets.json"]
    with pytest.raises(MissingSignatures):
        publishing.publish(tree, online, {}, now=now, pending=pending)
    for role in ("root", "targets"):
        for number in (0, 2):
            said = sign(pending / f"1.{role}.json", hub.signers[role][number])
            assert (said.role, said.version, len(said.signed_by)) == (role, 1, 1 if number == 0 else 2)
    assert said.signers["models"] == keyids(hub, "models")
    assert said.thresholds["models"] == 1
    done = publishing.publish(tree, online, hub.models("a").collections, now=now, pending=pending)
    assert [change.role for change in done.roles[:2]] == ["root", "targets"]
    assert list(pending.iterdir()) == []
    root = (tree / "metadata" / "1.root.json").read_bytes()
    assert Client(tmp_path / "client", tree.as_uri() + "/", root).ids() == ["a"]


def test_a_signature_by_a_key_that_has_no_say_does_not_count(hub: Hub) -> None:
    hub.publish(now=NOW)
    online = hub.keys_of("models", "featured", "flags", "revocations", "stats", "snapshot", "timestamp")
    with pytest.raises(MissingSignatures):
        renew(hub.tree, ["targets"], online, now=NOW, pending=hub.pending)
    waiting = hub.pending / "2.targets.json"
    sign(waiting, hub.signers["targets"][0])
    sign(waiting, key("a stranger"))
    sign(waiting, hub.signers["root"][0])
    done = hub.publish(now=NOW, keys=online)
    assert [change.role for change in done.roles] == ["timestamp"]
    assert "waits for 1 more signature(s)" in done.warnings[0]
    sign(waiting, hub.signers["targets"][1])
    done = hub.publish(now=NOW, keys=online)
    first = done.roles[0]
    assert (first.role, first.version, first.reason) == ("targets", 2, "signed elsewhere")
    signatures = json.loads((hub.tree / "metadata" / "2.targets.json").read_bytes())["signatures"]
    assert sorted(signature["keyid"] for signature in signatures) == sorted(
        signer.public_key.keyid for signer in hub.signers["targets"][:2]
    )


def test_curators_who_have_to_agree_sign_one_after_the_other(tmp_path: Path) -> None:
    hub = Hub(tmp_path, now=NOW)
    curators = [key("first curator"), key("second curator"), key("third curator")]
    change = KeyChange([one.public_key for one in curators], keyids(hub, "models"), 2)
    everyone = Keys([*hub.keys, *curators])
    hub.publish(now=NOW)
    rotate(hub.tree, {"models": change}, everyone, now=NOW)
    hub.models("a")
    with pytest.raises(MissingSignatures) as missing:
        hub.publish(now=NOW, keys=Keys([*hub.keys, curators[0]]))
    assert missing.value.data["roles"]["models"]["needs"] == 1
    waiting = hub.pending / "3.models.json"
    assert describe(waiting).target["custom"]["count"] == 1
    sign(waiting, curators[2])
    # Minutes later, by a job that has none of the curators' keys.
    done = hub.publish(now=NOW + 600)
    assert [change.name for change in done.collections] == ["models"]
    assert list(hub.pending.iterdir()) == []


def test_signatures_for_what_was_changed_since_do_not_count(hub: Hub) -> None:
    hub.publish(now=NOW)
    online = hub.keys_of("snapshot", "timestamp")
    hub.models("a")
    with pytest.raises(MissingSignatures):
        hub.publish(now=NOW, keys=online)
    sign(hub.pending / "2.models.json", hub.signers["models"][0])
    hub.models("a", "smuggled in")
    with pytest.raises(MissingSignatures):
        hub.publish(now=NOW, keys=online)
    assert describe(hub.pending / "2.models.json").signed_by == []


def test_what_waits_and_is_no_metadata_is_refused_with_its_name(hub: Hub, tmp_path: Path) -> None:
    hub.publish(now=NOW)
    hub.pending.mkdir()
    for name in ("2.root.json", "2.targets.json"):
        for content in (b"", b"{}", (hub.tree / "metadata" / "1.snapshot.json").read_bytes()):
            (hub.pending / name).write_bytes(content)
            for refused in (
                lambda: hub.publish(now=NOW),
                lambda name=name: describe(hub.pending / name),
                lambda name=name: sign(hub.pending / name, key("a")),
            ):
                with pytest.raises(PublishInvalid, match=name):
                    refused()
        (hub.pending / name).unlink()
    with pytest.raises(PublishInvalid, match="no metadata that waits"):
        describe(tmp_path / "3.nonsense.json")
