"""Proxies: which one a URL goes through, and that bytes come through each kind."""

from __future__ import annotations

import gc
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from jan_download.errors import BadSource
from jan_download.network.errors import Unreachable
from jan_download.network.network import Network
from jan_download.network.proxies import Proxies
from jan_download.settings import DownloadSettings

from jan_core.types import DownloadSource

from .faultserver import FaultServer
from .proxyserver import HttpProxy, SocksProxy


def fetch(url: str, environment: dict[str, str] | None = None, **settings: Any) -> bytes:
    network = Network(DownloadSettings(connect_timeout=5, stall_timeout=5, **settings), environment or {})
    try:
        return network.fetch(DownloadSource(url), 1 << 20)
    finally:
        network.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificates(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture(scope="module")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1", "far.invalid").configure_cert(context)
    return context


@pytest.fixture
def secure(server_tls: ssl.SSLContext) -> Iterator[FaultServer]:
    with FaultServer(tls=server_tls) as one:
        yield one


NAMES = {"far.invalid": "127.0.0.1"}


def test_plain_http_is_forwarded_with_the_login_for_the_proxy_only(server: FaultServer) -> None:
    server.serve("/f", b"through")
    with HttpProxy(login="user:p:a", names=NAMES) as proxy:
        assert fetch(server.url("/f", "far.invalid"), {"http_proxy": proxy.url}) == b"through"
        assert proxy.asked == [("far.invalid", server.port)]
    assert server.headers("Proxy-Authorization") == [None]


def test_https_goes_through_a_tunnel_that_the_proxy_cannot_look_into(secure: FaultServer, certificates: str) -> None:
    secure.serve("/f", b"through")
    with HttpProxy(login="user:pass", names=NAMES) as proxy:
        url = secure.url("/f", "far.invalid")
        assert fetch(url, {"https_proxy": proxy.url}, certificates=certificates) == b"through"
        assert proxy.asked == [("far.invalid", secure.port)]
        assert "/f" not in str(proxy.heads)
    assert secure.headers("Proxy-Authorization") == [None]


def test_a_proxy_may_speak_tls_itself(
    secure: FaultServer, server: FaultServer, server_tls: ssl.SSLContext, certificates: str
) -> None:
    secure.serve("/f", b"TLS in TLS")
    server.serve("/f", b"plain in TLS")
    with HttpProxy(names=NAMES, tls=server_tls) as proxy:
        assert fetch(secure.url("/f", "far.invalid"), proxy=proxy.url, certificates=certificates) == b"TLS in TLS"
        assert fetch(server.url("/f", "far.invalid"), proxy=proxy.url, certificates=certificates) == b"plain in TLS"
        assert len(proxy.asked) == 2


@pytest.mark.parametrize("login", ["", "user:pass"])
def test_socks5_looks_names_up_at_the_proxy(
    server: FaultServer, secure: FaultServer, certificates: str, login: str
) -> None:
    server.serve("/f", b"plain")
    secure.serve("/f", b"secure")
    with SocksProxy(login=login, names=NAMES) as proxy:
        environment = {"all_proxy": proxy.url("socks5h")}
        assert fetch(server.url("/f", "far.invalid"), environment) == b"plain"
        assert fetch(secure.url("/f", "far.invalid"), environment, certificates=certificates) == b"secure"
        assert proxy.asked == [("far.invalid", server.port), ("far.invalid", secure.port)]


@pytest.mark.parametrize("host", ["a" * 70 + ".invalid", "a..invalid"])
@pytest.mark.parametrize("kind", ["socks5h", "socks5", "socks4a"])
def test_a_name_that_is_none_is_one_that_cannot_be_resolved(kind: str, host: str) -> None:
    with SocksProxy() as proxy, pytest.raises(Unreachable, match="cannot be resolved"):
        fetch(f"http://{host}/f", proxy=proxy.url(kind))
    gc.collect()  # what is left open is told then


@pytest.mark.parametrize(
    ("kind", "asked"), [("socks5", "127.0.0.1"), ("socks4", "127.0.0.1"), ("socks4a", "localhost")]
)
def test_other_kinds_of_socks_look_names_up_where_they_have_it(server: FaultServer, kind: str, asked: str) -> None:
    server.serve("/f", b"plain")
    with SocksProxy() as proxy:
        assert fetch(server.url("/f", "localhost"), proxy=proxy.url(kind)) == b"plain"
        assert proxy.asked == [(asked, server.port)]


def test_a_login_that_a_proxy_refuses_is_told_and_neither_shown_nor_retried(
    server: FaultServer, secure: FaultServer
) -> None:
    with HttpProxy(login="user:right") as http, SocksProxy(login="user:right") as socks:
        wrong = http.url.replace("right", "wrong")
        for url, proxy in (
            (server.url("/f"), wrong),
            (secure.url("/f"), wrong),
            (server.url("/f"), socks.url(login="user:wrong")),
        ):
            with pytest.raises(BadSource, match="the proxy wants a login") as refused:
                fetch(url, proxy=proxy)
            assert "wrong" not in str(refused.value)


@pytest.mark.parametrize(("status", "kind"), [(403, BadSource), (502, Unreachable)])
def test_a_tunnel_that_a_proxy_refuses(secure: FaultServer, status: int, kind: type[Exception]) -> None:
    with HttpProxy() as proxy:
        proxy.refuses = status
        with pytest.raises(kind, match=str(status)):
            fetch(secure.url("/f"), proxy=proxy.url)


@pytest.mark.parametrize("kind", ["http", "https", "socks5h", "socks4"])
def test_a_proxy_that_is_not_there_is_a_reason_to_wait(kind: str, server: FaultServer) -> None:
    server.refuse()
    with pytest.raises(Unreachable):
        fetch("http://127.0.0.1:9/f", proxy=f"{kind}://127.0.0.1:{server.port}")


@pytest.mark.parametrize("proxy", ["ftp://h:1", "socks6://h:1", "http://", "http://h:0", "http://h:99999", "http://["])
def test_what_is_no_proxy_that_can_be_used_is_refused_by_name(proxy: str, server: FaultServer) -> None:
    with pytest.raises(BadSource, match="proxy"):
        fetch(server.url("/f"), proxy=proxy)
    assert not server.requests


@pytest.mark.parametrize(
    ("url", "settings", "environment", "host"),
    [
        ("http://a/", {}, {"http_proxy": "p:1"}, "p"),
        ("http://a/", {}, {"HTTP_PROXY": "p:1"}, ""),
        ("https://a/", {}, {"HTTPS_PROXY": "p:1", "http_proxy": "q:1"}, "p"),
        ("https://a/", {}, {"ALL_PROXY": "socks5h://p:1"}, "p"),
        ("https://a/", {"proxy": "http://s:1"}, {"https_proxy": "p:1"}, "s"),
        ("https://a/", {"proxy": "none"}, {"https_proxy": "p:1"}, ""),
        ("https://a/", {"proxy": "http://s:1", "no_proxy": "a"}, {}, ""),
        ("https://x.b.example/", {}, {"https_proxy": "p:1", "no_proxy": "b.example"}, ""),
        ("https://xb.example/", {}, {"https_proxy": "p:1", "no_proxy": "b.example"}, "p"),
        ("https://B.example./", {}, {"https_proxy": "p:1", "NO_PROXY": "x *.b.example,.b.example"}, ""),
        ("https://10.1.2.3/", {}, {"https_proxy": "p:1", "no_proxy": "10.0.0.0/8"}, ""),
        ("https://[fd00::1]/", {}, {"https_proxy": "p:1", "no_proxy": "[fd00::]/8 fd00::/8"}, ""),
        ("https://11.1.2.3/", {}, {"https_proxy": "p:1", "no_proxy": "10.0.0.0/8"}, "p"),
        ("https://a:444/", {}, {"https_proxy": "p:1", "no_proxy": "a:443"}, "p"),
        ("https://a/", {}, {"https_proxy": "p:1", "no_proxy": "*"}, ""),
    ],
)
def test_which_proxy(url: str, settings: dict[str, str], environment: dict[str, str], host: str) -> None:
    proxy = Proxies(DownloadSettings(**settings), environment).of(url)  # type: ignore[arg-type]
    assert (proxy.host if proxy else "") == host


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_proxy_setting_is_a_crash(proxy: str, exempt: str) -> None:
    found = None
    with suppress(BadSource):
        found = Proxies(DownloadSettings(proxy=proxy, no_proxy=exempt), {}).of("https://a.example/f")
    assert found is None or found.host


def test_a_login_is_not_in_what_a_proxy_is_shown_as() -> None:
    proxy = Proxies(DownloadSettings(proxy="http://us%40er:se%3Acret@p:1"), {}).of("http://a/")
    assert proxy is not None
    assert (proxy.name, proxy.password) == ("us@er", "se:cret")
    assert "cret" not in repr(proxy) + proxy.url
