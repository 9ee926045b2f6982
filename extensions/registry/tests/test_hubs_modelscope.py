"""ModelScope, beyond what every hub must do (`test_hub_contract.py`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from jan_registry.hubs.errors import HubInvalid

from jan_core import InvalidParams
from jan_core.types import SourcePage, SourceQuery

from .hubcase import SHAPES, Shape, answer, hub_server, json_shape
from .hubcase_repositories import MODELSCOPE

FILES = "/api/v1/models/acme/Rocket-8B-GGUF/repo/files"
ROCKET = SourceQuery(id="acme/Rocket-8B-GGUF")


async def _ask(query: SourceQuery, tmp_path: Path, changed: Mapping[str, Shape] | None = None) -> SourcePage:
    with hub_server({**(changed or {}), **MODELSCOPE.routes, **(changed or {})}) as server:
        return await answer(tmp_path, MODELSCOPE.setting(server.url), query)


async def test_each_file_is_named_by_the_commit_that_last_changed_it(tmp_path: Path) -> None:
    (model,) = (await _ask(ROCKET, tmp_path)).models
    assert model.extra["pinned"] is True
    weights, projector = model.variants[0].files
    assert weights.url.endswith("/resolve/aff024fe4ab0fece4091de044c58c9ae4233383a/rocket-8b-q4_k_m.gguf")
    assert projector.url.endswith("/resolve/516b9783fca517eecbd1d064da2d165310b19759/mmproj-rocket-8b-f16.gguf")
    assert (model.license, model.parameters, model.extra["downloads"]) == ("apache-2.0", 8030261312, 1234)


async def test_a_file_without_a_commit_or_a_hash_is_not_pinned_and_has_none(tmp_path: Path) -> None:
    tree = json.loads((SHAPES / "modelscope/files.json").read_text())
    for file in tree["Data"]["Files"]:
        file |= {"Revision": "master", "Sha256": "0123"}
    (model,) = (await _ask(ROCKET, tmp_path, {FILES: json_shape(tree)})).models
    assert "pinned" not in model.extra
    assert {file.sha256 for variant in model.variants for file in variant.files} == {""}
    assert "/resolve/master/" in model.files[0].url


async def test_its_files_count_where_nothing_else_is_said_of_a_model(tmp_path: Path) -> None:
    (model,) = (await _ask(ROCKET, tmp_path, {"/openapi/v1/models/acme/Rocket-8B-GGUF": Shape(b"", 500)})).models
    assert len(model.variants) == 2
    assert (model.name, model.license) == ("Rocket-8B-GGUF", "")


@pytest.mark.parametrize(
    "answer",
    [
        {"Code": 10010205001, "Message": "record not found", "Success": False, "Data": None},
        {"Code": 200, "Success": False, "Data": {"Files": []}},
        {"Code": 500, "Success": True, "Data": {"Files": []}},
    ],
)
async def test_an_envelope_that_says_it_failed_is_no_answer(answer: object, tmp_path: Path) -> None:
    with pytest.raises(HubInvalid, match="it says that it did not succeed"):
        await _ask(ROCKET, tmp_path, {FILES: json_shape(answer)})


async def test_what_is_listed_is_partial_and_has_no_files_yet(tmp_path: Path) -> None:
    page = await _ask(SourceQuery(limit=2), tmp_path)
    assert [(model.extra["partial"], model.files) for model in page.models] == [(True, []), (True, [])]
    assert [model.name for model in page.models] == ["Rocket 8B", "Comet-1B-GGUF"]


async def test_one_entry_that_cannot_be_read_takes_no_other_with_it(tmp_path: Path) -> None:
    listed = json.loads((SHAPES / "modelscope/list-1.json").read_text())
    listed["data"]["models"][0]["id"] = 7
    page = await _ask(SourceQuery(limit=2), tmp_path, {"/openapi/v1/models": json_shape(listed)})
    assert [model.id for model in page.models] == ["acme/comet-1b-gguf"]
    assert page.notes[0].startswith("entry 0 cannot be read")


async def test_the_list_ends_where_the_server_gives_no_more(tmp_path: Path) -> None:
    full = json.loads((SHAPES / "modelscope/list-1.json").read_text())
    full["data"]["total_count"] = 100_000
    changed = {"/openapi/v1/models": json_shape(full)}
    assert (await _ask(SourceQuery(limit=50, cursor="59"), tmp_path, changed)).cursor == "60"
    assert (await _ask(SourceQuery(limit=50, cursor="60"), tmp_path, changed)).cursor == ""


@pytest.mark.parametrize("id", ["rocket", "a/b/c", "a/", "../x"])
async def test_a_model_is_named_by_owner_and_name(id: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidParams):
        await _ask(SourceQuery(id=id), tmp_path)
