"""Hugging Face and Cortex beyond the contract: licences, mirrors, whose token, what is left out and said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jan_registry.hubs.base import open_hub
from jan_registry.hubs.errors import HubRefused
from jan_registry.hubs.hf_forms import next_cursor
from jan_registry.settings import SourceSetting

from jan_core.types import SourceQuery

from .hubcase import SECRET, Asked, Shape, desk, everything, hub_server, json_shape, shape
from .hubcase_huggingface import COMMIT, CORTEX, HUGGING_FACE, Q4

pytestmark = pytest.mark.anyio

WANTED = SourceQuery(id="acme/Rocket-8B-GGUF")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)


async def test_what_is_left_out_of_a_list_is_said(tmp_path: Path) -> None:
    with hub_server(HUGGING_FACE.routes) as server:
        async with desk(tmp_path) as one:
            page = await one.hub(HUGGING_FACE.setting(server.url)).page(SourceQuery(cursor="cGFnZTI="))
    assert page.notes == [
        "acme/Switched-Off-GGUF: the hub has disabled it",
        "acme/Only-Safetensors: it has no GGUF file that can be used by itself",
        "acme/No-Commit-GGUF: the hub names no commit, so its files could change under their addresses",
        "an entry cannot be read: Object missing required field `id`",
    ]


async def test_a_record_has_what_the_hub_says_of_the_model(tmp_path: Path) -> None:
    with hub_server(HUGGING_FACE.routes) as server:
        async with desk(tmp_path) as one:
            (model,) = (await one.hub(HUGGING_FACE.setting(server.url)).page(WANTED)).models
            listed = await everything(one.hub(HUGGING_FACE.setting(server.url)))
    assert (model.name, model.publisher, model.license) == ("Rocket-8B-GGUF", "acme", "apache-2.0")
    assert (model.parameters, model.context_length) == (8030261312, 131072)
    assert model.tags == ["text-generation", "gguf", "en"]
    assert model.extra == {
        "repo": "acme/Rocket-8B-GGUF",
        "revision": COMMIT,
        "pinned": True,
        "arch": "llama",
        "downloads": 1234,
        "likes": 12,
        "updated": "2026-10-02T11:22:33.000Z",
    }
    assert [(one.extra.get("gated", ""), one.extra["partial"]) for one in listed[:2]] == [("", True), ("manual", True)]
    assert all(file.url and not file.size for one in listed for file in one.files)


async def test_what_is_asked_for_is_one_request_a_page(tmp_path: Path) -> None:
    with hub_server(HUGGING_FACE.routes) as server:
        async with desk(tmp_path) as one:
            setting = HUGGING_FACE.setting(server.url)
            setting.options = {"author": "acme"}
            await one.hub(setting).page(SourceQuery(text=" rocket & co ", limit=500, cursor="a=b"))
    (asked,) = server.asked
    assert asked.query | {"expand": ""} == {
        "filter": "gguf", "sort": "downloads", "limit": "100", "search": "rocket & co", "author": "acme",
        "expand": "", "cursor": "a=b",
    }  # fmt: skip


@pytest.mark.parametrize("status", [401, 403])
async def test_a_licence_that_must_be_accepted_is_told_apart_from_a_missing_token(status: int, tmp_path: Path) -> None:
    with hub_server() as server:
        server.reply = lambda asked: json_shape(
            {"error": "Access to model acme/Rocket-8B-GGUF is restricted"}, status, X_Error_Code="GatedRepo"
        )
        async with desk(tmp_path) as one:
            with pytest.raises(HubRefused) as refused:
                await one.hub(HUGGING_FACE.setting(server.url, token=SECRET)).page(WANTED)
    assert refused.value.reason == "license_required"
    assert refused.value.message.endswith(f"{server.url}/acme/Rocket-8B-GGUF, by whose token is used")


async def test_a_private_model_is_unknown_to_who_is_unknown(tmp_path: Path) -> None:
    with hub_server(HUGGING_FACE.routes) as server:
        async with desk(tmp_path) as one:
            page = await one.hub(HUGGING_FACE.setting(server.url)).page(SourceQuery(id="acme/unknown"))
    assert page.models == []
    assert page.notes == ["huggingface has no public model 'acme/unknown'; a private one needs a token"]


async def test_a_model_that_became_private_is_not_shown_any_longer(tmp_path: Path) -> None:
    with hub_server(HUGGING_FACE.routes) as server:
        async with desk(tmp_path) as one:
            hub = one.hub(HUGGING_FACE.setting(server.url))
            assert (await hub.page(WANTED)).models
            one.clock.now += 2 * 3600
            server.reply = lambda asked: json_shape({"error": "no"}, 401, X_Error_Code="RepoNotFound")
            assert (await hub.page(WANTED)).stale  # while it is asked anew
            await one.context.tasks.ended()
            assert (await hub.page(WANTED)).models == []


async def test_sizes_and_hashes_come_from_the_tree_where_the_hub_leaves_them_out(tmp_path: Path) -> None:
    without = json.loads(HUGGING_FACE.routes["/api/models/acme/Rocket-8B-GGUF"].body)
    for sibling in without["siblings"]:
        for name in ("size", "lfs", "blobId"):
            sibling.pop(name, None)
    routes = {**HUGGING_FACE.routes, "/api/models/acme/Rocket-8B-GGUF": json_shape(without)}
    with hub_server(routes) as server:
        async with desk(tmp_path) as one:
            (model,) = (await one.hub(HUGGING_FACE.setting(server.url)).page(WANTED)).models
    assert HUGGING_FACE.described(model) == HUGGING_FACE.variants
    assert server.asked[-1].query == {"recursive": "true"}


async def test_a_tree_of_several_pages_is_read_whole(tmp_path: Path) -> None:
    tree = f"/api/models/acme/Rocket-8B-GGUF/tree/{COMMIT}"
    entries = json.loads(HUGGING_FACE.routes[tree].body)
    routes = {
        f"{tree}?cursor=two": json_shape(entries[3:], Link=f'<{tree}?recursive=true&cursor=two>; rel="next"'),
        tree: json_shape(entries[:3], Link=f'<{tree}?recursive=true&cursor=two>; rel="next"'),
    }
    with hub_server(routes) as server:
        async with desk(tmp_path) as one:
            files = await open_hub(HUGGING_FACE.setting(server.url), one.http).tree(  # type: ignore[attr-defined]
                "acme/Rocket-8B-GGUF", COMMIT
            )
    assert len(files) == len(entries) - 1  # but the folder
    assert len(server.asked) == 2


async def test_a_revision_may_be_named(tmp_path: Path) -> None:
    routes = {"/api/models/acme/Rocket-8B-GGUF/revision/refs%2Fpr%2F1": shape("huggingface/detail.json")}
    with hub_server(routes) as server:
        async with desk(tmp_path) as one:
            query = SourceQuery(id="acme/Rocket-8B-GGUF@refs/pr/1")
            (model,) = (await one.hub(HUGGING_FACE.setting(server.url)).page(query)).models
    assert COMMIT in model.files[0].url


@pytest.mark.parametrize(
    "link",
    [
        '<https://elsewhere.example/api/models?cursor=x>; rel="next"',
        '<{base}/api/spaces?cursor=x>; rel="next"',
        '<http://[>; rel="next"',
    ],
)
async def test_a_list_that_goes_on_elsewhere_is_not_followed_and_it_is_said(link: str, tmp_path: Path) -> None:
    with hub_server({"/api/models": shape("huggingface/list-1.json", Link=link)}) as server:
        async with desk(tmp_path) as one:
            page = await one.hub(HUGGING_FACE.setting(server.url)).page(SourceQuery())
    assert (len(page.models), page.cursor) == (2, "")
    assert page.notes == ["the list goes on at another address, which is not followed"]


def test_the_next_page_is_found_among_several_links() -> None:
    endpoint = "https://hub.example/hf"
    asked = f"{endpoint}/api/models?limit=2"

    def cursor(link: str) -> str:
        return next_cursor(link, asked, endpoint)

    prev = f'<{endpoint}/api/models?cursor=a>; rel="prev"'
    assert cursor(f'{prev}, </hf/api/models?limit=2&cursor=b%3D>; rel="next"') == "b="
    assert cursor('<https://huggingface.co/api/models?cursor=c>; rel="next"') == "c"  # as a mirror hands it on
    assert cursor(prev) == ""
    assert cursor('</hf/api/models?page=2>; rel="next"') == ""
    for elsewhere in (
        "http://hub.example/hf/api/models",
        "https://hub.example/api/models",
        "https://huggingface.co.evil.example/api/models",
        "https://huggingface.co@evil.example/api/models",
        "https://huggingface.co/api/spaces",
    ):
        with pytest.raises(ValueError, match="somewhere else"):
            cursor(f'<{elsewhere}?cursor=b>; rel="next"')


def hub(**setting: Any) -> Any:
    return open_hub(SourceSetting("hf", "huggingface", **setting), None)  # type: ignore[arg-type]


def test_whose_token_goes_where(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub().token() is None
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("OTHER", "other")
    assert (hub().token().value, hub().token().url) == (SECRET, "https://huggingface.co")
    assert hub(token="mine").token().value == "mine"
    assert hub(token="$OTHER").token().value == "other"
    assert hub(url="https://mirror.example").token() is None  # a mirror in the settings was not meant by $HF_TOKEN
    assert hub(url="https://mirror.example", token="$HF_TOKEN").token().url == "https://mirror.example"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert (hub().url, hub().token().url) == ("https://mirror.example", "https://mirror.example")
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example")
    assert hub().token() is None
    with pytest.raises(HubRefused, match=r"\$MISSING"):
        hub(token="$MISSING").token()


async def test_files_are_had_from_the_mirror_that_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with hub_server(HUGGING_FACE.routes) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        async with desk(tmp_path) as one:
            (model,) = (await one.hub(SourceSetting("hf", "huggingface")).page(WANTED)).models
        assert all(asked.headers["authorization"] == f"Bearer {SECRET}" for asked in server.asked)
        assert model.files[0].url == f"{server.url}/acme/Rocket-8B-GGUF/resolve/{COMMIT}/Rocket-8B-Q4_K_M.gguf"


async def test_paths_that_lead_elsewhere_are_no_files(tmp_path: Path) -> None:
    detail = json.loads(HUGGING_FACE.routes["/api/models/acme/Rocket-8B-GGUF"].body)
    good = detail["siblings"][1]
    detail["siblings"] = [good] + [
        good | {"rfilename": name} for name in ("../../x-Q8_0.gguf", "/x-Q5_0.gguf", "a//x-Q6_K.gguf", "x\n-Q4_0.gguf")
    ]
    with hub_server({"/api/models/acme/Rocket-8B-GGUF": json_shape(detail)}) as server:
        async with desk(tmp_path) as one:
            (model,) = (await one.hub(HUGGING_FACE.setting(server.url)).page(WANTED)).models
    assert [variant.id for variant in model.variants] == ["q4_k_m"]


async def test_the_branch_that_cortex_calls_the_default_comes_first(tmp_path: Path) -> None:
    with hub_server(CORTEX.routes) as server:
        async with desk(tmp_path) as one:
            page = await one.hub(CORTEX.setting(server.url)).page(SourceQuery(id="tinyllama"))
    (model,) = page.models
    assert [(variant.id, variant.quantization) for variant in model.variants] == [
        ("1b-gguf-q4-km", "Q4_K_M"),
        ("1b-gguf", ""),
    ]
    assert model.files[0].url == f"{server.url}/cortexso/tinyllama/resolve/{Q4}/model.gguf"
    assert page.notes == ["branch 1b-onnx: it has no GGUF file"]


async def test_main_is_the_variant_of_a_cortex_model_without_other_branches(tmp_path: Path) -> None:
    main = "7c11d7683fe44ecc2bceca19d2ec31c362acfe67"
    routes = {
        "/api/models/cortexso/tinyllama": CORTEX.routes["/api/models/cortexso/tinyllama"],
        "/api/models/cortexso/tinyllama/refs": json_shape({"branches": [{"name": "main", "targetCommit": main}]}),
        f"/api/models/cortexso/tinyllama/tree/{main}": shape("cortexso/tree-q4.json"),
    }
    with hub_server(routes) as server:
        async with desk(tmp_path) as one:
            (model,) = (await one.hub(CORTEX.setting(server.url)).page(SourceQuery(id="tinyllama"))).models
    assert [variant.id for variant in model.variants] == ["main"]


async def test_a_branch_that_cannot_be_read_fails_the_answer_rather_than_shorten_it(tmp_path: Path) -> None:
    with hub_server(CORTEX.routes) as server:

        def reply(asked: Asked) -> Shape:
            return Shape(b"", 403) if asked.path.endswith(Q4) else server._routed(asked)

        server.reply = reply
        async with desk(tmp_path) as one:
            with pytest.raises(HubRefused):
                await one.hub(CORTEX.setting(server.url)).page(SourceQuery(id="tinyllama"))


async def test_cortex_has_nothing_of_other_organisations(tmp_path: Path) -> None:
    with hub_server(CORTEX.routes) as server:
        async with desk(tmp_path) as one:
            page = await one.hub(CORTEX.setting(server.url)).page(SourceQuery(id="acme/Rocket-8B-GGUF"))
        assert (page.models, server.asked) == ([], [])
