"""Tokens: whose they are, where they go, and those that registries hand out to anybody."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_download.errors import BadSource, SourceUnauthorized
from jan_download.network.errors import Unreachable
from jan_download.network.network import Network
from jan_download.network.tokens import Challenge, Tokens, challenge
from jan_download.settings import DownloadSettings

from jan_core import JanError
from jan_core.types import DownloadSource

from .faults import Header, Status
from .faultserver import FaultServer
from .test_network_answers import read


@pytest.mark.parametrize(
    ("named", "url", "sent"),
    [
        ({"hub.example": "t"}, "https://hub.example/f", "Bearer t"),
        ({"Hub.Example.": " t "}, "https://hub.example./f", "Bearer t"),
        ({"hub.example": "$HUB"}, "https://hub.example/f", "Bearer from-environment"),
        ({"hub.example": "$NONE"}, "https://hub.example/f", ""),
        ({"hub.example": "Basic dTpw"}, "https://hub.example/f", "Basic dTpw"),
        ({"hub.example": "t"}, "https://sub.hub.example/f", ""),
        ({"hub.example": "t"}, "https://hub.example.evil.example/f", ""),
        ({"hub.example": "t"}, "https://nothub.example/f", ""),
        ({"hub.example": "t"}, "http://hub.example/f", ""),
        ({"hub.example": "t"}, "https://hub.example:8443/f", ""),
        ({"hub.example:8443": "t"}, "https://hub.example:8443/f", "Bearer t"),
        ({"hub.example:443": "t"}, "https://hub.example/f", "Bearer t"),
        ({"hub.example:80": "t"}, "http://hub.example/f", ""),
        ({"127.0.0.1": "t"}, "http://127.0.0.1:5000/f", "Bearer t"),
        ({"localhost:5000": "t"}, "http://localhost:5000/f", "Bearer t"),
        ({"localhost:5000": "t"}, "http://localhost:5001/f", ""),
        ({}, "https://hub.example/f", ""),
    ],
)
def test_whose_a_token_is(named: dict[str, str], url: str, sent: str) -> None:
    assert Tokens(named, {"HUB": "from-environment\n"}).authorization(url) == sent


def test_a_token_that_no_header_can_carry_is_told_without_it() -> None:
    with pytest.raises(BadSource) as refused:
        Tokens({"hub.example": "se\r\ncret"}, {}).authorization("https://hub.example/f")
    assert "cret" not in str(refused.value)


def test_a_variable_that_is_not_set_is_named() -> None:
    tokens = Tokens({"hub.example": "$HUB_TOKEN"}, {})
    assert tokens.missing("https://hub.example/f") == "HUB_TOKEN"
    assert tokens.missing("https://other.example/f") == ""


def test_a_token_is_sent_to_its_server_and_a_header_of_the_source_comes_before_it(
    server: FaultServer, serve_more: Callable[..., FaultServer], data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    other = serve_more()
    network = Network(DownloadSettings(tokens={f"127.0.0.1:{server.port}": "$HUB"}), {"HUB": "secret-token"})
    url, elsewhere = server.serve("/f", data), other.serve("/f", data, Status(401))
    read(network.open(DownloadSource(url), 0, 9))
    read(network.open(DownloadSource(url, headers={"authorization": "Bearer own"}), 0, 9))
    with pytest.raises(SourceUnauthorized) as refused:
        network.open(DownloadSource(elsewhere))
    network.close()
    assert server.headers("Authorization") == ["Bearer secret-token", "Bearer own"]
    assert other.headers("Authorization") == [None]
    assert "secret-token" not in caplog.text + str(refused.value) + repr(refused.value.data)


def test_a_source_cannot_set_what_is_not_its_own(server: FaultServer, data: bytes) -> None:
    url, network = server.serve("/f", data), Network(DownloadSettings(), {})
    headers = {"range": "bytes=5-6", "HOST": "other.example", "Accept-encoding": "gzip", "X-Key": "mine"}
    assert read(network.open(DownloadSource(url, headers=headers), 0, 9)) == data[:10]
    assert server.headers("Host") == [f"127.0.0.1:{server.port}"]
    assert (server.headers("Accept-Encoding"), server.headers("X-Key")) == (["identity"], ["mine"])
    for bad in ({"X": "a\r\nY: secret"}, {"X\n": "secret"}, {"": "secret"}, {"X": "\u20acsecret"}):
        with pytest.raises(BadSource, match="cannot be sent") as refused:
            network.open(DownloadSource(url, headers=bad))
        assert "secret" not in str(refused.value)
    network.close()


# -- registries ----------------------------------------


def registry(server: FaultServer, hub: FaultServer, data: bytes, answer: object) -> DownloadSource:
    """A blob that wants a token, which `hub` hands out."""
    realm = hub.serve("/token", answer if isinstance(answer, bytes) else json.dumps(answer).encode())
    asks = Header("WWW-Authenticate", f'Bearer realm="{realm}",service="reg",scope="repository:a/b:pull"')

    class Guarded(Status):
        def strikes(self, asked: Any) -> bool:
            return bool(asked.headers.get("authorization") != "Bearer anybody")

    class Asks(Header):
        def strikes(self, asked: Any) -> bool:
            return bool(asked.headers.get("authorization") != "Bearer anybody")

    return DownloadSource(server.serve("/blob", data, Guarded(401), Asks(asks.name, asks.value)))


def test_a_registrys_token_is_fetched_once_and_kept(
    server: FaultServer, serve_more: Callable[..., FaultServer], data: bytes
) -> None:
    hub = serve_more()
    source = registry(server, hub, data, {"token": "anybody", "expires_in": 300})
    network = Network(DownloadSettings(), {})
    for first in range(3):
        assert read(network.open(source, first, 9)) == data[first:10]
    network.close()
    assert [seen.query for seen in hub.seen("/token")] == ["service=reg&scope=repository:a/b:pull"]
    assert hub.headers("Authorization") == [None]
    assert server.headers("Authorization") == [None, *["Bearer anybody"] * 3]


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"<html>", b"[" * 50_000, {"token": ""}, {"token": 5}, {"token": "a\r\nb"}, {"access_token": "x"}],
)
def test_a_registry_that_hands_nothing_of_use_out_is_a_refusal(
    server: FaultServer, serve_more: Callable[..., FaultServer], data: bytes, answer: object
) -> None:
    source = registry(server, serve_more(), data, answer)
    network = Network(DownloadSettings(), {})
    with pytest.raises(SourceUnauthorized, match="401"):
        network.open(source)
    network.close()
    assert len(server.seen("/blob")) <= 2


def test_a_registry_that_cannot_be_reached_keeps_no_connection_open(
    server: FaultServer, serve_more: Callable[..., FaultServer], data: bytes
) -> None:
    hub = serve_more()
    source = registry(server, hub, data, {})
    hub.refuse()
    network = Network(DownloadSettings(), {})
    for _ in range(3):
        with pytest.raises(Unreachable):
            network.open(source)
    assert server.connected == 1  # it served all three
    network.close()


def test_ones_own_token_that_is_refused_is_not_replaced(
    server: FaultServer, serve_more: Callable[..., FaultServer], data: bytes
) -> None:
    hub = serve_more()
    source = registry(server, hub, data, {"token": "anybody"})
    network = Network(DownloadSettings(tokens={f"127.0.0.1:{server.port}": "mine"}), {})
    with pytest.raises(SourceUnauthorized):
        network.open(source)
    network.close()
    assert not hub.requests


@pytest.mark.parametrize(
    ("header", "url", "found"),
    [
        (
            'Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push"',
            "https://r.example/v2/",
            Challenge("https://auth.example/token", "r.example", "repository:a/b:pull,push"),
        ),
        ('Basic realm="x", bearer Realm=https://a.example/t', "https://r.example/", Challenge("https://a.example/t")),
        ('Bearer realm="http://auth.example/token"', "https://r.example/", None),
        ('Bearer realm="http://127.0.0.1:1/token"', "https://r.example/", None),
        ('Bearer realm="https://localhost/token"', "https://r.example/", None),
        ('Bearer realm="file:///etc/passwd"', "https://r.example/", None),
        ('Bearer realm="https://user:pw@auth.example/"', "https://r.example/", None),
        ('Bearer error="invalid_token"', "https://r.example/", None),
        ('Basic realm="https://auth.example/"', "https://r.example/", None),
        ("", "https://r.example/", None),
    ],
)
def test_who_may_be_asked_for_a_token(header: str, url: str, found: Challenge | None) -> None:
    assert challenge(header, url) == found


@given(st.text(max_size=200))
def test_no_challenge_breaks_its_reader(text: str) -> None:
    found = challenge("Bearer " + text, "https://r.example/f")
    assert found is None or found.url.startswith("https://")


@given(st.binary(max_size=200))
def test_no_answer_of_a_registry_breaks_its_reader(answer: bytes) -> None:
    tokens = Tokens({}, {})
    tokens.ask(Challenge("https://a.example/t"), "https://r.example/f", lambda _: answer)
    assert tokens.authorization("https://r.example/f").isascii()


def test_a_head_that_cannot_be_read_is_not_noted_with_its_address(
    server: FaultServer, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    network = Network(DownloadSettings(), {})
    source = DownloadSource(server.serve("/f", data, Header("no field", "x")) + "?signature=secret")
    with contextlib.suppress(JanError, Unreachable):
        read(network.open(source))
    network.close()
    assert server.seen("/f")
    assert "secret" not in caplog.text
