"""A web server that is as bad as a test needs it to be: real HTTP/1.1 on loopback, and every fault by name.

    from .faults import Drop, Flip, Status
    from .faultserver import FaultServer

    with FaultServer() as server:                                # fixture `server`; `serve_more()` makes others
        url = server.serve("/model.gguf", data, Drop(at=1_000_000).only(0), Flip(77).since(3))
        ...                                                      # download it
        server.wait_requests(2)                                  # no sleeps: every wait ends with an event, or fails
        assert server.sent("/model.gguf") <= len(data) + 100_000
        assert [seen.range for seen in server.requests] == [(0, 8388607), (8388608, None)]

Without faults it behaves: GET and HEAD, keep-alive, `Range: bytes=a-b`, `a-` and `-n` (one range), `If-Range` by strong
comparison, 416, `ETag`, `Accept-Ranges`, `Date`; `Last-Modified` where `modified` is given. One thread per connection;
a body goes out in blocks of 1 MiB right from memory (or from a file, `serve(path, Path(...))`), so it is not what makes
a download slow: over 1 GB/s. `rate` (bytes/s, of all connections together), `connection_rate` (of each) and the fault
`Trickle` slow it down, evenly.

What it keeps: `requests`, each a `Seen` with its headers (names in lower case), its range, the number of its
connection, how many bytes of body it got and how it ended; `sent(path)`, `connections`, `most_connections`.
A byte counts as sent when the kernel has it: what a client did not read before it went is counted too, and on loopback
that may be megabytes. With `buffer` (bytes that the kernel may keep for a connection; the fixtures set 64 KiB) it is a
few hundred kB. A test that counts closely lets the server drop, or sets a rate.

What can be done to it meanwhile: `serve` again (other content, other faults), `faults(path, ...)` (only these),
`release()` (all that `Hold` and `SlowHead` hold; later ones are not held either), `cut()` (all connections break),
`refuse()` and `accept()` (nobody listens on the port, and somebody does again), `link()` and `expire()` (signed
addresses with an end, as CDNs have them). A second FaultServer is another host: its port differs, and on Linux
`host="127.0.0.2"` gives it an address of its own. `tls`: an `ssl.SSLContext` to speak HTTPS with.

It is NOT a model of slow networks (no latency, no loss below TCP), and nothing of it is for use outside of tests.
"""

from __future__ import annotations

import mmap
import random
import re
import selectors
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from http.client import responses
from pathlib import Path
from typing import Self

from jan_download.network.tls import TLSSocket

from .faultparts import BLOCK, Asked, Fault, Pace, Reply, Resource, Seen, first_of, honest

__all__ = ["PATIENCE", "FaultServer", "Seen"]

PATIENCE = 20.0
"""Seconds after which something that a test waits for will not come any more."""
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class _Left(Exception):
    """The client is gone, or the server closes."""


