"""Redirects are followed by hand: where they may lead, what goes along, and how long their end is remembered."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Iterator

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from jan_download.errors import BadSource, SourceNotFound, SourceUnauthorized
from jan_download.network.errors import Unreachable
from jan_download.network.network import Network
from jan_download.network.redirects import expiry, target
from jan_download.settings import DownloadSettings

from jan_core.types import DownloadSource

from .faults import Close, Redirect, Status
from .faultserver import FaultServer
from .test_network_answers import read

SETTINGS = DownloadSettings(connect_timeout=5, stall_timeout=5)


@pytest.fixture
def network() -> Iterator[Network]:
    one = Network(SETTINGS, {})
    yield one
    one.close()


@pytest.fixture
def cdn(serve_more: Callable[..., FaultServer]) -> FaultServer:
    return serve_more()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_end_of_a_redirect_is_asked_directly_from_then_on(
    network: Network, server: FaultServer, cdn: FaultServer, data: bytes, status: int
) -> None:
    source = DownloadSource(server.serve("/f", b"", Redirect(cdn.serve("/blob", data), status)))
    for first in (0, 10, 20):
        body = network.open(source, first, 99, size=len(data))
        assert (body.host, read(body)) == (cdn.host, data[first:100])
    assert len(server.seen("/f")) == 1
    assert len(cdn.seen("/blob")) == 3
    assert (server.connected, cdn.connected) == (1, 1)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_link_whose_time_is_over_is_resolved_anew_and_is_no_failure(
    network: Network, server: FaultServer, cdn: FaultServer, data: bytes, status: int
) -> None:
    source = DownloadSource(server.serve("/f", b"", Redirect(cdn.serve("/blob", data, Status(status).only(1)))))
    assert [read(network.open(source, i, 9)) for i in range(3)] == [data[i:10] for i in range(3)]
    assert len(server.seen("/f")) == 2


def test_a_signed_link_is_used_as_often_as_it_is_good(
    network: Network, server: FaultServer, cdn: FaultServer, data: bytes
) -> None:
    cdn.serve("/blob", data, signed=True)
    source = DownloadSource(server.serve("/f", b"", Redirect(lambda: cdn.link("/blob", uses=2))))
    assert b"".join(read(network.open(source, i, i)) for i in range(6)) == data[:6]
    assert len(server.seen("/f")) == 3


def test_a_link_that_says_when_it_ends_is_not_asked_after_that(
    network: Network, server: FaultServer, cdn: FaultServer, data: bytes
) -> None:
    url = cdn.serve("/blob", data)
    over, good = f"{url}?Expires={int(time.time())}", f"{url}?Expires={int(time.time()) + 900}"
    source = DownloadSource(server.serve("/f", b"", Redirect(over).only(0, 1), Redirect(good).since(2)))
    for first in range(5):
        read(network.open(source, first, 9))
    assert len(server.seen("/f")) == 3


def test_a_link_that_is_refused_while_it_is_fresh_is_told(
    network: Network, server: FaultServer, cdn: FaultServer, data: bytes
) -> None:
    source = DownloadSource(server.serve("/f", b"", Redirect(cdn.serve("/blob", data, Status(403)))))
    with pytest.raises(SourceUnauthorized, match=cdn.host):
        network.open(source)


def test_a_link_that_breaks_is_asked_for_anew_next_time(
    network: Network, server: FaultServer, cdn: FaultServer, data: bytes
) -> None:
    source = DownloadSource(server.serve("/f", b"", Redirect(cdn.serve("/blob", data, Status(503).only(1)))))
    read(network.open(source, 0, 9))
    with pytest.raises(Unreachable):
        network.open(source, 0, 9)
    read(network.open(source, 0, 9))
    assert len(server.seen("/f")) == 2


def test_credentials_go_to_their_own_origin_and_never_across_a_redirect(
    network: Network, server: FaultServer, cdn: FaultServer, data: bytes
) -> None:
    back = server.serve("/back", data)
    cdn.serve("/away", b"", Redirect(back))
    server.serve("/home", b"", Redirect(cdn.url("/away")))
    url = server.serve("/f", b"", Redirect("/home"))
    read(network.open(DownloadSource(url, headers={"Authorization": "secret", "X-Key": "secret"}), 0, 9))
    assert server.headers("Authorization", "/f") == server.headers("X-Key", "/home") == ["secret"]
    assert cdn.headers("Authorization") == cdn.headers("X-Key") == [None]
    assert server.headers("Authorization", "/back") == [None]  # another origin chose this address


def test_tokens_of_the_settings_stay_at_home_too(server: FaultServer, cdn: FaultServer, data: bytes) -> None:
    source = DownloadSource(server.serve("/f", b"", Redirect(cdn.serve("/blob", data))))
    tokens = {f"127.0.0.1:{server.port}": "$MINE", f"127.0.0.1:{cdn.port}": "not-asked-for"}
    network = Network(DownloadSettings(tokens=tokens), {"MINE": "hub-token"})
    try:
        read(network.open(source, 0, 9))
        read(network.open(source, 0, 9))
    finally:
        network.close()
    assert server.headers("Authorization") == ["Bearer hub-token"]
    assert cdn.headers("Authorization") == [None, None]


def test_a_circle_and_an_endless_chain_end(network: Network, server: FaultServer) -> None:
    server.serve("/b", b"", Redirect("/a"))
    with pytest.raises(BadSource, match="in a circle"):
        network.open(DownloadSource(server.serve("/a", b"", Redirect("/b"))))
    for number in range(20):
        server.serve(f"/{number}", b"", Redirect(f"/{number + 1}"))
    with pytest.raises(BadSource, match="more than 10 times"):
        network.open(DownloadSource(server.url("/0")))
    server.serve("/20", b"end")
    assert read(network.open(DownloadSource(server.url("/10")))) == b"end"


def test_from_https_nothing_leads_to_plain_http(server: FaultServer, tmp_path: object) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = trustme.CA()
    authority.issue_cert("localhost").configure_cert(context)
    with FaultServer(tls=context) as secure, authority.cert_pem.tempfile() as certificates:
        secure.serve("/f", b"", Redirect(server.serve("/f", b"plain")))
        network = Network(DownloadSettings(certificates=certificates), {})
        with pytest.raises(BadSource, match="from https to plain http"):
            network.open(DownloadSource(secure.url("/f", "localhost")))
        network.close()
    assert not server.requests


@pytest.mark.parametrize(
    "location", ["", "ftp://h/f", "http://", "http://user:pw@h/", "http://h:0/", "//", "http://[::1", "javascript:x"]
)
def test_where_a_redirect_may_not_lead(network: Network, server: FaultServer, location: str) -> None:
    server.serve("/f", b"", Redirect(location))
    with pytest.raises((BadSource, SourceNotFound)):
        network.open(DownloadSource(server.url("/f")))


@pytest.mark.parametrize("to", ["http://127.0.0.1:1337/quit", "http://LOCALHOST./", "http://[::1]/", "//a.localhost/"])
def test_nobody_else_sends_us_to_this_machine(to: str) -> None:
    with pytest.raises(BadSource, match="to this machine"):
        target("http://far.example/f", to)
    assert target("http://127.0.0.1:5000/f", "http://localhost/") == "http://localhost/"


def test_messages_and_logs_name_hosts_and_no_addresses(
    network: Network, server: FaultServer, cdn: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    cdn.serve("/blob", b"", Close())
    server.serve("/f", b"", Redirect(cdn.url("/blob?signature=secret")))
    with pytest.raises(Unreachable) as failed:
        network.open(DownloadSource(server.url("/f?key=secret")))
    assert cdn.host in str(failed.value)
    assert "secret" not in str(failed.value) + caplog.text


@pytest.mark.parametrize(
    ("location", "found"),
    [
        ("/x?a=b c", "http://h.example/x?a=b%20c"),
        ("//other.example/é", "http://other.example/%C3%A9"),
        ("http://bücher.example/f", "http://xn--bcher-kva.example/f"),
        ("http://BÜCHER.example:8080/f", "http://xn--bcher-kva.example:8080/f"),
        ("http://h.example/a%20b?c=%2F&d=~'(x)", "http://h.example/a%20b?c=%2F&d=~'(x)"),
        ("http://[2001:db8::1]:80/f#part", "http://[2001:db8::1]:80/f"),
    ],
)
def test_addresses_that_are_not_quite_in_form_are_brought_into_it(location: str, found: str) -> None:
    as_received = location.encode().decode("latin-1")  # what http.client makes of it
    assert target("http://h.example/f", as_received) == found


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("url", "headers", "at"),
    [
        ("https://h/f?X-Amz-Date=20270115T080000Z&X-Amz-Expires=3600", {}, NOW + 3600),
        ("https://h/f?X-Goog-Date=20270115T080000Z&X-Goog-Expires=60", {}, NOW + 60),
        ("https://h/f?x-amz-expires=300", {}, NOW + 300),
        (f"https://h/f?Expires={int(NOW) + 5}&Signature=x", {}, NOW + 5),
        ("https://h/f?se=2027-01-15T08%3A00%3A30Z&sig=x", {}, NOW + 30),
        ("https://h/f", {"Cache-Control": "private, max-age=20"}, NOW + 20),
        ("https://h/f", {"Cache-Control": "no-store"}, NOW),
        (f"https://h/f?Expires={int(NOW) + 5}", {"Cache-Control": "no-store, max-age=0"}, NOW + 5),
        ("https://h/f?Expires=never&se=&X-Amz-Expires=-1", {}, float("inf")),
        ("https://h/f", {}, float("inf")),
    ],
)
def test_when_a_link_ends(url: str, headers: dict[str, str], at: float) -> None:
    assert NOW == 1_800_000_000
    assert expiry(url, headers, NOW) in (at, at - 10)


@given(st.text(max_size=80), st.text(max_size=40))
def test_no_redirect_breaks_its_reader(location: str, control: str) -> None:
    assert expiry("https://h/?" + location, {"Cache-Control": control}, NOW) is not None
    try:
        found = target("https://h.example/f", location)
    except BadSource:
        return
    assert found.startswith("https://")
    assert found.isascii()
    assert " " not in found
