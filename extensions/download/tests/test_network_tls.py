"""TLS: who is trusted, names in their several forms, and what of it a person is told."""

from __future__ import annotations

import gc
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme
from jan_download.errors import BadSource
from jan_download.network import connections, racing
from jan_download.network.errors import Unreachable
from jan_download.network.lines import Lines
from jan_download.network.naming import Address
from jan_download.network.network import Network
from jan_download.network.tls import tls_context
from jan_download.settings import DownloadSettings

from jan_core.types import DownloadSource

from .faultserver import FaultServer

NAMES = ("localhost", "127.0.0.1", "::1", "far.example", "xn--bcher-kva.example")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def other_authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[FaultServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*NAMES).configure_cert(context)
    with FaultServer(tls=context) as one:
        one.serve("/f", b"secure")
        yield one


def fetch(url: str, certificates: object = "") -> bytes:
    network = Network(DownloadSettings(connect_timeout=2, certificates=str(certificates)), {})
    try:
        return network.fetch(DownloadSource(url), 100)
    finally:
        network.close()


def test_a_stranger_is_not_trusted_and_not_retried(secure: FaultServer, other_authority: trustme.CA) -> None:
    with other_authority.cert_pem.tempfile() as other:
        for certificates in ("", other):
            with pytest.raises(BadSource, match="certificate of localhost is not trusted: "):
                fetch(secure.url("/f", "localhost"), certificates)


def test_a_certificate_for_another_name_is_not_trusted(authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(context)
    with authority.cert_pem.tempfile() as ours, FaultServer(tls=context) as elsewhere:
        with pytest.raises(BadSource, match=r"not trusted: .*localhost"):
            fetch(elsewhere.url("/f", "localhost"), ours)


def test_an_authority_of_the_settings_is_trusted_from_a_file_and_from_a_folder(
    secure: FaultServer, authority: trustme.CA, other_authority: trustme.CA, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes("# Größe\n".encode() + other_authority.cert_pem.bytes() + authority.cert_pem.bytes())
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.crt").write_bytes(other_authority.cert_pem.bytes())
    (folder / "b.pem").write_bytes(authority.cert_pem.bytes())
    (folder / "readme.txt").write_text("not a certificate")
    for certificates in (both, folder):
        assert fetch(secure.url("/f"), certificates) == b"secure"


def test_authorities_of_the_environment_are_trusted_as_python_does(
    secure: FaultServer, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    with authority.cert_pem.tempfile() as ours:
        monkeypatch.setenv("SSL_CERT_FILE", ours)
        assert fetch(secure.url("/f")) == b"secure"


BROKEN = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a certificate in PEM form"),
        (b"\x30\x82\x01\x0a" + bytes(90), "not a certificate in PEM form"),
        (BROKEN.encode(), "cannot be read"),
        (BROKEN[:40].encode(), "cannot be read"),
    ],
)
def test_a_broken_certificate_file_is_told_with_its_place(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(content)
    with pytest.raises(BadSource, match=says) as refused:
        tls_context(str(path))
    assert str(path) in refused.value.message
    assert "certificates" in refused.value.message


def test_certificates_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="No such file"):
        tls_context(str(tmp_path / "none.pem"))
    with pytest.raises(BadSource, match="there is no certificate"):
        tls_context(str(tmp_path))


def test_the_systems_authorities_stay_trusted_beside_ones_own(authority: trustme.CA) -> None:
    with authority.cert_pem.tempfile() as ours:
        own, plain = tls_context(ours), ssl.create_default_context()
    assert own.cert_store_stats()["x509_ca"] == plain.cert_store_stats()["x509_ca"] + 1
    assert own.verify_mode is ssl.CERT_REQUIRED
    assert own.check_hostname
    assert own.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_plain_http_is_not_bothered_with_certificates(server: FaultServer, tmp_path: Path) -> None:
    server.serve("/f", b"plain")
    assert fetch(server.url("/f"), tmp_path / "none.pem") == b"plain"


def test_plain_http_spoken_to_a_tls_port_and_back_is_a_reason_and_not_a_crash(
    server: FaultServer, secure: FaultServer
) -> None:
    server.serve("/f", b"")
    network = Network(DownloadSettings(connect_timeout=0.3, stall_timeout=0.3), {})
    for url in (server.url("/f").replace("http:", "https:"), secure.url("/f").replace("https:", "http:")):
        with pytest.raises(Unreachable):
            network.open(DownloadSource(url))
    network.close()


@pytest.mark.parametrize("host", ["far.example.", "FAR.example", "xn--bcher-kva.example"])
def test_names_are_looked_up_as_they_are_and_checked_as_certificates_have_them(
    secure: FaultServer, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    asked: list[str] = []

    def look_up(name: str, port: int, *_: Any) -> list[Any]:
        asked.append(name)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with authority.cert_pem.tempfile() as ours:
        assert fetch(secure.url("/f", host), ours) == b"secure"
    assert asked == [host.lower()]
    assert secure.headers("Host") == [f"{host.lower().rstrip('.')}:{secure.port}"]


def test_ipv6_literals_are_understood(authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*NAMES).configure_cert(context)
    with socket.socket(socket.AF_INET6) as listening, authority.cert_pem.tempfile() as ours:
        try:
            listening.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        listening.listen()
        port = listening.getsockname()[1]

        def serve() -> None:
            with listening.accept()[0] as raw, context.wrap_socket(raw, server_side=True) as one:
                one.recv(10_000)
                one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nsix")

        thread = threading.Thread(target=serve)
        thread.start()
        assert fetch(f"https://[::1]:{port}/f", ours) == b"six"
        thread.join()


def test_a_server_that_is_gone_before_the_handshake_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)

        def connect_and_be_reset(addresses: Sequence[Address], timeout: float, lines: Lines) -> socket.socket:
            made = racing.connect(addresses, timeout, lines)
            peer, _ = listening.accept()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            return made

        monkeypatch.setattr(connections, "connect", connect_and_be_reset)
        with pytest.raises(Unreachable, match="the connection broke"):
            fetch(f"https://127.0.0.1:{listening.getsockname()[1]}/f")
    gc.collect()  # what is left open is told then