class FaultServer:
    """Listens from the beginning; see the top of this file."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        *,
        rate: int = 0,
        connection_rate: int = 0,
        buffer: int = 0,
        seed: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.seed, self.pace, self.connection_rate, self.buffer = seed, Pace(rate), connection_rate, buffer
        self.requests: list[Seen] = []
        self.connections = self.most_connections = self.connected = 0
        self._tls = tls
        if tls is not None:
            tls.sslsocket_class = TLSSocket
        self._changed = threading.Condition()
        self._resources: dict[str, tuple[Resource, tuple[Fault, ...]]] = {}
        self._links: dict[str, list[float]] = {}
        self._counts: Counter[str] = Counter()
        self._sockets: dict[int, socket.socket] = {}
        self._closing = threading.Event()
        self._wake, self._waker = socket.socketpair()
        self._threads: list[threading.Thread] = []
        self._listening = self._socket((host, 0))
        self.host, self.port = self._listening.getsockname()[:2]
        self._accepter: threading.Thread | None = None
        self.accept()

    # -- what is served ---------------------------------

    def serve(
        self,
        path: str,
        content: bytes | Path,
        *faults: Fault,
        etag: str = '"v1"',
        modified: str = "",
        signed: bool = False,
    ) -> str:
        """Serve `content` under `path` with these faults, in place of what was there. Returns the URL."""
        view = memoryview(content) if isinstance(content, bytes) else _mapped(content)
        with self._changed:
            self._resources[path] = (Resource(view, etag, modified, signed=signed), faults)
        return self.url(path)

    def faults(self, path: str, *faults: Fault) -> None:
        """From now on these faults and no others."""
        with self._changed:
            self._resources[path] = (self._resources[path][0], faults)

    def url(self, path: str, host: str = "") -> str:
        """`host`: another name of this machine, such as `localhost`."""
        return f"{'https' if self._tls else 'http'}://{host or self.host}:{self.port}{path}"

    def link(self, path: str, *, uses: int = 1 << 30, seconds: float = 1e9, host: str = "") -> str:
        """An address of a `signed` path, good for so many requests and so long; then the answer is 403."""
        with self._changed:
            signature = f"{len(self._links)}-{random.Random(f'{self.seed}{len(self._links)}').getrandbits(64):x}"
            self._links[signature] = [uses, time.monotonic() + seconds]
        return self.url(f"{path}?signature={signature}", host)

    def expire(self) -> None:
        """No link that was made before this call is good any more."""
        with self._changed:
            self._links = {signature: [0, 0.0] for signature in self._links}

    # -- what happens to it -----------------------------

    def release(self) -> None:
        """Let what is held go on, and hold nothing any more."""
        self._waker.send(b".")

    def cut(self) -> None:
        """Break every connection there is."""
        with self._changed:
            open_now = list(self._sockets.values())
        for one in open_now:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """Nobody listens any more, and every connection breaks; the port stays this server's."""
        accepter, self._accepter = self._accepter, None
        if accepter is None:
            return
        with suppress(OSError):
            socket.create_connection((self.host, self.port), PATIENCE).close()  # wakes `accept`, on every platform
        accepter.join()
        self._listening.close()
        self._listening = self._socket((self.host, self.port))  # bound and not listening: a connection is refused
        self.cut()

    def accept(self) -> None:
        """Listen, again on the same port."""
        self._listening.listen(128)
        self._accepter = threading.Thread(target=self._accept, name=f"fault server {self.port}", daemon=True)
        self._accepter.start()

    def close(self) -> None:
        self._closing.set()
        self.release()
        self.refuse()
        self._listening.close()
        self.cut()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._wake.close()
        self._waker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what is known of it ----------------------------

    def seen(self, path: str = "") -> list[Seen]:
        """The requests for a path, or all, in the order in which they came."""
        with self._changed:
            return [seen for seen in self.requests if path in ("", seen.path)]

    def sent(self, path: str = "") -> int:
        """Bytes of bodies that went out."""
        return sum(seen.sent for seen in self.seen(path))

    def headers(self, name: str, path: str = "") -> list[str | None]:
        """The values of a header field in the requests."""
        return [seen.headers.get(name.lower()) for seen in self.seen(path)]

    def wait(self, true: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
        """Return when `true()` is, looked at whenever something happens here. Raises AssertionError."""
        with self._changed:
            assert self._changed.wait_for(true, timeout), f"{what} did not happen: {self.requests[-5:]}"

    def wait_requests(self, count: int, path: str = "") -> None:
        self.wait(lambda: len(self.seen(path)) >= count, f"{count} requests for {path or 'anything'}")

    def wait_sent(self, count: int, path: str = "") -> None:
        self.wait(lambda: self.sent(path) >= count, f"{count} bytes of {path or 'anything'}")

    def wait_held(self, count: int = 1, path: str = "") -> None:
        """Until so many answers are held at once."""
        self.wait(lambda: sum(seen.held for seen in self.seen(path)) >= count, f"{count} held answers")

    def wait_idle(self) -> None:
        """Until no answer is under way."""
        self.wait(lambda: all(seen.how != "open" for seen in self.seen()), "the end of all answers")

    # -- connections ------------------------------------

    def _socket(self, address: tuple[str, int]) -> socket.socket:
        bound = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        return bound

    def _accept(self) -> None:
        while True:
            with suppress(OSError):
                one, _ = self._listening.accept()
                if self._accepter is not threading.current_thread():
                    one.close()
                    return
                thread = threading.Thread(target=self._connection, args=(one,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _connection(self, one: socket.socket) -> None:
        with self._changed:
            number = self.connected
            self.connected += 1
            self._sockets[number] = one
            self.connections += 1
            self.most_connections = max(self.connections, self.most_connections)
            self._changed.notify_all()
        talk = one
        try:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.buffer:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.buffer)
            if self._tls:
                talk = self._tls.wrap_socket(one, server_side=True)
                self._sockets[number] = talk
            rest = b""
            while not self._closing.is_set():
                while b"\r\n\r\n" not in rest:
                    more = talk.recv(65536)
                    if not more or len(rest) > 1 << 20:
                        return
                    rest += more
                head, _, rest = rest.partition(b"\r\n\r\n")
                if not self._answer(talk, number, head.decode("latin-1")):
                    return
        except OSError:
            pass
        finally:
            with self._changed:
                self.connections -= 1
                del self._sockets[number]
                self._changed.notify_all()
            talk.close()

    def _answer(self, talk: socket.socket, connection: int, head: str) -> bool:
        """Answer one request; whether the connection may be used for another."""
        first, *lines = head.split("\r\n")
        method, target, _ = (*first.split(" "), "", "")[:3]
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        path, _, query = target.partition("?")
        asked = _RANGE.fullmatch(headers.get("range", ""))
        wanted = tuple(int(text) if text else None for text in asked.groups()) if asked else None
        with self._changed:
            number = self._counts[path]
            self._counts[path] += 1
            seen = Seen(number, method, path, query, headers, wanted, connection)  # type: ignore[arg-type]
            self.requests.append(seen)
            reply = self._reply(seen)
            seen.status = 0 if reply.raw is not None else reply.status
            self._changed.notify_all()
        try:
            self._send(talk, seen, reply)
            how = "whole" if reply.drop_at is None and reply.raw is None else "dropped"
        except (OSError, _Left):
            how = "left"
        with self._changed:
            seen.how, seen.held = how, False
            self._changed.notify_all()
        if how == "dropped" and reply.reset:
            talk.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        elif how == "dropped" or not reply.keep:
            with suppress(OSError):
                talk.shutdown(socket.SHUT_WR)
        return how == "whole" and reply.keep and headers.get("connection", "").lower() != "close"

    def _reply(self, seen: Seen) -> Reply:
        found = self._resources.get(seen.path)
        if found is None:
            return Reply(404, {"Content-Length": "0"}, memoryview(b""))
        kept, faults = found
        resource = Resource(kept.content, kept.etag, kept.modified, signed=kept.signed)
        size = len(resource.content)
        asked = Asked(
            number=seen.number,
            headers=seen.headers,
            first=first_of(seen.range, size),
            last=size - 1 if not seen.range or seen.range[1] is None or seen.range[0] is None else seen.range[1],
            ranged=seen.range is not None,
            random=random.Random(f"{self.seed} {seen.path} {seen.number}"),
        )
        struck = [fault for fault in faults if fault.strikes(asked)]
        for fault in struck:
            fault.prepare(resource)
        reply = honest(seen, resource)
        if resource.signed and not self._good(seen.query):
            reply.instead(403)
        reply.rate = self.connection_rate
        for fault in struck:
            fault.spoil(asked, reply)
        return reply

    def _good(self, query: str) -> bool:
        link = self._links.get(query.removeprefix("signature="), [0, 0.0])
        link[0] -= 1
        return link[0] >= 0 and time.monotonic() < link[1]

    def _send(self, talk: socket.socket, seen: Seen, reply: Reply) -> None:
        if reply.hold_head:
            self._hold(talk, seen)
        if reply.raw is not None:
            talk.sendall(reply.raw)
            return
        fields = {"Date": formatdate(usegmt=True)} | reply.headers
        lines = [f"HTTP/1.1 {reply.status} {responses.get(reply.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        head, slow = memoryview(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")), Pace(reply.head_rate)
        while head:
            part, head = head[: slow.block()], head[slow.block() :]
            talk.sendall(part)
            self._rest(slow.spend(len(part)))
        if seen.method != "HEAD":
            self._body(talk, seen, reply)

    def _body(self, talk: socket.socket, seen: Seen, reply: Reply) -> None:
        at, pace, size = reply.begin, Pace(reply.rate), max(1, len(reply.content))
        while at < reply.end or reply.endless:
            if at == reply.drop_at:
                return
            if at == reply.hold_at:
                self._hold(talk, seen)
            stops = [stop for stop in (reply.drop_at, reply.hold_at) if stop is not None and stop > at]
            stops += [at + min(pace.block(), self.pace.block(), self.buffer or BLOCK), at - at % size + size]
            stop = min(stops if reply.endless else [*stops, reply.end])
            block = reply.content[at % size : at % size + stop - at]
            for change in reply.changes:
                block = change(block, at)
            if reply.chunked:
                block = memoryview(b"%x\r\n%b\r\n" % (len(block), bytes(block)))
            talk.sendall(block)
            with self._changed:
                seen.sent += stop - at
                self._changed.notify_all()
            at = stop
            self._rest(max(pace.spend(len(block)), self.pace.spend(len(block))))
        if reply.chunked:
            talk.sendall(b"0\r\n\r\n")

    def _rest(self, seconds: float) -> None:
        if seconds and self._closing.wait(seconds):
            raise _Left

    def _hold(self, talk: socket.socket, seen: Seen) -> None:
        """Until released (the byte that says so stays unread, so everybody sees it), or the client goes."""
        with self._changed:
            seen.held = True
            self._changed.notify_all()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ, "released")
            selector.register(talk, selectors.EVENT_READ, "left")
            happened = {key.data for key, _ in selector.select()}
        with self._changed:
            seen.held = False
            self._changed.notify_all()
        if "released" not in happened or self._closing.is_set():
            raise _Left


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
