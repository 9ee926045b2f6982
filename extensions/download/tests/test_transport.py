"""One GET: proxies, certificates, and errors in words."""

from __future__ import annotations

import http.server
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from jan_download.errors import BadSource
from jan_download.transport import Transport, Unreachable

from jan_core.types import DownloadSource

from .conftest import Web, error, redirect, whole


def fetch(url: str, environment: dict[str, str] | None = None, **headers: str) -> bytes:
    transport = Transport(5, 5, environment or {})
    try:
        answer = transport.get(DownloadSource(url, headers=headers), {})
        parts = []
        while part := answer.read(1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        transport.close()


def test_a_proxy_from_the_environment_is_used_with_its_credentials(web: Web) -> None:
    web.on(whole(b"through the proxy"), path="http://far.invalid/f")
    proxy = web.url("").replace("http://", "http://user:pass@")
    assert fetch("http://far.invalid/f", {"http_proxy": proxy}) == b"through the proxy"
    assert web.headers("Proxy-Authorization", "http://far.invalid/f") == ["Basic dXNlcjpwYXNz"]


def test_a_host_in_no_proxy_is_reached_directly(web: Web) -> None:
    web.on(whole(b"direct"))
    assert fetch(web.url(), {"http_proxy": "http://127.0.0.1:1", "no_proxy": "127.0.0.1"}) == b"direct"


def test_a_proxy_that_does_not_answer_is_a_reason_to_wait(web: Web) -> None:
    with pytest.raises(Unreachable):
        fetch("http://far.invalid/f", {"http_proxy": "http://127.0.0.1:1"})


def test_a_socks_proxy_is_refused_by_name(web: Web) -> None:
    with pytest.raises(BadSource, match="socks5://"):
        fetch(web.url(), {"all_proxy": "socks5://127.0.0.1:1080"})


def test_headers_follow_a_redirect_only_within_their_origin(web: Web) -> None:
    web.on(redirect(web.url("/b", host="localhost")), path="/a")
    web.on(redirect(web.url("/c")), path="/b")
    web.on(whole(b"end"), path="/c")
    assert fetch(web.url("/a"), Authorization="secret") == b"end"
    assert [web.headers("Authorization", path)[0] for path in ("/a", "/b", "/c")] == [
        "secret",
        None,
        "secret",
    ]


def test_messages_name_the_host_and_never_the_path_or_query(web: Web) -> None:
    web.on(error(404), path="/f")
    with pytest.raises(Exception) as failed:
        fetch(web.url("/f") + "?token=secret")
    assert "127.0.0.1" in str(failed.value)
    assert "secret" not in str(failed.value)


@pytest.fixture
def self_signed(tmp_path: Path) -> Iterator[str]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            openssl,
            *["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"],
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            key,
            "-out",
            certificate,
        ],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.handle_error = lambda *args: None  # type: ignore[method-assign]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"https://localhost:{server.server_port}/f"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_certificate_that_is_not_trusted_is_not_retried_for_ever(self_signed: str) -> None:
    with pytest.raises(BadSource, match="certificate of localhost is not trusted"):
        fetch(self_signed)


def test_plain_http_spoken_to_a_tls_port_and_back_is_a_reason_and_not_a_crash(web: Web, self_signed: str) -> None:
    for url in (web.url().replace("http:", "https:"), self_signed.replace("https:", "http:")):
        with pytest.raises(Unreachable):
            fetch(url)
