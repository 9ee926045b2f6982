"""Registries of OCI's kind and ModelScope, beyond what every hub must do (`test_hub_contract.py`)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from jan_registry.hubs.errors import HubInvalid, HubRefused
from jan_registry.hubs.oci_forms import Challenge, challenge

from jan_core import InvalidParams
from jan_core.types import ModelRecord, SourceQuery

from .hubcase import SECRET, SHAPES, Asked, HubCase, HubServer, Shape, answer, desk, hub_server, json_shape, shape
from .hubcase_repositories import OLLAMA, REGISTRY

MANIFEST = "/v2/library/rocket/manifests/8b"


async def _ask(case: HubCase, server: HubServer, tmp_path: Path, id: str, token: str = "") -> list[ModelRecord]:
    return (await answer(tmp_path, case.setting(server.url, token=token), SourceQuery(id=id))).models


def _guarded(server: HubServer, grants: str, realm: str = "{base}/token?account=x") -> None:
    """Everything but the token wants one that `grants`."""

    def reply(asked: Asked) -> Shape:
        if asked.path == "/token":
            return json_shape({"token": grants})
        if asked.headers.get("authorization") == f"Bearer {grants}":
            return server._routed(asked)
        asks = f'Bearer realm="{realm}",service="registry.test",scope="repository:library/rocket:pull"'
        return Shape(b"{}", 401, {"WWW-Authenticate": asks})

    server.reply = reply


async def test_what_a_registry_says_of_a_model_is_in_its_record(tmp_path: Path) -> None:
    with hub_server(OLLAMA.routes) as server:
        (model,) = await _ask(OLLAMA, server, tmp_path, "rocket:8b")
    assert (model.id, model.name, model.parameters) == ("rocket:8b", "rocket:8b", 8_000_000_000)
    assert (model.extra["arch"], model.extra["tag"], model.extra["repo"]) == ("llama", "8b", "library/rocket")
    assert set(model.extra["layers"]) == {"template", "license", "params"}
    assert model.variants[0].quantization == "Q4_K_M"
    assert model.variants[0].memory == 4920734272 + 624434368 + 52428800


async def test_ollamas_recommendations_are_listed_and_what_runs_elsewhere_is_remote(tmp_path: Path) -> None:
    with hub_server(OLLAMA.routes) as server:
        async with desk(tmp_path) as one:
            models = (await one.hub(OLLAMA.setting(server.url)).page(SourceQuery())).models
    assert [model.extra.get("remote", False) for model in models] == [False, False, True]
    assert [model.extra.get("partial", False) for model in models] == [True, True, False]
    assert models[0].extra["memory_hint"] == 6_000_000_000
    assert models[2].context_length == 262144


async def test_what_everybody_may_read_is_read_with_the_token_that_everybody_gets(tmp_path: Path) -> None:
    with hub_server(OLLAMA.routes) as server:
        _guarded(server, "anonymous-token")
        (model,) = await _ask(OLLAMA, server, tmp_path, "rocket:8b")
        (granted,) = [asked for asked in server.asked if asked.path == "/token"]
    assert model.variants[0].quantization == "Q4_K_M"
    assert granted.query == {"account": "x", "service": "registry.test", "scope": "repository:library/rocket:pull"}
    assert "authorization" not in granted.headers


async def test_what_was_read_with_it_is_kept_and_shown_while_the_registry_cannot_be_asked(tmp_path: Path) -> None:
    with hub_server(OLLAMA.routes) as server:
        _guarded(server, "anonymous-token")
        async with desk(tmp_path) as one:
            hub, rocket = one.hub(OLLAMA.setting(server.url)), SourceQuery(id="rocket:8b")
            before = await hub.page(rocket)
            asked = len(server.asked)
            assert (await hub.page(rocket)).models == before.models
            assert len(server.asked) == asked
            server.stop()
            one.clock.now += 20 * 86400
            after = await hub.page(rocket)
    assert after.models == before.models
    assert (after.age, after.stale) == (20 * 86400, True)


async def test_our_own_token_is_for_the_registry_and_never_for_where_it_sends_us(tmp_path: Path) -> None:
    with hub_server(OLLAMA.routes) as server:
        _guarded(server, "another")
        with pytest.raises(HubRefused) as refused:
            await _ask(OLLAMA, server, tmp_path, "rocket:8b", SECRET)
        assert [asked.path for asked in server.asked] == [MANIFEST]
    assert refused.value.reason == "auth_required"
    assert "does not take this token" in refused.value.message


@pytest.mark.parametrize(
    "realm",
    ["http://localhost:1/token", "http://example.org/token", "file:///etc/passwd", "https://u:p@127.0.0.1/", "x"],
)
async def test_a_realm_that_is_neither_https_nor_the_registry_itself_is_not_asked(realm: str, tmp_path: Path) -> None:
    with hub_server(OLLAMA.routes) as server:
        _guarded(server, "t", realm)
        with pytest.raises(HubRefused) as refused:
            await _ask(OLLAMA, server, tmp_path, "rocket:8b")
        assert [asked.path for asked in server.asked] == [MANIFEST]
    assert refused.value.reason == "auth_required"


@pytest.mark.parametrize("granted", ["", "a b", "x\r\nHost: y", "é"])
async def test_a_token_that_is_none_is_not_used(granted: str, tmp_path: Path) -> None:
    with hub_server(OLLAMA.routes) as server:
        _guarded(server, granted)
        with pytest.raises(HubRefused) as refused:
            await _ask(OLLAMA, server, tmp_path, "rocket:8b")
    assert refused.value.reason == "auth_required"


@pytest.mark.parametrize(
    ("header", "asks"),
    [
        ('Bearer realm="https://a/t",service="s",scope="x"', Challenge("https://a/t", "s")),
        ('bearer realm="https://a/t"', Challenge("https://a/t", "")),
        ('Basic realm="https://a/t"', None),
        ("Bearer", None),
        ("", None),
    ],
)
def test_a_challenge_asks_for_a_token_or_for_something_else(header: str, asks: Challenge | None) -> None:
    assert challenge(header) == asks


async def test_a_tag_is_found_whatever_its_case(tmp_path: Path) -> None:
    routes = {
        "/v2/acme/rocket/manifests/8B-q4_K_M": shape("oci/manifest.json"),
        "/v2/acme/rocket/tags/list": shape("oci/tags.json"),
    }
    with hub_server(routes) as server:
        (model,) = await _ask(REGISTRY, server, tmp_path, "acme/rocket:8b-Q4_K_M")
    assert (model.id, model.extra["tag"]) == ("acme/rocket:8b-q4_k_m", "8B-q4_K_M")


async def test_without_a_tag_latest_is_meant_and_else_the_first_there_is(tmp_path: Path) -> None:
    routes = {
        "/v2/acme/rocket/manifests/8B-q4_K_M": shape("oci/manifest.json"),
        "/v2/acme/rocket/tags/list": shape("oci/tags.json"),
    }
    with hub_server(routes) as server:
        (model,) = await _ask(REGISTRY, server, tmp_path, "acme/rocket")
    assert model.extra["tag"] == "8B-q4_K_M"


async def test_weights_that_are_no_gguf_are_no_model_and_a_note_says_so(tmp_path: Path) -> None:
    with hub_server({"/v2/acme/rocket/manifests/latest": shape("oci/safetensors.json")}) as server:
        async with desk(tmp_path) as one:
            page = await one.hub(REGISTRY.setting(server.url)).page(SourceQuery(id="acme/rocket"))
    assert page.models == []
    assert page.notes == ["acme/rocket:latest: its weights are no GGUF file, and engines here run no others"]


async def test_a_file_is_what_its_layer_says_whatever_it_is_called(tmp_path: Path) -> None:
    manifest = json.loads((SHAPES / "oci/manifest.json").read_text())
    for layer, title in zip(manifest["layers"], ("my-lora.gguf", "clip.gguf", "x-mmproj.gguf"), strict=False):
        layer["annotations"] = {"org.opencontainers.image.title": title}
    with hub_server({**OLLAMA.routes, MANIFEST: json_shape(manifest)}) as server:
        (model,) = await _ask(OLLAMA, server, tmp_path, "rocket:8b")
    assert [(file.role, file.name) for file in model.files] == [
        ("weights", "my-lora.gguf"),
        ("projector", "clip.gguf"),
        ("adapter", "x-mmproj.gguf"),
    ]


async def test_weights_in_layers_without_names_are_parts_in_their_order(tmp_path: Path) -> None:
    manifest = json.loads((SHAPES / "oci/shards.json").read_text())
    for layer in manifest["layers"]:
        layer.pop("annotations", None)
    with hub_server({"/v2/acme/rocket/manifests/latest": json_shape(manifest)}) as server:
        (model,) = await _ask(REGISTRY, server, tmp_path, "acme/rocket")
    assert [(file.name, file.sha256[:8]) for file in model.files] == [
        ("rocket-latest-00001-of-00002.gguf", "82440b4c"),
        ("rocket-latest-00002-of-00002.gguf", "4571be7a"),
        ("mmproj-rocket-latest.gguf", "6853979e"),
    ]


async def test_dockers_description_of_a_model_is_understood(tmp_path: Path) -> None:
    said = {
        "config": {"format": "gguf", "quantization": "MOSTLY_Q8_0", "parameters": "361.82 M", "architecture": "llama"}
    }
    body = json.dumps(said).encode()
    manifest = json.loads((SHAPES / "oci/shards.json").read_text())
    manifest["config"]["digest"] = digest = "sha256:" + hashlib.sha256(body).hexdigest()
    for layer in manifest["layers"]:
        layer.pop("annotations", None)
    routes = {"/v2/ai/m/manifests/latest": json_shape(manifest), f"/v2/ai/m/blobs/{digest}": Shape(body)}
    with hub_server(routes) as server:
        (model,) = await _ask(REGISTRY, server, tmp_path, "ai/m")
    assert (model.parameters, model.extra["arch"]) == (361_820_000, "llama")
    assert (model.variants[0].id, model.variants[0].quantization) == ("q8_0", "Q8_0")


async def test_a_configuration_with_another_hash_than_stated_tells_nothing(tmp_path: Path) -> None:
    config = next(path for path in OLLAMA.routes if "/blobs/" in path)
    with hub_server({**OLLAMA.routes, config: json_shape({"file_type": "Q2_K", "model_family": "evil"})}) as server:
        (model,) = await _ask(OLLAMA, server, tmp_path, "rocket:8b")
    assert "arch" not in model.extra
    assert (model.variants[0].id, model.variants[0].quantization) == ("8b", "")


@pytest.mark.parametrize("digest", ["md5:00", "sha256:AB", "sha256:../../x", 7])
async def test_a_layer_without_a_proper_digest_makes_no_model(digest: Any, tmp_path: Path) -> None:
    manifest = json.loads((SHAPES / "oci/manifest.json").read_text())
    manifest["layers"][0]["digest"] = digest
    with hub_server({**OLLAMA.routes, MANIFEST: json_shape(manifest)}) as server:
        with pytest.raises(HubInvalid):
            await _ask(OLLAMA, server, tmp_path, "rocket:8b")


async def test_a_model_for_newer_clients_only_is_said_to_be(tmp_path: Path) -> None:
    with hub_server({**OLLAMA.routes, MANIFEST: Shape(b"{}", 412)}) as server:
        with pytest.raises(HubRefused) as refused:
            await _ask(OLLAMA, server, tmp_path, "rocket:8b")
    assert refused.value.reason == "unsupported"


@pytest.mark.parametrize("status", [401, 403, 404, 405])
async def test_a_registry_that_does_not_tell_what_it_has_can_be_asked_by_name_only(status: int, tmp_path: Path) -> None:
    with hub_server({**REGISTRY.routes, "/v2/_catalog": Shape(b"{}", status)}) as server:
        async with desk(tmp_path) as one:
            hub = one.hub(REGISTRY.setting(server.url))
            with pytest.raises(HubRefused) as refused:
                await hub.page(SourceQuery())
            assert (await hub.page(SourceQuery(id="acme/rocket"))).models
            with pytest.raises(HubRefused):
                await hub.page(SourceQuery(text="rocket"))
    assert refused.value.reason == "unsupported"


@pytest.mark.parametrize("id", ["acme/rocket:", "acme/rocket:a/b", "-x", "a" * 300, "acme/ro cket"])
async def test_a_name_that_no_registry_can_have_is_refused(id: str, tmp_path: Path) -> None:
    with hub_server(REGISTRY.routes) as server:
        if id == "acme/rocket:":  # as without a tag
            assert await _ask(REGISTRY, server, tmp_path, id)
            return
        with pytest.raises(InvalidParams):
            await _ask(REGISTRY, server, tmp_path, id)
        assert server.asked == []
