"""`registry.operator.*` from an empty folder to what a client would read, in a real host."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from jan_registry.hubs.base import open_hub
from jan_registry.hubs.http import Http
from jan_registry.local import open_local
from jan_registry.publish import state
from jan_registry.publish.changes import reviewed
from jan_registry.publish.founding import save_key
from jan_registry.publish.keys import generate
from jan_registry.publish.methods import OperatorMethods
from jan_registry.publish.publishing import key_files, open_keys
from jan_registry.publish.tree import publish
from jan_registry.settings import SourceSetting

from jan_core import Context, RpcError, hookimpl, methods_of
from jan_core.testing import InlineSource

PASSPHRASE = "correct horse"


class Operator:
    """The operator's methods alone, as the extension offers them."""

    @hookimpl
    async def jan_activate(self, ctx: Context) -> None:
        self._http = Http(ctx, open_local(ctx.data_dir))

    @hookimpl
    def jan_methods(self) -> list[Any]:
        sources = [SourceSetting("jan-catalogue", "jan-catalogue"), SourceSetting("huggingface", "huggingface")]
        return methods_of(OperatorMethods(lambda: sources, lambda setting: open_hub(setting, self._http)))


class Office:
    """Somebody with a folder and a client."""

    def __init__(self, client: Any, folder: Path) -> None:
        self._client, self.folder = client, folder

    async def operate(self, method: str, **params: Any) -> Any:
        return await self._client.call(f"registry.operator.{method}", {"folder": str(self.folder)} | params)

    async def publish(self, **params: Any) -> Any:
        return await self.operate("publish", passphrase=PASSPHRASE, **params)

    def records(self, collection: str) -> dict[str, Any]:
        """What the tree publishes, through its signatures."""
        content = state.read(self.folder / "public").content(collection)
        return {id: json.loads(record) for id, record in content.records.items()} if content else {}


@pytest.fixture
async def office(open_host: Any, tmp_path: Path) -> AsyncIterator[Office]:
    source = InlineSource("operator", Operator, ["registry.operator."])
    async with open_host(sources=[source]) as host:
        office = Office(host.client(), tmp_path / "registry")
        await office.operate("init", name='The "Example"', url="https://models.example/", passphrase=PASSPHRASE)
        yield office


