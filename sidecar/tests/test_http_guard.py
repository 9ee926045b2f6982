"""Who may speak to the local API: one test for each rule, on real sockets, with requests no polite client sends."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jan_sidecar.http.access import AccessError, Keys, allowed_hosts, allowed_origins, read_keys
from jan_sidecar.http.server import ServeError

from .conftest import Api, ServeApi
from .scripted import MODEL

CHAT = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "say hi"}]})
ROUTES = ["/health", "/ready", "/v1/models", f"/v1/models/{MODEL}", "/v1/chat/completions", "/nowhere"]
KEY = "a-key-of-more-than-sixteen"


class Answer:
    """A response as it came over the wire."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}

    @property
    def code(self) -> str:
        """The code of OpenAI's error object; every error must have the whole object."""
        assert self.headers["content-type"] == "application/json"
        error = json.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        return str(error["code"])


def exchange(api: Api, data: bytes) -> Answer:
    """Send bytes, read until the server closes."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as sock:
        sock.sendall(data)
        received = b""
        while part := sock.recv(65536):
            received += part
    return Answer(received)


def send(
    api: Api,
    method: str,
    path: str,
    headers: list[tuple[str, str]] | None = None,
    body: str = "",
    *,
    host: str | None = "",
) -> Answer:
    """One request; `host` None leaves the Host header out."""
    lines = [f"{method} {path} HTTP/1.1", "Connection: close"]
    if host is not None:
        lines.append(f"Host: {host or f'127.0.0.1:{api.port}'}")
    lines += [f"{name}: {value}" for name, value in headers or []]
    if body:
        lines.append(f"Content-Length: {len(body.encode())}")
    return exchange(api, "\r\n".join([*lines, "", body]).encode())


JSON = ("Content-Type", "application/json")


def test_a_native_client_is_served(api: Api) -> None:
    assert send(api, "GET", "/v1/models").status == 200
    assert send(api, "POST", "/v1/chat/completions", [JSON], CHAT).status == 200
    assert send(api, "GET", "/health", host=f"LOCALHOST:{api.port}").status == 200
    assert send(api, "GET", "/health", host=f"[::1]:{api.port}").status == 200


@pytest.mark.parametrize("path", ROUTES)
def test_a_rebound_name_is_refused_on_every_route(api: Api, path: str) -> None:
    for host in (
        f"evil.example:{api.port}",
        f"localhost.evil.example:{api.port}",
        f"0.0.0.0:{api.port}",
        f"127.0.0.1.evil.example:{api.port}",
        f"user@127.0.0.1:{api.port}",
        "127.0.0.1",
        f"127.0.0.1:{api.port + 1}",
        f"192.168.1.10:{api.port}",
        f"printer.local:{api.port}",
        f"[::ffff:127.0.0.1]:{api.port}",
    ):
        answer = send(api, "GET", path, host=host)
        assert (answer.status, answer.code) == (421, "wrong_host"), host


def test_no_host_or_two_are_refused(api: Api) -> None:
    assert send(api, "GET", "/v1/models", host=None).code == "missing_host"
    twice = send(api, "GET", "/v1/models", [("Host", "evil.example")])
    assert (twice.status, twice.code) == (400, "invalid_header")
    old = exchange(api, b"GET /v1/models HTTP/1.0\r\n\r\n")
    assert (old.status, old.code) == (400, "missing_host")


def test_an_absolute_target_does_not_get_around_the_host_rule(api: Api) -> None:
    answer = send(api, "GET", f"http://127.0.0.1:{api.port}/v1/models", host="evil.example")
    assert answer.status == 421


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1", "file://"]
)
def test_a_web_page_is_refused_on_every_route(api: Api, path: str, origin: str) -> None:
    answer = send(api, "GET", path, [("Origin", origin)])
    assert (answer.status, answer.code) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in answer.headers


def test_a_post_without_preflight_is_refused_though_its_host_is_right(api: Api) -> None:
    cross = send(
        api, "POST", "/v1/chat/completions", [("Origin", "https://evil.example"), ("Content-Type", "text/plain")], CHAT
    )
    assert cross.status == 403
    assert api.engine.requests == []


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "application/jsonp"],
)
def test_only_json_is_read(api: Api, kind: str) -> None:
    headers = [("Content-Type", kind)] if kind else []
    answer = send(api, "POST", "/v1/chat/completions", headers, CHAT)
    assert (answer.status, answer.code) == (415, "unsupported_media_type")
    assert api.engine.requests == []


def test_json_may_name_its_charset_but_only_utf_8(api: Api) -> None:
    good = [("Content-Type", "application/json; charset=UTF-8")]
    assert send(api, "POST", "/v1/chat/completions", good, CHAT).status == 200
    bad = [("Content-Type", "application/json; charset=utf-16")]
    assert send(api, "POST", "/v1/chat/completions", bad, CHAT).status == 415
    packed = [JSON, ("Content-Encoding", "gzip")]
    assert send(api, "POST", "/v1/chat/completions", packed, CHAT).code == "unsupported_encoding"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_that_sends_no_origin_is_known_by_sec_fetch_site(api: Api, site: str) -> None:
    answer = send(api, "GET", "/v1/models", [("Sec-Fetch-Site", site)])
    assert (answer.status, answer.code) == (403, "cross_site")
    assert send(api, "GET", "/v1/models", [("Sec-Fetch-Site", "none")]).status == 200


def test_a_tauri_window_is_served_but_no_cors_is_granted(api: Api) -> None:
    headers = [("Origin", "tauri://localhost"), ("Sec-Fetch-Site", "cross-site"), JSON]
    answer = send(api, "POST", "/v1/chat/completions", headers, CHAT)
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = send(
        api, "OPTIONS", "/v1/models", [("Origin", "tauri://localhost"), ("Access-Control-Request-Method", "GET")]
    )
    assert preflight.status == 405


def test_cors_is_for_the_configured_origin_exactly(serve_api: ServeApi) -> None:
    with serve_api(cors_origins=["http://localhost:3000"]) as api:
        good = [("Origin", "http://localhost:3000")]
        answer = send(api, "GET", "/v1/models", good)
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers
        asked = [
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "authorization, content-type"),
        ]
        preflight = send(api, "OPTIONS", "/v1/chat/completions", [*good, *asked])
        assert preflight.status == 204
        assert preflight.headers["access-control-allow-headers"] == "authorization, content-type"
        for origin in ("http://localhost:3001", "http://localhost:3000.evil.example", "https://localhost:3000"):
            assert send(api, "OPTIONS", "/v1/models", [("Origin", origin), *asked]).status == 403
        error = send(api, "POST", "/v1/chat/completions", [*good, JSON], "{")
        assert error.status == 400
        assert error.headers["access-control-allow-origin"] == "http://localhost:3000"


def test_two_origins_are_refused(api: Api) -> None:
    answer = send(api, "GET", "/v1/models", [("Origin", "tauri://localhost"), ("Origin", "https://evil.example")])
    assert answer.status == 400


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"# two keys\n\n{KEY}\nanother-key-just-as-long\n")
    path.chmod(0o600)
    return path


def test_without_the_key_nothing_but_liveness_is_told(serve_api: ServeApi, key_file: Path) -> None:
    with serve_api(api_key_file=key_file) as api:
        assert api.listening.warnings == []
        for path in ("/v1/models", f"/v1/models/{MODEL}", "/nowhere", "/v1/chat/completions"):
            for headers in (
                [],
                [("Authorization", f"Bearer {KEY}x")],
                [("Authorization", f"Basic {KEY}")],
                [("X-Api-Key", KEY)],
            ):
                answer = send(api, "GET", path, headers)
                assert (answer.status, answer.code) == (401, "invalid_api_key")
                assert answer.headers["www-authenticate"] == "Bearer"
        for key in (KEY, "another-key-just-as-long"):
            assert send(api, "GET", "/v1/models", [("Authorization", f"Bearer {key}")]).status == 200
        assert send(api, "GET", "/health").status == 200
        assert send(api, "GET", "/ready").status == 200
        # A key does not replace the other rules.
        assert send(api, "GET", "/v1/models", [("Authorization", f"Bearer {KEY}")], host="evil.example").status == 421


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_beyond_this_machine_a_key_is_needed(serve_api: ServeApi, host: str) -> None:
    with pytest.raises((AccessError, ServeError)):
        with serve_api(host=host or socket.gethostname() + ".invalid"):
            pass


def test_bound_to_every_address_the_host_list_stays_exact(serve_api: ServeApi, key_file: Path) -> None:
    with serve_api(host="0.0.0.0", api_key_file=key_file, allowed_hosts=["models.example.lan"]) as api:
        authorization = [("Authorization", f"Bearer {KEY}")]
        for host in ("127.0.0.1", "localhost", "models.example.lan"):
            assert send(api, "GET", "/v1/models", authorization, host=f"{host}:{api.port}").status == 200
        assert send(api, "GET", "/v1/models", authorization, host="models.example.lan").status == 200
        for host in (f"0.0.0.0:{api.port}", f"192.168.1.10:{api.port}", f"evil.example:{api.port}"):
            assert send(api, "GET", "/v1/models", authorization, host=host).status == 421


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no key"),
        ("# only this\n", "no key"),
        ("short\n", "at least"),
        ("a key with spaces in it\n", "at least"),
        ("ä" * 20, "ASCII"),
    ],
)
def test_a_key_file_that_protects_nothing_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(AccessError, match=reason):
        read_keys(path)
    with pytest.raises(AccessError, match="cannot read"):
        read_keys(tmp_path / "none")


def test_a_key_file_that_others_can_read_is_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(KEY)
    path.chmod(0o644)
    keys, warnings = read_keys(path)
    assert keys
    assert "chmod 600" in warnings[0]


def test_every_key_is_compared_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    calls: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def counted(a: bytes, b: bytes) -> bool:
        calls.append((a, b))
        return real(a, b)

    monkeypatch.setattr("jan_sidecar.http.access.hmac.compare_digest", counted)
    keys = Keys(["first-key-aaaaaaaaaa", "second-key-bbbbbbbbb"])
    assert keys.accept("first-key-aaaaaaaaaa")
    assert len(calls) == 2
    assert all(len(a) == len(b) == 32 for a, b in calls)


# -- sizes and shapes --------------------------------------------------------------------------------------------------


def test_a_body_over_the_limit_is_refused_before_it_is_read(serve_api: ServeApi) -> None:
    with serve_api(body_limit=1000) as api:
        answer = exchange(
            api,
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nConnection: close\r\n"
            "Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n".encode(),
        )
        assert (answer.status, answer.code) == (413, "body_too_large")


def test_a_chunked_body_is_refused_as_soon_as_it_is_over_the_limit(serve_api: ServeApi) -> None:
    with serve_api(body_limit=1000) as api:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nConnection: close\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        # The last chunk never comes: the answer must not wait for it.
        answer = exchange(api, head.encode() + b"400\r\n" + b" " * 0x400 + b"\r\n")
        assert (answer.status, answer.code) == (413, "body_too_large")


def test_endless_headers_end_the_connection(api: Api) -> None:
    answer = exchange(
        api, b"GET /health HTTP/1.1\r\n" + b"".join(b"x-%d: %s\r\n" % (n, b"y" * 1000) for n in range(100))
    )
    assert (answer.status, answer.code) == (400, "bad_request")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ("[]", "invalid_value"),
        ("nul", "invalid_json"),
        ('{"messages": []}', "invalid_value"),
        ('{"messages": [{"role": "user", "content": 5}]}', "invalid_value"),
        ("[" * 5000, "invalid_value"),
        ('{"messages": ' + "[" * 5000, "invalid_json"),
        ('{"stop": ' * 5000, "invalid_value"),
        ("\\ud800", "invalid_json"),
    ],
)
def test_bodies_that_do_not_fit_are_refused_as_such(api: Api, body: str, code: str) -> None:
    answer = send(api, "POST", "/v1/chat/completions", [JSON], body)
    assert answer.status == 400
    assert answer.code in ("invalid_json", "invalid_value")
    if code == "invalid_json":
        assert answer.code in (code, "invalid_value")
    assert api.engine.requests == []


def test_what_is_not_http_gets_json_too(api: Api) -> None:
    answer = exchange(api, b"\x16\x03\x01\x02\x00 hello\r\n\r\n")
    assert (answer.status, answer.code) == (400, "bad_request")


# -- the surface -------------------------------------------------------------------------------------------------------


def test_unknown_paths_and_methods_get_openais_errors(api: Api) -> None:
    missing = send(api, "GET", "/v1/files")
    assert (missing.status, missing.code) == (404, "unknown_path")
    wrong = send(api, "DELETE", f"/v1/models/{MODEL}")
    assert (wrong.status, wrong.code) == (405, "method_not_allowed")
    assert "GET" in wrong.headers["allow"]
    assert send(api, "GET", "/v1/chat/completions").status == 405
    assert send(api, "GET", "/v1/models/").code == "model_not_found"


def test_the_surface_is_this_list_and_nothing_else() -> None:
    from jan_sidecar.http.routes import Api as Handlers

    surface = {
        (method, route.path)
        for route in Handlers(None, None, None).routes()  # type: ignore[arg-type]
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert surface == {
        ("GET", "/health"),
        ("GET", "/ready"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/{id:path}"),
        ("POST", "/v1/models/{id:path}/load"),
        ("POST", "/v1/models/{id:path}/unload"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
    }


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/../../etc/passwd",
        "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/v1/models/%00",
        "/v1/app/readFileSync",
    ],
)
def test_no_path_reaches_the_file_system(api: Api, path: str) -> None:
    assert send(api, "GET", path).status == 404
    assert send(api, "POST", f"{path}/load", [JSON], "{}").status in (404, 405)


def test_nothing_of_the_file_system_is_told(api: Api) -> None:
    for path in ("/v1/models", f"/v1/models/{MODEL}"):
        assert b"/secret" not in send(api, "GET", path).body


def test_models_are_loaded_and_unloaded_by_request(api: Api) -> None:
    loaded = send(api, "POST", f"/v1/models/{MODEL}/load", [JSON], "{}")
    assert (loaded.status, json.loads(loaded.body)["state"]) == (200, "loaded")
    unloaded = send(api, "POST", f"/v1/models/{MODEL}/unload", [JSON], "{}")
    assert json.loads(unloaded.body)["state"] == "available"
    assert send(api, "POST", "/v1/models/nope/load", [JSON], "{}").code == "model_not_found"


# -- the lists themselves ----------------------------------------------------------------------------------------------


@given(st.text(max_size=40))
def test_whatever_is_configured_as_a_host_is_taken_exactly_or_refused(name: str) -> None:
    try:
        hosts = allowed_hosts(1337, [], [name])
    except AccessError:
        return
    assert hosts - allowed_hosts(1337) <= {name.strip().lower(), f"{name.strip().lower()}:1337"}
    assert not any("*" in host for host in hosts)


@given(st.text(max_size=40))
def test_whatever_is_configured_as_an_origin_is_taken_exactly_or_refused(text: str) -> None:
    try:
        origins = allowed_origins([text])
    except AccessError:
        return
    assert origins == {text.strip().lower()}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(
        ["Host", "Origin", "Sec-Fetch-Site", "Content-Type", "Authorization", "Content-Length", "X-Y"]
    ),
    value=st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=30),
)
def test_no_header_makes_the_server_fail(api: Api, name: str, value: str) -> None:
    answer = exchange(
        api,
        f"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nConnection: close\r\n{name}: {value}\r\n\r\n".encode(
            "latin-1"
        ),
    )
    assert answer.status < 500


def test_configured_names_with_wildcards_are_refused() -> None:
    refused: list[Callable[[], Any]] = [
        lambda: allowed_hosts(1, [], ["*"]),
        lambda: allowed_hosts(1, [], ["*.example"]),
        lambda: allowed_origins(["*"]),
        lambda: allowed_origins(["http://*.example"]),
        lambda: allowed_origins(["http://example/path"]),
        lambda: allowed_origins(["null"]),
    ]
    for attempt in refused:
        with pytest.raises(AccessError):
            attempt()


def test_a_path_cannot_forge_a_line_of_the_log(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "jan_sidecar.http"):
        assert send(api, "GET", "/health%0a2026-01-01%20forged").status == 404
    [line] = [record.getMessage() for record in caplog.records if "forged" in record.getMessage()]
    assert "\n" not in line
