"""Which addresses a remote engine may have, and the way there: TLS, proxies, names."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jan_core import RpcError

from ..endpoint import Endpoint, reply, streamed, text_chunks
from .asking import KEY, add, ask

pytestmark = pytest.mark.anyio


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def authority() -> Any:
    import trustme

    return trustme.CA()


@pytest.fixture
async def secure(authority: Any) -> AsyncIterator[Endpoint]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    async with Endpoint().serving(context) as endpoint:
        endpoint.answers = [streamed(text_chunks("in private"))]
        yield endpoint


async def test_a_certificate_nobody_vouches_for_is_refused_and_nothing_is_sent(client: Any, secure: Endpoint) -> None:
    await add(client, secure, key=KEY)
    with pytest.raises(RpcError) as caught:
        await ask(client)
    assert (caught.value.type, caught.value.data["reason"]) == ("remote_unreachable", "tls")
    assert secure.asked == []


async def test_a_configured_authority_is_trusted(client: Any, secure: Endpoint, authority: Any, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    await add(client, secure, key=KEY, ca_file=str(ca_file))
    assert (await ask(client)).choices[0].message.content == "in private"
    by_name = secure.base_url.replace("127.0.0.1", "localhost")
    await add(client, secure, key=KEY, ca_file=str(ca_file), base_url=by_name)
    assert (await ask(client)).choices[0].message.content == "in private"
    assert secure.asked[-1].headers["host"] == f"localhost:{secure.port}"


async def test_a_certificate_for_another_name_is_refused(client: Any, authority: Any, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    async with Endpoint().serving(context) as endpoint:
        await add(client, endpoint, ca_file=str(ca_file))
        with pytest.raises(RpcError) as caught:
            await ask(client)
    assert (caught.value.data["reason"], endpoint.asked) == ("tls", [])


@pytest.mark.parametrize("ca_file", ["relative.pem", "/nowhere/ca.pem"])
async def test_a_ca_file_that_cannot_be_used_is_said(client: Any, secure: Endpoint, ca_file: str) -> None:
    await add(client, secure, ca_file=ca_file)
    with pytest.raises(RpcError) as caught:
        await ask(client)
    assert caught.value.type == "invalid_params"


async def test_no_proxy_certificate_or_password_of_the_environment_is_used(
    client: Any, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password theirs\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    endpoint.answers = [streamed(text_chunks("direct"))]
    await add(client, endpoint)
    assert (await ask(client)).choices[0].message.content == "direct"
    assert "authorization" not in endpoint.asked[0].headers


async def test_a_configured_proxy_is_used_for_tls(client: Any, endpoint: Endpoint) -> None:
    endpoint.answers = [reply("407 Proxy Authentication Required")]
    remote = {"base_url": "https://api.invalid/v1", "proxy": f"http://127.0.0.1:{endpoint.port}", "retries": 0}
    await add(client, endpoint, key=KEY, **remote)
    with pytest.raises(RpcError) as caught:
        await ask(client)
    assert caught.value.type == "remote_unreachable"
    [request] = endpoint.asked
    assert (request.method, request.path) == ("CONNECT", "api.invalid:443")
    assert "authorization" not in request.headers


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "base_url",
    [
        "http://api.example.com/v1",
        "http://192.168.0.7/v1",
        "http://127.1/v1",
        "http://2130706433/v1",
        "http://0x7f.1/v1",
        "http://0.0.0.0/v1",
        "http://[::ffff:127.0.0.1]/v1",
        "http://localhost.example.com/v1",
        "http://localhost./v1",
        "http://127.0.0.1@evil.example/v1",
        "http://127.0.0.1\\@evil.example/v1",
        "https://user:secret@api.example.com/v1",
        "https://api.example.com/v1?key=secret",
        "https://api.example.com/v1#x",
        "https://api.example.com:99999/v1",
        "https://b\u00fccher.example/v1",
        "https:///v1",
        "ftp://127.0.0.1/v1",
        "file:///etc/passwd",
        "127.0.0.1:8080",
        "https://api.example.com/ v1",
        "https://api.example.com/\nv1",
        "",
    ],
)
async def test_an_address_that_is_not_safe_is_refused_when_it_is_given(client: Any, base_url: str) -> None:
    for values in ({"base_url": base_url}, {"base_url": "https://127.0.0.1/v1", "proxy": base_url or "x"}):
        if "proxy" in values and base_url.startswith("http://") and "@" not in base_url and "\\" not in base_url:
            continue  # a proxy only sees TLS records: plain http will do
        with pytest.raises(RpcError) as caught:
            await client.call("remotes.add", {"remote": {"id": "there", **values}})
        assert caught.value.type == "invalid_params"
        changes = {"remotes": [{"id": "there", **values}]}
        with pytest.raises(RpcError) as caught:
            await client.call("settings.set", {"extension": "llamacpp", "values": changes})
        assert caught.value.type == "invalid_params"
    assert (await client.call("remotes.list"))["remotes"] == []


async def test_localhost_is_this_machine_without_a_lookup(
    client: Any, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    looked_up: list[Any] = []
    real = socket.getaddrinfo

    def spy(host: Any, *args: Any, **kwargs: Any) -> Any:
        looked_up.append(host)
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", spy)
    async with Endpoint().serving(host="::1") as six:
        for serving in (endpoint, six):
            serving.answers = [streamed(text_chunks("here"))]
            await add(client, serving, base_url=f"http://localhost:{serving.port}/v1")
            assert (await ask(client)).choices[0].message.content == "here"
            assert serving.asked[-1].headers["host"] == f"localhost:{serving.port}"
    assert {"localhost"}.isdisjoint(looked_up)
