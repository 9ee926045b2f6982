"""What every kind of hub must do, against a server of its own on loopback that answers in its shapes."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args, get_type_hints

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jan_registry.hubs.base import known_sources, open_hub
from jan_registry.hubs.errors import HubInvalid, HubRefused, HubUnreachable
from jan_registry.settings import SourceSetting

from jan_core import InvalidParams
from jan_core.types import ModelRecord, SourcePage, SourceQuery

from .hubcase import SECRET, Asked, Desk, HubCase, HubServer, Shape, desk, everything, hub_server, stored

pytestmark = pytest.mark.anyio

CASES: list[HubCase] = [
    case
    for path in sorted(Path(__file__).parent.glob("hubcase_*.py"))
    for case in importlib.import_module(f".{path.stem}", __package__).CASES
]
EXAMPLES = int(os.environ.get("JAN_TEST_HUB_EXAMPLES", "12"))

each_hub = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def of(cases: list[HubCase]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


async def ask(one: Desk, case: HubCase, server: HubServer, query: SourceQuery | None = None, **more: Any) -> SourcePage:
    return await one.hub(case.setting(server.url, **more)).page(query or case.question())


def test_every_kind_of_hub_takes_part() -> None:
    """But our own: what it answers must be signed, so there are no shapes of it (`test_hubs_own.py`)."""
    assert {case.kind for case in CASES} == set(get_args(get_type_hints(SourceSetting)["kind"])) - {"hub"}


@of([case for case in CASES if case.ids is not None])
async def test_the_list_has_every_model_once_and_ends(case: HubCase, tmp_path: Path) -> None:
    with hub_server(case.routes) as server:
        async with desk(tmp_path) as one:
            models = await everything(one.hub(case.setting(server.url)))
    assert [model.id for model in models] == case.ids


@of([case for case in CASES if case.ids is not None])
async def test_a_hub_that_always_has_a_next_page_is_not_followed_for_ever(case: HubCase, tmp_path: Path) -> None:
    with hub_server(case.routes) as server:
        answers = dict(case.routes)

        def once_more(asked: Asked) -> Shape:
            found = server._routed(asked)
            link = f'<{server.url}{asked.path}?cursor=again>; rel="next"'
            return Shape(found.body, found.status, {**found.headers, "Link": link})

        server.routes, server.reply = answers, once_more
        async with desk(tmp_path) as one:
            await everything(one.hub(case.setting(server.url)))
        assert len(server.asked) < 60


@each_hub
async def test_the_same_answer_makes_the_same_records_on_every_machine(case: HubCase, tmp_path: Path) -> None:
    with hub_server(case.routes) as server:
        records: list[bytes] = []
        for folder in (tmp_path / "one", tmp_path / "other"):
            async with desk(folder) as one:
                hub = one.hub(case.setting(server.url))
                models = await everything(hub) if case.ids is not None else []
                models += (await hub.page(case.question())).models
                records.append(msgspec.json.encode(models))
    assert records[0] == records[1]
    assert records[0] != b"[]"


@each_hub
async def test_nothing_is_called_verified_that_nobody_signed(case: HubCase, tmp_path: Path) -> None:
    with hub_server(case.routes) as server:
        async with desk(tmp_path) as one:
            page = await ask(one, case, server)
    assert page.models
    assert {model.verification for model in page.models} == {"verified" if case.verified else "unverified"}
    assert {model.source for model in page.models} == {case.name}


@of([case for case in CASES if case.search])
async def test_words_find_what_has_them(case: HubCase, tmp_path: Path) -> None:
    assert case.search
    words, ids = case.search
    with hub_server(case.routes) as server:
        async with desk(tmp_path) as one:
            models = await everything(one.hub(case.setting(server.url)), text=words)
    assert [model.id for model in models] == ids


@of([case for case in CASES if case.wanted])
async def test_one_model_has_its_parts_grouped_its_projector_and_what_the_hub_states_of_them(
    case: HubCase, tmp_path: Path
) -> None:
    with hub_server(case.routes) as server:
        async with desk(tmp_path) as one:
            (model,) = (await ask(one, case, server)).models
    assert model.id == (case.id or case.wanted)
    assert case.described(model) == case.variants
    assert model.files == (model.variants[0].files if model.variants else [])


@of([case for case in CASES if case.pin])
async def test_addresses_name_what_cannot_change_under_them(case: HubCase, tmp_path: Path) -> None:
    with hub_server(case.routes) as server:
        async with desk(tmp_path) as one:
            (model,) = (await ask(one, case, server)).models
    urls = [file.url for variant in model.variants for file in variant.files]
    assert urls
    assert all(case.pin in url for url in urls), urls
    assert not any("/main/" in url or "/master/" in url for url in urls)


@of([case for case in CASES if case.wanted])
async def test_a_model_that_the_hub_does_not_have_is_an_empty_page(case: HubCase, tmp_path: Path) -> None:
    with hub_server(case.routes) as server:
        async with desk(tmp_path) as one:
            page = await ask(one, case, server, SourceQuery(id=case.unknown))
    assert page.models == []


@each_hub
async def test_a_server_that_has_nothing_is_an_empty_page_or_no_such_hub(case: HubCase, tmp_path: Path) -> None:
    with hub_server() as server:
        async with desk(tmp_path) as one:
            with suppress(HubInvalid):
                assert (await ask(one, case, server)).models == []


@of([case for case in CASES if case.wanted])
@pytest.mark.parametrize("id", ["模型/é😀", "../../etc/passwd", "acme//x", "a/b/c/d/e", "a b?c#d", "x" * 900, "\x00"])
async def test_any_text_may_be_asked_for_as_an_id(case: HubCase, id: str, tmp_path: Path) -> None:
    with hub_server(case.routes) as server:
        async with desk(tmp_path) as one:
            try:
                page = await ask(one, case, server, SourceQuery(id=id))
            except (InvalidParams, HubInvalid, HubRefused):
                return
            finally:
                for asked in server.asked:
                    assert asked.path.isascii()
                    assert ".." not in asked.path
    assert page.models == []


@each_hub
async def test_a_cursor_of_somebody_else_is_refused_or_ends_the_list(case: HubCase, tmp_path: Path) -> None:
    with hub_server(case.routes) as server:
        async with desk(tmp_path) as one:
            for cursor in ("http://elsewhere.example/", "\n", "-1", "x" * 5000, "0x10", "９"):
                with suppress(InvalidParams, HubInvalid, HubRefused):
                    await one.hub(case.setting(server.url)).page(SourceQuery(cursor=cursor))


@each_hub
async def test_a_server_that_was_asked_too_often_is_left_alone_as_long_as_it_says(
    case: HubCase, tmp_path: Path
) -> None:
    with hub_server(case.routes) as server:
        server.reply = lambda asked: Shape(b"{}", 429, {"Retry-After": "7"})
        async with desk(tmp_path) as one:
            for wait in (7, 5):
                with pytest.raises(HubRefused) as refused:
                    await ask(one, case, server)
                assert (refused.value.reason, refused.value.retryable) == ("rate_limited", True)
                assert refused.value.retry_after == pytest.approx(wait, abs=1)
                one.clock.now += 2
            assert len(server.asked) == 1
            server.reply = None
            one.clock.now += 6
            assert (await ask(one, case, server)).models


@each_hub
@pytest.mark.parametrize("status", [401, 403])
async def test_a_hub_that_wants_to_know_who_asks_is_said_to(case: HubCase, status: int, tmp_path: Path) -> None:
    with hub_server() as server:
        server.reply = lambda asked: Shape(b'{"error":"no"}', status)
        async with desk(tmp_path) as one:
            with pytest.raises(HubRefused) as refused:
                await ask(one, case, server)
    assert refused.value.reason == "auth_required"
    assert not refused.value.retryable


@each_hub
@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_server_in_trouble_may_be_asked_again(case: HubCase, status: int, tmp_path: Path) -> None:
    with hub_server() as server:
        server.reply = lambda asked: Shape(b"oops", status)
        async with desk(tmp_path) as one:
            with pytest.raises(HubUnreachable) as failed:
                await ask(one, case, server)
    assert failed.value.retryable
    assert failed.value.data["status"] == status


@each_hub
async def test_a_server_that_is_not_there_is_unreachable(case: HubCase, tmp_path: Path) -> None:
    with hub_server() as server:
        server.stop()
        async with desk(tmp_path) as one:
            with pytest.raises(HubUnreachable):
                await ask(one, case, server)


@each_hub
async def test_a_small_answer_that_becomes_a_huge_one_is_cut_off(case: HubCase, tmp_path: Path) -> None:
    bomb = gzip.compress(b"[" + b" " * (80 << 20), 9)
    with hub_server() as server:
        server.reply = lambda asked: Shape(bomb, 200, {"Content-Encoding": "gzip"})
        async with desk(tmp_path) as one:
            with pytest.raises(HubInvalid) as refused:
                await ask(one, case, server)
    assert "more than" in refused.value.message


@each_hub
@pytest.mark.parametrize(
    "body", [b"", b"null", b"<html>Log in to the Wi-Fi</html>", b"\xff\xfe", b"[" * 50_000, b'"x"']
)
async def test_what_is_no_answer_is_refused_and_not_kept(case: HubCase, body: bytes, tmp_path: Path) -> None:
    with hub_server(case.routes) as server:
        async with desk(tmp_path) as one:
            server.reply = lambda asked: Shape(body)
            with pytest.raises(HubInvalid):
                await ask(one, case, server)
            server.reply = None
            assert (await ask(one, case, server)).models


@each_hub
async def test_a_token_stays_with_its_host(case: HubCase, tmp_path: Path) -> None:
    with hub_server(case.routes) as home, hub_server(case.routes) as elsewhere:
        home.reply = lambda asked: Shape(b"", 302, {"Location": elsewhere.url + asked.path})
        async with desk(tmp_path) as one:
            with suppress(HubInvalid, HubRefused, HubUnreachable):
                await ask(one, case, home, token=SECRET)
        assert {asked.headers.get("authorization") for asked in home.asked} == {f"Bearer {SECRET}"}
        assert elsewhere.asked
        assert not any(SECRET in value for asked in elsewhere.asked for value in asked.headers.values())
        assert SECRET.encode() not in stored(tmp_path)


@each_hub
async def test_what_a_token_was_shown_is_not_shown_to_who_has_none(case: HubCase, tmp_path: Path) -> None:
    with hub_server(case.routes) as server:

        def only_with_a_token(asked: Asked) -> Shape:
            with_token = asked.headers.get("authorization") == f"Bearer {SECRET}"
            return server._routed(asked) if with_token else Shape(b"{}", 401)

        server.reply = only_with_a_token
        async with desk(tmp_path) as one:
            assert (await ask(one, case, server, token=SECRET)).models
            with pytest.raises(HubRefused):
                await ask(one, case, server)
            assert (await ask(one, case, server, token=SECRET)).models


@each_hub
async def test_where_the_network_must_not_be_used_no_connection_is_made(case: HubCase, tmp_path: Path) -> None:
    with hub_server(case.routes) as server:
        async with desk(tmp_path) as one:
            one.veto = "offline mode"
            with pytest.raises(HubRefused) as refused:
                await ask(one, case, server)
        assert refused.value.reason == "offline"
        assert "offline mode" in refused.value.message
        assert server.connections == 0


@each_hub
@pytest.mark.parametrize("how", ["gone", "in trouble", "offline", "garbage", "limited"])
async def test_what_was_known_is_shown_with_its_age_while_the_hub_cannot_be_asked(
    case: HubCase, how: str, tmp_path: Path
) -> None:
    with hub_server(case.routes) as server:
        async with desk(tmp_path) as one:
            before = await ask(one, case, server)
            assert not before.stale
            one.clock.now += 2 * 3600
            if how == "gone":
                server.stop()
            one.veto = "offline mode" if how == "offline" else ""
            bodies = {"garbage": Shape(b"<html>"), "limited": Shape(b"", 429)}
            server.reply = lambda asked: bodies.get(how, Shape(b"", 503))
            after = await ask(one, case, server)
    assert after.models == before.models
    assert after.stale
    assert after.age == pytest.approx(2 * 3600, abs=5)


@each_hub
async def test_a_second_question_within_minutes_asks_nobody(case: HubCase, tmp_path: Path) -> None:
    with hub_server(case.routes) as server:
        async with desk(tmp_path) as one:
            before = await ask(one, case, server)
            asked = len(server.asked)
            one.clock.now += 60
            after = await ask(one, case, server)
        assert len(server.asked) == asked
    assert after.models == before.models
    assert after.age == pytest.approx(60, abs=2)
    assert not after.stale


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@each_hub
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=JSON, seed=st.integers(0, 2**32), status=st.sampled_from([200, 200, 200, 404, 401]))
def test_whatever_the_server_says_the_outcome_is_typed(
    case: HubCase, value: Any, seed: int, status: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One place in each of the hub's answers is another value; or all of the answer is."""

    def spoiled(asked: Asked, server: HubServer) -> Shape:
        found = server._routed(asked)
        draw = random.Random(f"{seed}{asked.path}")
        try:
            body = json.loads(found.body)
        except ValueError:
            return found
        if draw.random() < 0.1:
            body = value
        else:
            _replace(body, value, draw)
        return Shape(json.dumps(body).encode(), found.status if found.status != 200 else status, found.headers)

    async def run() -> None:
        with hub_server(case.routes) as server:
            server.reply = lambda asked: spoiled(asked, server)
            async with desk(tmp_path_factory.mktemp("fuzz")) as one:
                for query in (case.question(), SourceQuery(limit=3), SourceQuery(text="a")):
                    try:
                        page = await ask(one, case, server, query)
                    except (HubInvalid, HubRefused, HubUnreachable, InvalidParams):
                        continue
                    for model in page.models:
                        _is_plain(model)

    anyio.run(run)


