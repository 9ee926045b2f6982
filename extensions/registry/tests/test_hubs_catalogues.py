"""Jan's catalogue, LM Studio's, and OpenAI's list, beyond what every hub must do (`test_hub_contract.py`)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jan_registry.hubs.jan_catalogue import JanCatalogueHub
from jan_registry.settings import SourceSetting

from jan_core.types import ModelRecord, SourcePage, SourceQuery

from .hubcase import SHAPES, HubCase, Shape, answer, desk, hub_server, json_shape
from .hubcase_catalogues import COMMIT, JAN_1, JAN_2, JAN_ALONE, LM_STUDIO, OPENAI

ROCKET = SourceQuery(id="acme/rocket-8b-gguf")


async def _ask(
    case: HubCase, query: SourceQuery, tmp_path: Path, changed: Mapping[str, Shape] | None = None
) -> SourcePage:
    with hub_server({**case.routes, **(changed or {})}) as server:
        return await answer(tmp_path, case.setting(server.url), query)


def _files(model: ModelRecord) -> list[Any]:
    return [file for variant in model.variants for file in variant.files]


def _shape(path: str) -> Any:
    return json.loads((SHAPES / path).read_text())


async def test_what_is_left_out_of_jans_list_is_said_and_why(tmp_path: Path) -> None:
    page = await _ask(JAN_2, SourceQuery(), tmp_path)
    assert page.notes == [
        "left out, 1 of them: their weights are mlx, which no engine here runs",
        "acme/rocket-8b-gguf: Rocket-8B-imatrix.gguf: statistics for quantizing, not a model",
        "acme/rocket-8b-gguf: mmproj-BF16.gguf: another projector suits better",
        "acme/lonely-gguf: mmproj-F16.gguf: a projector without its model",
        "acme/lonely-gguf: it has no GGUF file that can be used by itself",
    ]


async def test_a_rounded_size_is_a_hint_and_never_a_size(tmp_path: Path) -> None:
    page = await _ask(JAN_ALONE, ROCKET, tmp_path)
    (model,) = page.models
    assert {(file.size, file.sha256) for file in _files(model)} == {(0, "")}
    assert {variant.memory for variant in model.variants} == {0}
    assert model.extra["size_hint"]["Rocket-8B-Q4_K_M.gguf"] == "4.6 GB"
    assert "pinned" not in model.extra
    assert all("/resolve/main/" in file.url for file in _files(model))


async def test_asked_for_one_model_its_repository_tells_commit_bytes_and_hashes(tmp_path: Path) -> None:
    page = await _ask(JAN_2, ROCKET, tmp_path)
    (model,) = page.models
    assert (model.extra["pinned"], model.extra["revision"]) == (True, COMMIT)
    assert "size_hint" not in model.extra
    assert all(len(file.sha256) == 64 and file.size for file in _files(model))
    assert (model.license, model.parameters, model.context_length) == ("apache-2.0", 8030261312, 131072)
    assert model.variants[0].memory == 4920734272 + 624434368
    assert "acme/rocket-8b-gguf: iq2_xxs: the repository does not have it any more" in page.notes
    assert model.verification == "unverified"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Shape(b"", 500), "answered 500"),
        (Shape(b"<html>", 200), "does not answer as its kind does"),
        (Shape(b"", 404), "there is no such repository"),
        (json_shape({"error": "gated"}, 403, X_Error_Code="GatedRepo"), "the licence of acme/Rocket-8B-GGUF"),
        (json_shape({"id": "acme/Rocket-8B-GGUF", "sha": "main"}), "the hub names no commit"),
    ],
)
async def test_where_the_repository_does_not_tell_the_model_stays_without_hashes_and_says_so(
    answer: Shape, said: str, tmp_path: Path
) -> None:
    page = await _ask(JAN_2, ROCKET, tmp_path, {"/api/models/acme/Rocket-8B-GGUF": answer})
    (model,) = page.models
    assert {file.sha256 for file in _files(model)} == {""}
    assert "pinned" not in model.extra
    assert any(note.startswith("its files are not pinned") and said in note for note in page.notes), page.notes


async def test_a_catalogue_of_the_first_form_links_its_files_for_a_browser(tmp_path: Path) -> None:
    page = await _ask(JAN_1, SourceQuery(), tmp_path)
    assert [model.id for model in page.models] == ["acme/rocket-8b-gguf", "b-r-hre-fab875d3/comet-1b"]
    assert all(file.url.endswith(".gguf?download=true") for file in _files(page.models[0]))
    assert [file.name for file in _files(page.models[1])] == ["Comet 1B-Q8_0.gguf"]
    assert _files(page.models[1])[0].url == (
        "https://huggingface.co/b-r%C3%B6hre/Comet%201B/resolve/main/deep/Comet%201B-Q8_0.gguf"
    )


async def test_files_of_another_place_are_not_asked_for_at_hugging_face(tmp_path: Path) -> None:
    catalogue = _shape("jan-catalogue/v2.json")
    for file in catalogue[0]["quants"]:
        file["path"] = file["path"].replace("huggingface.co", "elsewhere.example")
    with hub_server({**JAN_2.routes, "/catalogue.json": json_shape(catalogue)}) as server:
        page = await answer(tmp_path, JAN_2.setting(server.url), ROCKET)
        assert [asked.path for asked in server.asked] == ["/catalogue.json"]
    assert page.notes[0].startswith("its files are not pinned")


@pytest.mark.parametrize("bad", [{"quants": 7}, {"model_name": " "}, {"developer": None}, {"library_name": []}])
async def test_one_entry_that_cannot_be_read_takes_no_other_with_it(bad: dict[str, Any], tmp_path: Path) -> None:
    first, *others = _shape("jan-catalogue/v2.json")
    page = await _ask(JAN_2, SourceQuery(), tmp_path, {"/catalogue.json": json_shape([{**first, **bad}, *others])})
    assert [model.id for model in page.models] == ["b-r-hre-fab875d3/comet-1b"]
    assert page.notes[0].startswith("entry 0 cannot be read")


async def test_of_two_entries_with_one_id_the_first_counts(tmp_path: Path) -> None:
    first = _shape("jan-catalogue/v2.json")[0]
    twice = [first, {**first, "model_name": "ROCKET-8b-gguf", "description": "another"}]
    page = await _ask(JAN_2, SourceQuery(), tmp_path, {"/catalogue.json": json_shape(twice)})
    assert [model.description for model in page.models] == ["A model for rockets."]
    assert "acme/rocket-8b-gguf: another entry has the same id, and came first" in page.notes


async def test_an_address_that_must_not_be_followed_is_no_address(tmp_path: Path) -> None:
    first = _shape("jan-catalogue/v2.json")[0]
    first["quants"] = [{"path": "file:///etc/m-Q4_0.gguf"}, {"path": "https://u:p@huggingface.co/a/b/m-Q8_0.gguf"}]
    first["mmproj_models"] = []
    page = await _ask(JAN_ALONE, ROCKET, tmp_path, {"/catalogue.json": json_shape([first])})
    assert page.models == []
    assert "acme/rocket-8b-gguf: it has no GGUF file that can be used by itself" in page.notes


@pytest.mark.skipif("JAN_TEST_CATALOGUE" not in os.environ, reason="JAN_TEST_CATALOGUE names no copy of the catalogue")
def test_the_real_catalogue_becomes_records() -> None:
    hub = JanCatalogueHub(SourceSetting("jan", "jan-catalogue"), None)  # type: ignore[arg-type]
    found = hub.read(Path(os.environ["JAN_TEST_CATALOGUE"]).read_bytes())
    notes: list[str] = []
    usable = [entry for entry in found.good if not hub.reason(entry)]
    models = [hub.record(entry, hub.head(entry), notes) for entry in usable]
    quants = sum(len(entry.quants) for entry in found.good)
    weights = {file.url for model in models if model for file in _files(model) if file.role == "weights"}
    print(f"{len(found.good)} entries, {len(usable)} of GGUF, {sum(map(bool, models))} records;", end=" ")
    print(f"{quants} quantizations, {len(weights)} of them in variants")
    assert found.notes == []
    assert len(weights) >= 0.97 * quants


async def test_lm_studios_highlighted_file_is_the_default(tmp_path: Path) -> None:
    page = await _ask(LM_STUDIO, ROCKET, tmp_path)
    (model,) = page.models
    assert [variant.id for variant in model.variants] == ["q5_k_m", "q4_k_m", "q6_k"]
    assert (model.name, model.publisher, model.parameters, model.extra["arch"]) == (
        "Rocket 8B Instruct",
        "Acme",
        8_000_000_000,
        "llama",
    )


async def test_a_hash_that_is_none_and_a_size_that_is_none_are_left_away(tmp_path: Path) -> None:
    catalogue = _shape("lmstudio/catalog.json")
    catalogue[0]["files"]["all"][0] |= {"sha256checksum": "unknown", "sizeBytes": -4}
    page = await _ask(LM_STUDIO, ROCKET, tmp_path, {"/catalog.json": json_shape(catalogue)})
    files = {file.name: (file.size, file.sha256[:8]) for file in _files(page.models[0])}
    assert files["Rocket-8B-Q4_K_M.gguf"] == (0, "")
    assert files["Rocket-8B-Q5_K_M.gguf"] == (5732987456, "d76d355d")


async def test_models_behind_an_api_are_remote_and_have_no_files(tmp_path: Path) -> None:
    page = await _ask(OPENAI, SourceQuery(), tmp_path)
    assert all(model.extra["remote"] and model.files == [] for model in page.models)
    assert [model.extra["served_as"] for model in page.models][1] == "acme/Comet-1B:latest"
    assert page.models[0].publisher == "acme"


async def test_an_api_is_found_with_and_without_its_version_in_the_url(tmp_path: Path) -> None:
    with hub_server(OPENAI.routes) as server:
        async with desk(tmp_path) as one:
            for url in (server.url, f"{server.url}/", f"{server.url}/v1", f"{server.url}/v1/"):
                page = await one.hub(SourceSetting("api", "openai", url)).page(SourceQuery())
                assert len(page.models) == 3