def gguf(path: Path, size: int = 100_000, **said: Any) -> Path:
    """A small file in the format, with one tensor of 6 numbers."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    pairs = {"general.architecture": "llama", "llama.context_length": 4096, "general.name": "Tiny\u202e", **said}
    body = b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs) + 1)
    for key, value in pairs.items():
        body += text(key)
        body += struct.pack("<I", 8) + text(value) if isinstance(value, str) else struct.pack("<II", 4, value)
    body += text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")
    body += text("weights") + struct.pack("<IQQIQ", 2, 2, 3, 0, 0)
    path.write_bytes(body.ljust(size, b"\0"))
    return path


async def add(office: Office, id: str, **fields: Any) -> Any:
    given = {"url": f"https://files.example/{id}.gguf", "size": 1000, "sha256": hashlib.sha256(id.encode()).hexdigest()}
    return await office.operate("add", id=id, name=id.title(), **(given | fields))


async def test_from_nothing_to_a_published_change(office: Office) -> None:
    status = await office.operate("status")
    assert (status["version"], status["problems"]) == (0, [])
    assert {role["role"]: (role["threshold"], len(role["keys"])) for role in status["roles"]}["root"] == (2, 3)
    assert all(key["file"] for role in status["roles"] for key in role["keys"])

    await add(office, "owner/tiny")
    await add(office, "owner/small")
    assert (await office.operate("feature", slot="default", models=["owner/small", "owner/tiny"]))["note"] == (
        "default: owner/small, owner/tiny"
    )
    await office.operate("flag", id="registry.phase", value="mixed", percent=5)
    preview = (await office.operate("publish", dry_run=True))["preview"]
    assert preview["featured"] == [
        {"id": "default", "title": "Recommended", "who": "everybody", "models": ["Owner/Small", "Owner/Tiny"]}
    ]
    assert preview["flags"] == [
        {"id": "registry.phase", "values": ["mixed for 5 %", "fallback for everybody else"]},
    ]
    assert {one["name"]: one["created"] for one in preview["collections"]}["models"] == ["owner/small", "owner/tiny"]
    assert preview["missing"] == []
    assert office.records("models") == {}, "a dry run publishes nothing"

    assert (await office.publish())["published"]
    assert list(office.records("models")) == ["owner/small", "owner/tiny"]
    await office.operate("flag", id="registry.phase", value="mixed", percent=25)
    changed = (await office.publish())["preview"]
    assert [(one["name"], one["updated"]) for one in changed["collections"]] == [("flags", ["registry.phase"])]
    assert office.records("flags")["registry.phase"]["rules"] == [{"percent": 25, "value": "mixed"}]
    assert (await office.operate("status"))["changes"] == []


async def test_a_model_is_added_from_its_file_with_a_piece_list(office: Office, tmp_path: Path) -> None:
    file = gguf(tmp_path / "tiny-Q8_0.gguf")
    await office.operate("add", id="owner/tiny", file=str(file), url="https://files.example/tiny.gguf", license="mit")
    await office.publish()
    model = office.records("models")["owner/tiny"]
    assert (model["name"], model["arch"], model["ctx"], model["params"]) == ("Tiny", "llama", 4096, 6)
    [stated] = model["files"]
    assert stated["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (stated["path"], stated["size"], stated["pieces"]["n"]) == ("tiny-Q8_0.gguf", 100_000, 1)
    assert (office.folder / "public/targets" / stated["pieces"]["target"]).read_bytes() == hashlib.sha256(
        file.read_bytes()
    ).digest()
    assert [(one["id"], one["quant"], one["files"]) for one in model["variants"]] == [("q8_0", "Q8_0", [0])]


async def test_the_next_build_of_a_variant_takes_the_place_of_the_old(office: Office, tmp_path: Path) -> None:
    for number in (1, 2):
        file = gguf(tmp_path / f"tiny-v{number}-Q8_0.gguf", 1000 * number)
        await office.operate("add", id="tiny", file=str(file), url=f"https://files.example/{number}.gguf")
    parts = [gguf(tmp_path / f"tiny-Q4_0-0000{number}-of-00002.gguf", 3000) for number in (1, 2)]
    for file in parts:
        await office.operate("add", id="tiny", file=str(file), url=f"https://files.example/{file.name}")
    await office.publish()
    model = office.records("models")["tiny"]
    assert [file["path"] for file in model["files"]] == ["tiny-v2-Q8_0.gguf", parts[0].name, parts[1].name]
    assert [(one["id"], one["files"]) for one in model["variants"]] == [("q8_0", [0]), ("q4_0", [1, 2])]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!doctype html>", "not a GGUF file"),
        (b"GGUF\x01\0\0\0", "GGUF version 1"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 16, "a count is too large"),
        (b"GGUF\x03\0\0\0" + struct.pack("<QQ", 0, 1) + b"\xff" * 8, "a text is too long"),
        (b"GGUF\x03\0\0\0" + struct.pack("<QQ", 9, 0), "cut off"),
    ],
)
async def test_a_file_that_is_no_model_is_refused(office: Office, tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "bad.gguf").write_bytes(content)
    with pytest.raises(RpcError, match=reason):
        await office.operate("add", id="bad", file=str(tmp_path / "bad.gguf"))
    with pytest.raises(RpcError, match="not 7"):
        await office.operate("add", id="bad", file=str(gguf(tmp_path / "tiny.gguf")), size=7)
    assert list((office.folder / "models").iterdir()) == []


async def test_an_edit_that_would_be_wrong_changes_nothing(office: Office) -> None:
    before = (office.folder / "featured/default.toml").read_text()
    with pytest.raises(RpcError) as refused:
        await office.operate("feature", slot="default", models=["nobody"])
    assert refused.value.type == "workspace_invalid"
    assert refused.value.data["problems"][0]["reason"] == "there is no model nobody"
    assert (office.folder / "featured/default.toml").read_text() == before
    with pytest.raises(RpcError, match="the field must be one of locale"):
        await office.operate("feature", slot="default", models=[], where=["city=Paris"])
    with pytest.raises(RpcError, match="must be one of fallback, mixed, dynamic"):
        await office.operate("flag", id="registry.phase", value="sideways")
    with pytest.raises(RpcError, match="say first what it is for everybody"):
        await office.operate("flag", id="registry.refresh_s", value=60, percent=5)


async def test_what_is_wrong_elsewhere_keeps_nobody_from_an_edit_but_from_publishing(office: Office) -> None:
    (office.folder / "models/broken.toml").write_text("id = \n")
    await add(office, "fine")
    status = await office.operate("status")
    assert [(one["file"], one["line"]) for one in status["problems"]] == [("models/broken.toml", 1)]
    with pytest.raises(RpcError) as refused:
        await office.publish()
    assert [one["file"] for one in refused.value.data["problems"]] == ["models/broken.toml"]


async def test_a_revoked_model_leaves_the_lists(office: Office) -> None:
    await add(office, "a")
    await add(office, "b")
    await office.operate("feature", slot="default", models=["a", "b"])
    await office.operate("revoke", model="a", reason="Its weights were tampered with.")
    await office.publish()
    assert office.records("featured")["default"]["models"] == ["b"]
    [revoked] = office.records("revocations").values()
    assert (revoked["model"], revoked["reason"]) == ("a", "Its weights were tampered with.")
    with pytest.raises(RpcError, match="a is revoked"):
        await office.operate("feature", slot="default", models=["a"])


async def test_a_model_that_nobody_knows_is_not_revoked_by_a_slip_of_the_pen(office: Office) -> None:
    await add(office, "owner/tiny")
    await add(office, "owner/gone")
    await office.publish()
    (office.folder / "models/owner--gone.toml").unlink()
    with pytest.raises(
        RpcError, match=r"there is no model owner/tinny in .* published; there is owner/tiny"
    ) as refused:
        await office.operate("revoke", model="owner/tinny", reason="Bad.")
    assert (refused.value.type, refused.value.data["reason"]) == ("invalid_params", "unknown_model")
    assert not (office.folder / "revocations").exists()
    await office.operate("revoke", model="owner/gone", reason="Bad.")  # clients may have it still
    await office.operate("revoke", model="owner/tinny", reason="Bad.", unknown=True)
    await office.operate("revoke", model="owner/tinny", reason="Very bad.")
    await office.operate("revoke", sha256="ab" * 32, reason="Bad.")
    await office.publish()
    revoked = {it["model"] if "model" in it else it["sha256"] for it in office.records("revocations").values()}
    assert revoked == {"owner/gone", "owner/tinny", "ab" * 32}


async def test_an_experiment_begins_pauses_and_ends_and_never_changes(office: Office) -> None:
    await add(office, "a")
    await office.operate("feature", slot="other", models=["a"], where=["locale=pt,pt-BR", "memory_total>=8000000000"])
    branches = [{"id": "as-is"}, {"id": "new", "slot": "other"}]
    await office.operate("experiment", id="order", state="running", branches=branches, percent=10, metric="load")
    await office.publish()
    published = office.records("flags")["order"]
    assert (published["percent"], published["metric"], len(published["branches"])) == (10, "load", 2)
    with pytest.raises(RpcError, match="cannot change once it is published"):
        await office.operate("experiment", id="order", state="running", salt="again")
    await office.operate("experiment", id="order", state="paused")
    await office.operate("experiment", id="order", state="running", percent=20)
    await office.operate("experiment", id="order", state="ended")
    preview = (await office.publish())["preview"]
    assert preview["experiments"] == [
        {"id": "order", "state": "ended", "who": "20 %", "branches": ["as-is: as it is (1/2)", "new: other (1/2)"]}
    ]
    with pytest.raises(RpcError, match="cannot be running again"):
        await office.operate("experiment", id="order", state="running")


async def test_an_import_says_when_there_are_more_and_takes_all_that_were_named(office: Office, tmp_path: Path) -> None:
    base = "https://huggingface.co/janhq/Tiny-gguf/resolve/main/"
    names = [f"tiny{number}" for number in range(5)]
    entries = [
        {
            "model_name": name,
            "developer": "janhq",
            "quants": [{"model_id": f"{name}-Q8_0", "path": f"{base}{name}-Q8_0.gguf", "file_size": "2.2 GB"}],
        }
        for name in names
    ]
    copy = tmp_path / "catalogue.json"
    copy.write_text(json.dumps(entries))
    some = await office.operate("import", file=str(copy), limit=3, dry_run=True)
    assert (len(some["added"]), some["notes"]) == (3, ["these are the first 3; there are more"])
    exactly = await office.operate("import", file=str(copy), limit=5, dry_run=True)
    assert (len(exactly["added"]), exactly["notes"]) == (5, [])
    ids = [f"janhq/{name}" for name in names]
    named = await office.operate("import", file=str(copy), ids=ids, limit=2, dry_run=True)
    assert (sorted(named["added"]), named["skipped"]) == (ids, [])


async def test_models_come_from_a_copy_of_jan_s_catalogue(office: Office, tmp_path: Path) -> None:
    base = "https://huggingface.co/janhq/Tiny-gguf/resolve/main/"
    entries = [
        {
            "model_name": name,
            "developer": "janhq",
            "downloads": 12,
            "library_name": library,
            "quants": [
                {"model_id": f"{name}-{quant}", "path": f"{base}{name}-{quant}.gguf", "file_size": "2.2 GB"}
                for quant in ("Q4_K_M", "Q8_0")
            ],
        }
        for name, library in (("Tiny", "gguf"), ("Apple", "mlx"))
    ]
    copy = tmp_path / "catalogue.json"
    copy.write_text(json.dumps(entries))
    tried = await office.operate("import", file=str(copy), stats=True, dry_run=True)
    assert tried["added"] == ["janhq/tiny"]
    assert any("mlx" in note for note in tried["notes"])
    assert not (office.folder / "models/janhq--tiny.toml").exists()
    done = await office.operate("import", file=str(copy), stats=True)
    assert sorted(done["files"]) == ["models/janhq--tiny.toml", "stats.toml"]
    await office.publish()
    model = office.records("models")["janhq/tiny"]
    assert model["files"][0]["sources"] == [
        {"kind": "hf", "path": "Tiny-Q4_K_M.gguf", "repo": "janhq/Tiny-gguf", "rev": "main"}
    ]
    assert office.records("stats") == {"janhq/tiny": {"downloads": 12, "id": "janhq/tiny"}}

    text = (office.folder / "models/janhq--tiny.toml").read_text()
    (office.folder / "models/janhq--tiny.toml").write_text(text.replace('name = "Tiny"', 'name = "Ours"  # renamed'))
    assert (await office.operate("import", file=str(copy), stats=True))["unchanged"] == 1
    entries[0]["quants"].pop()
    copy.write_text(json.dumps(entries))
    assert (await office.operate("import", file=str(copy)))["updated"] == ["janhq/tiny"]
    text = (office.folder / "models/janhq--tiny.toml").read_text()
    assert 'name = "Ours"  # renamed' in text
    assert "Q8_0" not in text
    copy.write_text("<html>")
    with pytest.raises(RpcError, match="no catalogue of Jan's"):
        await office.operate("import", file=str(copy))
    with pytest.raises(RpcError, match="there is no source nobody"):
        await office.operate("import", source="nobody")


async def test_keys_that_are_elsewhere_sign_elsewhere(office: Office, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    await office.publish()
    (office.folder / "keys/curators").rename(stick)
    await add(office, "a")
    preview = (await office.operate("publish", dry_run=True))["preview"]
    assert [(one["role"], one["needs"]) for one in preview["missing"]] == [("models", 1)]
    with pytest.raises(RpcError) as refused:
        await office.publish()
    assert refused.value.type == "missing_signatures"
    assert office.records("models") == {}
    pending = str(office.folder / "pending")
    [waits] = (await office.operate("status"))["waiting"]
    assert waits["role"] == "models"
    shown = await office.operate("sign", pending=pending, show=True)
    assert shown["signed"] == {}
    with pytest.raises(RpcError, match="the passphrase is wrong"):
        await office.operate("sign", pending=pending, keys=[str(stick)], passphrase="wrong")
    done = await office.operate("sign", pending=pending, keys=[str(stick / "models-1.pem")], passphrase=PASSPHRASE)
    assert [len(keys) for keys in done["signed"].values()] == [1]
    assert (await office.publish())["published"]
    assert list(office.records("models")) == ["a"]
    assert (await office.operate("status"))["waiting"] == []


async def test_stolen_keys_are_replaced_and_what_a_thief_published_is_not_signed_again(office: Office) -> None:
    await add(office, "a")
    await office.publish()
    before = {
        role["role"]: [key["keyid"] for key in role["keys"]] for role in (await office.operate("status"))["roles"]
    }
    made = await office.operate("rotate_keys", role="flags", stolen=True, passphrase=PASSPHRASE)
    assert sorted(Path(file).name for file in made["files"]) == ["flags-2.pem", "snapshot-2.pem"]
    after = {role["role"]: [key["keyid"] for key in role["keys"]] for role in (await office.operate("status"))["roles"]}
    assert {role for role in before if set(before[role]) & set(after[role])} == before.keys() - {"flags", "snapshot"}
    assert sorted(path.name for path in (office.folder / "keys/online").glob("*.retired")) == [
        "flags-1.pem.retired",
        "flags-1.pub.retired",
        "snapshot-1.pem.retired",
        "snapshot-1.pub.retired",
    ]
    await office.operate("flag", id="registry.phase", value="mixed")
    await office.publish()
    assert office.records("flags")["registry.phase"]["value"] == "mixed"
    made = await office.operate("rotate_keys", role="root", remove=["root-2.pem"], passphrase=PASSPHRASE)
    assert [Path(file).name for file in made["files"]] == ["root-4.pem"]
    await office.operate("rotate_keys", role="targets", renew=True, passphrase=PASSPHRASE)
    await office.publish()


async def test_a_colleague_s_key_is_added_and_a_threshold_raised_without_any_key_going(
    office: Office, tmp_path: Path
) -> None:
    def keys(status: Any) -> tuple[int, int]:
        role = next(role for role in status["roles"] if role["role"] == "models")
        return role["threshold"], len(role["keys"])

    await office.publish()
    colleague = save_key(generate(), tmp_path, "models", None).with_suffix(".pub")
    await office.operate("rotate_keys", role="models", add=[str(colleague)], passphrase=PASSPHRASE)
    assert keys(await office.operate("status")) == (1, 3)
    await office.operate("rotate_keys", role="models", threshold=2, passphrase=PASSPHRASE)
    assert keys(await office.operate("status")) == (2, 3)
    with pytest.raises(RpcError, match="names 0 keys of the role"):
        await office.operate("rotate_keys", role="models", remove=["ffff"], passphrase=PASSPHRASE)
    with pytest.raises(RpcError, match="the passphrase is wrong"):
        await office.operate("rotate_keys", role="models", passphrase="wrong")
    with pytest.raises(RpcError):
        await office.operate("rotate_keys", role="models", remove=["models-1"], threshold=9, passphrase=PASSPHRASE)
    assert len(list((office.folder / "keys").rglob("models-*"))) == 4, "no key is left of what did not happen"
    await add(office, "a")
    await office.publish()
    assert list(office.records("models")) == ["a"]


async def test_private_keys_are_encrypted_and_stay_out_of_git(office: Office) -> None:
    keys = sorted((office.folder / "keys").rglob("*.pem"))
    assert len(keys) == 15
    for key in keys:
        assert b"ENCRYPTED" in key.read_bytes()
        assert os.name == "nt" or key.stat().st_mode & 0o077 == 0
    assert "/keys/" in (office.folder / ".gitignore").read_text()
    with pytest.raises(RpcError, match="encrypted, and there is no passphrase"):
        await office.operate("publish")


async def test_a_folder_is_made_once_and_only_with_a_word_about_its_keys(office: Office, tmp_path: Path) -> None:
    with pytest.raises(RpcError, match="is there already"):
        await office.operate("init", name="Again", passphrase=PASSPHRASE)
    other = str(tmp_path / "other")
    with pytest.raises(RpcError, match="give a passphrase"):
        await office.operate("init", folder=other, name="Other")
    with pytest.raises(RpcError, match="must be absolute"):
        await office.operate("init", folder="other", name="Other", unprotected=True)
    signers = {"root": "1/1", "models": "2/3"}
    made = await office.operate("init", folder=other, name="Other", unprotected=True, signers=signers)
    assert (len(made["keys"]["root"]), len(made["keys"]["models"])) == (1, 3)
    root = (tmp_path / "other/public/metadata/1.root.json").read_bytes()
    assert made["root_sha256"] == hashlib.sha256(root).hexdigest()
    with pytest.raises(RpcError) as refused:
        await office.operate("status", folder=str(tmp_path))
    assert refused.value.type == "workspace_unknown"


async def test_only_what_somebody_may_sign_is_published(office: Office) -> None:
    await office.publish()  # the first time needs everybody
    (office.folder / "keys/curators").rename(office.folder / "away")
    await add(office, "a")
    await office.operate("flag", id="registry.phase", value="mixed")
    with pytest.raises(RpcError, match="models needs 1 more"):
        await office.publish()
    await office.publish(only=["flags", "featured", "revocations", "stats"])
    assert office.records("flags")["registry.phase"]["value"] == "mixed"
    assert office.records("models") == {}


async def test_a_collection_that_there_is_not_is_refused_and_nothing_published(office: Office) -> None:
    await office.publish()
    for dry_run in (True, False):
        with pytest.raises(RpcError, match="no collection revocation; there are models, featured, flags, revocations"):
            await office.publish(only=["flags", "revocation"], dry_run=dry_run)
    assert (await office.operate("status"))["version"] == 1


async def test_a_publication_that_was_interrupted_is_finished_by_the_next(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    await office.publish()
    await add(office, "a")
    held = reviewed(office.folder)
    keys = open_keys(key_files(held).values(), PASSPHRASE.encode())
    move = Path.replace

    def replace(source: Path, target: Path) -> Path:
        if target.name == "timestamp.json" and source.name != "order.json":
            raise Killed  # all is in place but for what makes it visible
        return move(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace)
        with pytest.raises(Killed):
            publish(held.tree, keys, held.collections(), now=time.time())
    assert (office.folder / "public/.staged/order.json").exists()
    assert office.records("models") == {}
    await office.publish()
    assert list(office.records("models")) == ["a"]
