"""uvicorn's HTTP/1.1 protocol, corrected in three places: header limits, JSON errors, pipelining clients that leave."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .errors import ApiError, error_body

__all__ = ["BoundedHttp"]

HEADER_BYTES = 64 * 1024
"""Most bytes of request line and headers; the parser itself has no limit."""


class TooManyHeaders(Exception):
    """Ends the parse; the client gets a 400."""


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    def on_message_begin(self) -> None:
        self._header_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > HEADER_BYTES:
            raise TooManyHeaders

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        # With pipelining, `self.cycle` is the request read last, not the one being answered: without this its
        # client's leaving would go unnoticed, and the answer be generated to the end for nobody.
        running = getattr(self, "_running", None)
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        body = error_body(ApiError("the request is not valid HTTP/1.1", "invalid_request_error", None, "bad_request"))
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        if not self.transport.is_closing():
            self.transport.write(head.encode("ascii") + body)
            self.transport.close()
