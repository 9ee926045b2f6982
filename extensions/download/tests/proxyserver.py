"""Proxies on loopback: HTTP (forwarding, and tunnels by CONNECT), and SOCKS 4, 4a and 5, with and without a login.

    with HttpProxy(login="user:pass", names={"far.invalid": "127.0.0.1"}) as proxy: ...

Real bytes through real sockets. `asked` keeps what a proxy was told to connect to, by which name; `names` are those
that only it can look up.
"""

from __future__ import annotations

import base64
import re
import selectors
import socket
import ssl
import struct
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Self
from urllib.parse import urlsplit

from jan_download.network.tls import TLSSocket

__all__ = ["HttpProxy", "SocksProxy"]

_PATIENCE = 20.0


class _Proxy:
    """Accepts; what is spoken is up to those below."""

    def __init__(
        self, *, login: str = "", names: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.login, self.names, self._tls = login, dict(names or {}), tls
        if tls is not None:
            tls.sslsocket_class = TLSSocket
        self.asked: list[tuple[str, int]] = []
        self.heads: list[str] = []
        self.connected = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), _PATIENCE).close()
        self._threads[0].join(_PATIENCE)
        self._listening.close()
        with self._lock:
            left = list(self._open)
        for one in left:
            with suppress(OSError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_PATIENCE)

    _closed = False

    def _accept(self) -> None:
        while True:
            one, _ = self._listening.accept()
            with self._lock:
                if self._closed:
                    one.close()
                    return
                self.connected += 1
                thread = threading.Thread(target=self._serve, args=(one,), daemon=True)
                self._threads.append(thread)
            thread.start()

    def _serve(self, one: socket.socket) -> None:
        with ExitStack() as stack, suppress(OSError, ssl.SSLError, struct.error):
            one.settimeout(_PATIENCE)
            if self._tls is not None:
                one = self._tls.wrap_socket(one, server_side=True)
            stack.enter_context(one)
            self._note(one)
            stack.callback(self._open.discard, one)
            other = self.talk(one, stack)
            if other is not None:
                self._note(other)
                stack.callback(self._open.discard, other)
                _relay(one, other)

    def _note(self, one: socket.socket) -> None:
        with self._lock:
            self._open.add(one)

    def connect(self, stack: ExitStack, host: str, port: int) -> socket.socket:
        """A connection to where it was told to."""
        self.asked.append((host, port))
        return stack.enter_context(socket.create_connection((self.names.get(host, host), port), _PATIENCE))

    def talk(self, one: socket.socket, stack: ExitStack) -> socket.socket | None:
        """Agree with a client; returns the connection whose bytes are to be passed on."""
        raise NotImplementedError


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Pass on what comes, either way, until one side ends. In one thread: no two may use a TLS socket at once."""
    to = {one: other, other: one}
    with selectors.DefaultSelector() as selector:
        for each in to:
            selector.register(each, selectors.EVENT_READ)
        while True:
            waiting = [each for each in to if isinstance(each, ssl.SSLSocket) and each.pending()]
            ready = [key.fileobj for key, _ in selector.select(0 if waiting else None)]
            for each in to:
                if each in waiting or each in ready:
                    data = each.recv(1 << 16)
                    if not data:
                        return
                    to[each].sendall(data)


class HttpProxy(_Proxy):
    """One request a connection where it forwards. `refuses`: a status that every CONNECT is answered with."""

    refuses = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.login + '@' if self.login else ''}127.0.0.1:{self.port}"

    def talk(self, one: socket.socket, stack: ExitStack) -> socket.socket | None:
        head = b""
        while b"\r\n\r\n" not in head:
            part = one.recv(1 << 16)
            if not part:
                return None
            head += part
        text = head.decode("latin-1")
        self.heads.append(text)
        method, target, _ = text.split(" ", 2)
        wanted = "Basic " + base64.b64encode(self.login.encode()).decode()
        if self.login and f"proxy-authorization: {wanted}".lower() not in text.lower():
            one.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return None
        if method == "CONNECT":
            if self.refuses:
                one.sendall(f"HTTP/1.1 {self.refuses} No\r\nContent-Length: 0\r\n\r\n".encode())
                return None
            host, _, port = target.rpartition(":")
            other = self.connect(stack, host.strip("[]"), int(port))
            one.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            return other
        parts = urlsplit(target)
        other = self.connect(stack, parts.hostname or "", parts.port or 80)
        path = parts.path + ("?" + parts.query if parts.query else "")
        plain = re.sub(r"(?i)\r\nproxy-authorization:[^\r]*", "", text.replace(target, path, 1))
        other.sendall(plain.replace("\r\n", "\r\nConnection: close\r\n", 1).encode("latin-1"))
        return other


class SocksProxy(_Proxy):
    """SOCKS 4 and 4a without, SOCKS 5 (RFC 1928) with and without a login (RFC 1929)."""

    def url(self, scheme: str = "socks5h", login: str = "") -> str:
        login = login or self.login
        return f"{scheme}://{login + '@' if login else ''}127.0.0.1:{self.port}"

    def talk(self, one: socket.socket, stack: ExitStack) -> socket.socket | None:
        stream = one.makefile("rb", 0)
        with stream:
            version = stream.read(1)
            return self._four(one, stack) if version == b"\x04" else self._five(one, stack)

    def _four(self, one: socket.socket, stack: ExitStack) -> socket.socket:
        _, port, address = struct.unpack("!BH4s", _exactly(one, 7))
        _until_zero(one)
        host = _until_zero(one).decode() if address[:3] == b"\0\0\0" else socket.inet_ntoa(address)
        other = self.connect(stack, host, port)
        one.sendall(b"\0\x5a" + bytes(6))
        return other

    def _five(self, one: socket.socket, stack: ExitStack) -> socket.socket | None:
        methods = _exactly(one, _exactly(one, 1)[0])
        if self.login:
            if 2 not in methods:
                one.sendall(b"\5\xff")
                return None
            one.sendall(b"\5\2")
            _exactly(one, 1)
            name = _exactly(one, _exactly(one, 1)[0])
            password = _exactly(one, _exactly(one, 1)[0])
            right = name + b":" + password == self.login.encode()
            one.sendall(b"\1\0" if right else b"\1\1")
            if not right:
                return None
        else:
            one.sendall(b"\5\0")
        kind = _exactly(one, 4)[3]
        if kind == 3:
            host = _exactly(one, _exactly(one, 1)[0]).decode()
        else:
            family, length = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, _exactly(one, length))
        (port,) = struct.unpack("!H", _exactly(one, 2))
        try:
            other = self.connect(stack, host, port)
        except OSError:
            one.sendall(b"\5\4\0\1" + bytes(6))
            return None
        one.sendall(b"\5\0\0\1" + bytes(6))
        return other


def _exactly(one: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = one.recv(count - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data


def _until_zero(one: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\0"):
        data += _exactly(one, 1)
    return data[:-1]
