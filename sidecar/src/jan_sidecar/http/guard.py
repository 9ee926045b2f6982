"""The gate before every route: pure ASGI middleware that enforces `access.py`. It reads headers only, never bodies.

The order matters: who is asked (Host) and who asks (Origin, Sec-Fetch-Site) come first, so that a web page that must
not be here learns nothing, not even whether a key is needed; then CORS preflights, which cannot carry a key; then the
key; then the form of the request. `/health` and `/ready` need no key: they say nothing but whether this process works.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .access import Access
from .errors import ApiError, Refusal, error_body, error_response

__all__ = ["Guard"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("jan_sidecar.http")
OPEN_PATHS = frozenset({"/health", "/ready"})
_TOKENS = re.compile(rb"^[A-Za-z0-9_-]+(\s*,\s*[A-Za-z0-9_-]+)*$")


class Headers:
    """The request's headers by lower-case name. `one` refuses repetition, which others might read differently."""

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    def one(self, name: bytes) -> str | None:
        values = [value for key, value in self._raw if key == name]
        if len(values) > 1:
            raise Refusal(400, "invalid_header", f"more than one {name.decode()} header")
        return values[0].decode("latin-1").strip() if values else None


class Guard:
    """Wraps the application. Also the last resort for defects: they are logged with an id and answered as JSON."""

    def __init__(self, app: App, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # no lifespan, no WebSockets: the server is configured without them
            raise RuntimeError(f"unexpected scope {scope['type']}")
        started = time.monotonic()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *self._answer_headers(scope)]
            await send(message)

        try:
            headers = Headers(scope["headers"])
            self._check_party(headers)
            if scope["method"] == "OPTIONS" and (preflight := self._preflight(scope, headers)):
                await watched({"type": "http.response.start", "status": 204, "headers": preflight})
                await watched({"type": "http.response.body", "body": b""})
                return
            self._check_key(scope["path"], headers)
            self._check_form(scope["method"], headers)
            await self._app(scope, receive, watched)
        except Refusal as refusal:
            await error_response(refusal)(scope, receive, watched)
        except Exception:
            error_id = uuid.uuid4().hex[:12]
            log.exception("defect while serving %s %r, error id %s", scope["method"], scope["path"], error_id)
            if not status:
                error = ApiError(
                    f"internal error (error id {error_id}, see the log)",
                    "server_error",
                    None,
                    "internal_error",
                )
                await watched(
                    {
                        "type": "http.response.start",
                        "status": 500,
                        "headers": [(b"content-type", b"application/json")],
                    }
                )
                await watched({"type": "http.response.body", "body": error_body(error)})
        finally:
            log.info("%s %r %d %.1f ms", scope["method"], scope["path"], status, (time.monotonic() - started) * 1e3)

    def _check_party(self, headers: Headers) -> None:
        host = headers.one(b"host")
        if not host:
            raise Refusal(400, "missing_host", "the Host header is missing")
        if host.lower() not in self._access.hosts:
            raise Refusal(421, "wrong_host", "this server does not serve that host name")
        origin = headers.one(b"origin")
        if origin is not None and not self._access.origin_allowed(origin.lower()):
            raise Refusal(403, "origin_not_allowed", "requests from that origin are not allowed")
        if origin is None and headers.one(b"sec-fetch-site") not in (None, "none", "same-origin"):
            raise Refusal(403, "cross_site", "requests from other sites are not allowed")

    def _preflight(self, scope: Scope, headers: Headers) -> list[tuple[bytes, bytes]] | None:
        origin = headers.one(b"origin")
        if origin is None or origin.lower() not in self._access.cors:
            return None
        if headers.one(b"access-control-request-method") is None:
            return None
        answer = [(b"access-control-allow-methods", b"GET, POST"), (b"access-control-max-age", b"600")]
        wanted = (headers.one(b"access-control-request-headers") or "").encode("latin-1")
        if _TOKENS.match(wanted):  # names only; the origin is trusted by exact name, and no cookie is ever involved
            answer.append((b"access-control-allow-headers", wanted))
        if headers.one(b"access-control-request-private-network") == "true":
            answer.append((b"access-control-allow-private-network", b"true"))
        return answer

    def _check_key(self, path: str, headers: Headers) -> None:
        if not self._access.keys or path in OPEN_PATHS:
            return
        scheme, _, key = (headers.one(b"authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not self._access.keys.accept(key.strip()):
            message = "a valid API key is needed: Authorization: Bearer KEY"
            raise Refusal(401, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"})

    def _check_form(self, method: str, headers: Headers) -> None:
        if method != "POST":  # the router knows no other method that changes anything
            return
        kind, _, parameters = (headers.one(b"content-type") or "").partition(";")
        if kind.strip().lower() != "application/json":  # the types a form can send need no preflight
            raise Refusal(415, "unsupported_media_type", "the body must be application/json")
        if "charset" in parameters.lower() and "utf-8" not in parameters.lower():
            raise Refusal(415, "unsupported_media_type", "the body must be in UTF-8")
        if (headers.one(b"content-encoding") or "identity").lower() != "identity":
            raise Refusal(415, "unsupported_encoding", "the body must not be compressed")

    def _answer_headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        answer = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
        if self._access.cors:
            answer.append((b"vary", b"Origin"))
            for name, value in scope["headers"]:
                if name == b"origin" and value.decode("latin-1").strip().lower() in self._access.cors:
                    answer.append((b"access-control-allow-origin", value.strip()))
        return answer
