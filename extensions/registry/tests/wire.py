"""A server on loopback that answers with any bytes at any speed: what no real server would do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

__all__ = ["Wire", "answer", "wire"]

Reply = Callable[[socket.socket, str], None]


def answer(status: str, body: bytes = b"", **headers: object) -> bytes:
    """A whole HTTP answer. `Content_Length` is the body's unless it is given; None leaves it out."""
    fields = {"Content-Length": len(body)} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body


class Wire:
    """Calls `reply(connection, path)` for each request, in a thread of its own. `gone` is set when the test ends."""

    def __init__(self) -> None:
        self.reply: Reply = lambda connection, path: connection.sendall(answer("404 Not Found"))
        self.gone = threading.Event()
        self.requests: list[str] = []
        self.methods: list[str] = []
        self.sent = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._open: set[socket.socket] = set()
        self._threads[0].start()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def trickle(self, connection: socket.socket, piece: bytes, pause: float) -> None:
        """Send it again and again until the other side has had enough."""
        while not self.gone.wait(pause):
            connection.sendall(piece)
            self.sent += len(piece)

    def stop(self) -> None:
        self.gone.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        self._open.add(connection)
        with connection, suppress(OSError):
            buffer = b""
            while not self.gone.is_set():
                while b"\r\n\r\n" not in buffer:
                    received = connection.recv(65536)
                    if not received:
                        return
                    buffer += received
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                method, path = head.split(b" ")[:2]
                self.methods.append(method.decode())
                self.requests.append(path.decode())
                self.reply(connection, path.decode())
        self._open.discard(connection)


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.stop()