def _replace(tree: Any, value: Any, draw: random.Random) -> None:
    """Put `value` in the place of one thing, anywhere in a tree."""
    places: list[tuple[Any, Any]] = []
    stack = [tree]
    while stack:
        node = stack.pop()
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            stack.append(node[key])
    if places:
        node, key = draw.choice(places)
        node[key] = value


def _is_plain(model: ModelRecord) -> None:
    """A record that can be sent, and whose addresses and names do no harm."""
    msgspec.json.decode(msgspec.json.encode(model), type=ModelRecord, strict=True)
    assert 0 < len(model.id) <= 128
    for variant in model.variants:
        for file in variant.files:
            assert "/" not in file.name
            assert "\\" not in file.name
            assert file.url.startswith(("http://", "https://")) or not file.url
            assert file.url.isascii()
            assert file.sha256 == "" or len(file.sha256) == 64
            assert 0 <= file.size < 2**53


def test_the_hubs_known_by_name_can_be_opened_without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    hubs = [open_hub(setting, None) for setting in known_sources()]  # type: ignore[arg-type]
    assert {hub.id for hub in hubs} == {"huggingface", "ollama", "modelscope", "cortexso", "jan-catalogue", "lmstudio"}
    assert all(hub.url.startswith("https://") for hub in hubs)
