"""Who may veto a load, what they are told of it, and what follows from a refusal: with a real engine."""

# ruff: noqa: ASYNC240 (a test has its event loop to itself)

from __future__ import annotations

import hashlib
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest
from jan_llamacpp.embedded import EMBEDDED_ID, EMBEDDED_MODEL
from jan_llamacpp.plugin import LlamaCppExtension
from jan_llamacpp.record import read_record

from jan_core import RpcError, hookimpl
from jan_core.testing import InlineSource
from jan_core.types import Admission, ModelFile, ModelLoad

from .conftest import PATIENCE

pytestmark = pytest.mark.anyio

PREFIXES = ["engines.", "models.", "chat.", "completions.", "embeddings.", "remotes.", "tokens."]
OpenHost = Callable[..., AbstractAsyncContextManager[Any]]
REASON = "this file steals passwords"


class Guard:
    """An extension that refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.asked: list[ModelLoad] = []
        self.refused: set[str] = set()

    @hookimpl
    def jan_admit_load(self, load: ModelLoad) -> Admission | None:
        self.asked.append(load)
        return Admission(False, REASON) if self.refused & {load.id, *(file.sha256 for file in load.files)} else None


class Broken:
    @hookimpl
    def jan_admit_load(self, load: ModelLoad) -> Admission:
        raise RuntimeError("a bug is not a veto, and hides none")


@pytest.fixture
def guard() -> Guard:
    return Guard()


@pytest.fixture
async def client(open_host: OpenHost, data_dir: Path, guard: Guard) -> AsyncIterator[Any]:
    sources = [
        InlineSource("llamacpp", LlamaCppExtension, PREFIXES),
        InlineSource("broken", Broken()),
        InlineSource("guard", guard),
    ]
    async with open_host(sources=sources, data_dir=data_dir) as host:
        with anyio.fail_after(PATIENCE):
            yield host.client()


def chat(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}


async def test_who_votes_is_told_the_files_their_hashes_and_where_the_model_is_from(
    client: Any, guard: Guard, babble: Path, data_dir: Path
) -> None:
    sha256 = hashlib.sha256(babble.read_bytes()).hexdigest()
    given = {"path": str(babble), "id": "babble", "hashes": {babble.name: sha256}, "origin": "hub/babble:1b"}
    assert (await client.call("models.import", given))["origin"] == "hub/babble:1b"
    await client.call("models.load", {"id": "babble"})
    file = ModelFile("babble.gguf", sha256, babble.stat().st_size)
    assert guard.asked == [ModelLoad("babble", [file], "hub/babble:1b")]
    await client.call("chat.complete", chat("babble"))
    assert len(guard.asked) == 1, "a request to a loaded model asks nobody"
    record = read_record(data_dir / "llamacpp" / "models" / "babble")
    assert not isinstance(record, str)
    assert (record.sha256, record.origin) == (sha256, "hub/babble:1b")


async def test_a_model_that_nobody_could_check_is_shown_as_such_for_good(client: Any, babble: Path) -> None:
    sha256 = hashlib.sha256(babble.read_bytes()).hexdigest()
    given = {"path": str(babble), "hashes": {babble.name: sha256}}
    for id, more in (("found", {"unchecked": True}), ("known", {})):
        await client.call("models.import", {**given, **more, "id": id})
    shown = {each["id"]: each for each in (await client.call("models.list"))["models"]}
    assert [(shown[id]["unchecked"], shown[id]["hashes"]) for id in ("found", "known")] == [
        (True, [sha256]),
        (False, [sha256]),
    ]


async def test_a_refused_model_is_not_loaded_by_name_nor_for_a_request_and_the_reason_is_told(
    client: Any, guard: Guard, babble: Path
) -> None:
    sha256 = hashlib.sha256(babble.read_bytes()).hexdigest()
    await client.call("models.import", {"path": str(babble), "id": "babble", "hashes": {babble.name: sha256}})
    guard.refused = {sha256}
    for method, params in (("models.load", {"id": "babble"}), ("chat.complete", chat("babble"))):
        with pytest.raises(RpcError, match=f"babble is not loaded: refused by guard: {REASON}") as caught:
            await client.call(method, params)
        assert (caught.value.type, caught.value.data["extension"]) == ("model_refused", "guard")
    shown = next(each for each in (await client.call("models.list"))["models"] if each["id"] == "babble")
    assert (shown["state"], REASON in shown["error"]) == ("failed", True)
    guard.refused.clear()
    await client.call("models.load", {"id": "babble"})


async def test_the_embedded_model_is_voted_on_like_any_other(client: Any, guard: Guard) -> None:
    guard.refused = {EMBEDDED_ID}
    with pytest.raises(RpcError, match=REASON) as caught:
        await client.call("models.load", {"id": EMBEDDED_ID})
    assert caught.value.type == "model_refused"
    [load] = guard.asked
    assert load == ModelLoad(EMBEDDED_ID, [ModelFile(EMBEDDED_MODEL.name, "", EMBEDDED_MODEL.stat().st_size)])


@pytest.mark.parametrize("kind", ["copied", "of a cache", "of another cache", "linked"])
async def test_the_hash_is_known_of_what_is_copied_and_of_what_its_cache_names_by_it(
    client: Any, guard: Guard, babble: Path, tmp_path: Path, kind: str
) -> None:
    sha256 = hashlib.sha256(babble.read_bytes()).hexdigest()
    source = tmp_path / {"of a cache": f"sha256-{sha256}", "of another cache": sha256}.get(kind, "model.gguf")
    shutil.copy(babble, source)
    if kind == "of another cache":  # a link with the name, as Hugging Face's libraries keep it
        (tmp_path / "snapshot.gguf").symlink_to(source)
        source = tmp_path / "snapshot.gguf"
    await client.call("models.import", {"path": str(source), "id": "babble", "copy": kind == "copied"})
    await client.call("models.load", {"id": "babble"})
    assert [file.sha256 for file in guard.asked[0].files] == ["" if kind == "linked" else sha256]


@pytest.mark.parametrize("hashes", [{"x.gguf": "abc"}, {"x.gguf": "A" * 64}, {"x.gguf": 1}, []])
async def test_a_hash_that_is_none_is_refused_at_import(client: Any, babble: Path, hashes: Any) -> None:
    with pytest.raises(RpcError) as caught:
        await client.call("models.import", {"path": str(babble), "hashes": hashes})
    assert caught.value.type == "invalid_params"
