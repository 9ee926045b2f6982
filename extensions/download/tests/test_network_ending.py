"""Whatever a connection waits for, any thread can end it within a second; and no wait is for ever."""

from __future__ import annotations

import contextlib
import gc
import random
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme
from jan_download.engine.stop import Stop, Stopped
from jan_download.errors import BadSource
from jan_download.network import naming, racing, reach
from jan_download.network.body import Body
from jan_download.network.errors import Unreachable
from jan_download.network.lines import Deadline, Line, Lines
from jan_download.network.network import Network
from jan_download.settings import DownloadSettings
from urllib3.connectionpool import HTTPConnectionPool

from jan_core.types import DownloadSource

from .faults import Chunked, Close, Drop, Header, Hold, NoLength, NoRanges, SlowHead, Trickle
from .faultserver import FaultServer
from .test_network_answers import read

PATIENT = DownloadSettings(connect_timeout=60, stall_timeout=60)
SOON = 1.0


class Work:
    """Something that blocks, in a thread of its own."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.error: Exception | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self.error = error

    def ends(self, within: float = SOON) -> Exception | None:
        begun = time.monotonic()
        self._thread.join(10)
        assert not self._thread.is_alive()
        assert time.monotonic() - begun < within
        return self.error


@pytest.fixture
def network() -> Iterator[Network]:
    one = Network(PATIENT, {})
    yield one
    one.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[FaultServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with FaultServer(tls=context) as one:
        yield one


@pytest.fixture
def silent() -> Iterator[tuple[int, Callable[[], None]]]:
    """A port where connections are accepted and nothing is said; and what waits for the first."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listening.settimeout(10)

        def accept() -> None:
            stack.enter_context(listening.accept()[0])

        yield listening.getsockname()[1], accept


def held_body(network: Network, server: FaultServer, data: bytes, *faults: Any) -> tuple[Any, Work]:
    body = network.open(DownloadSource(server.serve("/f", data, *faults, Hold(after=100_000))))
    work = Work(lambda: read(body))
    server.wait_held()
    return body, work


@pytest.mark.parametrize("faults", [(), (NoRanges(), Chunked()), (NoRanges(), NoLength())])
def test_a_body_that_does_not_come_is_interrupted(
    network: Network, server: FaultServer, data: bytes, faults: tuple[Any, ...]
) -> None:
    body, work = held_body(network, server, data, *faults)
    body.interrupt()
    assert isinstance(work.ends(), Unreachable)  # and never the end of a body whose length is not known


@pytest.mark.parametrize("how", ["body", "network"])
def test_nothing_undecrypted_is_read_when_tls_is_interrupted(
    secure: FaultServer, authority: trustme.CA, data: bytes, how: str
) -> None:
    with authority.cert_pem.tempfile() as certificates:
        network = Network(DownloadSettings(certificates=certificates, stall_timeout=60), {})
        secure.serve("/f", data, Hold(at=2_000_000))
        body = network.open(DownloadSource(secure.url("/f")))
        buffer, first = memoryview(bytearray(1000)), bytearray()
        while len(first) < 500_000:  # much is on its way, and some of it in this machine's buffers
            first += buffer[: body.readinto(buffer)]
        (body.interrupt if how == "body" else network.close)()
        with pytest.raises(Unreachable, match="interrupted"):
            body.readinto(buffer)
        body.close()
        network.close()
    assert first == data[: len(first)]


def test_interrupting_what_has_ended_harms_nobody(network: Network, server: FaultServer, data: bytes) -> None:
    source = DownloadSource(server.serve("/f", data))
    body = network.open(source, 0, 9)
    read(body)
    next_one = network.open(source, 0, 99_999)  # on the same connection
    body.interrupt()
    body.close()
    assert read(next_one) == data[:100_000]
    assert server.connected == 1


def test_closing_ends_the_wait_for_a_head(network: Network, server: FaultServer, data: bytes) -> None:
    source = DownloadSource(server.serve("/f", data, SlowHead()))
    work = Work(lambda: network.open(source))
    server.wait_held()
    network.close()
    assert isinstance(work.ends(), Unreachable)
    with pytest.raises(Unreachable, match="interrupted"):
        network.open(source)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://127.0.0.1:{port}/f", ""),
        ("https://far.invalid/f", "http://127.0.0.1:{port}"),
        ("https://far.invalid/f", "https://127.0.0.1:{port}"),
        ("https://far.invalid/f", "socks5h://127.0.0.1:{port}"),
        ("http://far.invalid/f", "socks4a://127.0.0.1:{port}"),
    ],
)
def test_closing_ends_a_handshake(silent: tuple[int, Callable[[], None]], url: str, proxy: str) -> None:
    port, accept = silent
    settings = DownloadSettings(connect_timeout=60, stall_timeout=60, proxy=proxy.format(port=port))
    network = Network(settings, {})
    work = Work(lambda: network.open(DownloadSource(url.format(port=port))))
    accept()
    network.close()
    assert isinstance(work.ends(), Unreachable)


@pytest.mark.parametrize("proxy", ["", "socks5h://proxy.example", "http://proxy.example"])
def test_closing_ends_a_name_lookup_that_hangs(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    asked, released = threading.Event(), threading.Event()

    def hang(*_: object) -> list[Any]:
        asked.set()
        released.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    network = Network(DownloadSettings(connect_timeout=60, proxy=proxy), {})
    work = Work(lambda: network.open(DownloadSource("https://far.example/f")))
    assert asked.wait(10)
    network.close()
    assert isinstance(work.ends(), Unreachable)
    released.set()


def test_closing_ends_a_connection_that_is_not_answered(full: int) -> None:
    network = Network(PATIENT, {})
    begun = threading.Event()

    def connect() -> None:
        begun.set()
        network.open(DownloadSource(f"http://127.0.0.1:{full}/f"))

    work = Work(connect)
    assert begun.wait(10)
    network.close()
    assert isinstance(work.ends(), Unreachable)


def test_many_threads_share_a_network_whatever_breaks_and_is_interrupted(server: FaultServer, data: bytes) -> None:
    network = Network(DownloadSettings(stall_timeout=5), {})
    drops = (Drop(after=70_000).chance(0.1), Close().chance(0.05), NoRanges().chance(0.1), Chunked().chance(0.1))
    source = DownloadSource(server.serve("/f", data, *drops))
    right, broke, wrong = [0], [0], [0]
    lock = threading.Lock()

    def work(seed: int) -> None:
        chance, buffer = random.Random(seed), memoryview(bytearray(1 << 16))
        for _ in range(40):
            first = chance.randrange(len(data) - 200_000)
            got, whole = bytearray(), False
            try:
                body = network.open(source, first, first + 150_000 - 1, size=len(data))
                with contextlib.closing(body):
                    while count := body.readinto(buffer):
                        got += buffer[:count]
                        if chance.random() < 0.05:
                            body.interrupt()
                    whole, first = True, body.first
            except (Unreachable, BadSource):
                pass
            with lock:
                fits = data.startswith(got, first) if got else True
                (right if whole and fits else broke if fits else wrong)[0] += 1

    workers = [Work(lambda seed=seed: work(seed)) for seed in range(8)]  # type: ignore[misc]
    assert [worker.ends(within=30) for worker in workers] == [None] * 8
    network.close()
    assert wrong == [0]
    assert right[0] > 60
    assert broke[0] > 30
    assert len(server.requests) > server.connected > 8  # many connections served several


def test_a_connection_that_ends_with_its_body_is_not_taken_away_from_whoever_makes_it_anew(
    monkeypatch: pytest.MonkeyPatch, server: FaultServer, data: bytes
) -> None:
    network = Network(DownloadSettings(stall_timeout=5), {})
    source = DownloadSource(server.serve("/f", data, Header("Connection", "close")))
    first, got = network.open(source, 0, 9), list[bytes]()
    connected, ended = threading.Event(), threading.Event()
    watch, put = Deadline.watch, HTTPConnectionPool._put_conn
    others: list[Work] = []

    def watch_and_wait(self: Deadline, line: Line | None) -> None:
        watch(self, line)
        if not connected.is_set():  # connected, though the connection itself does not know yet
            connected.set()
            assert ended.wait(10)

    def put_and_wait(self: HTTPConnectionPool, connection: Any) -> None:
        put(self, connection)
        if not others:
            others.append(Work(lambda: got.append(read(network.open(source, 10, 19)))))
            assert connected.wait(10)

    monkeypatch.setattr(HTTPConnectionPool, "_put_conn", put_and_wait)
    monkeypatch.setattr(Deadline, "watch", watch_and_wait)
    assert read(first) == data[:10]
    ended.set()
    assert others[0].ends() is None
    assert got == [data[10:20]]
    network.close()
    gc.collect()  # what is left open is told then


def test_an_answer_that_comes_when_all_is_over_is_closed(server: FaultServer, data: bytes) -> None:
    stop, network = Stop(), Network(PATIENT, {})
    source = DownloadSource(server.serve("/f", data, Hold(after=1000)))
    asked, stopped, closed = threading.Event(), threading.Event(), threading.Event()

    def ask() -> Body:
        body = network.open(source)
        asked.set()
        assert stopped.wait(10)
        return body

    def close(body: Body) -> None:
        body.close()
        closed.set()

    work = Work(lambda: stop.aside(ask, close))
    assert asked.wait(10)
    stop.set()
    with pytest.raises(Stopped):
        raise work.ends() or AssertionError
    stopped.set()
    assert closed.wait(10)
    server.wait_idle()  # the server sees it go, though the network was not closed
    network.close()


# -- time limits ----------------------------------------


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(server: FaultServer, data: bytes) -> None:
    network = Network(DownloadSettings(stall_timeout=0.4), {})
    source = DownloadSource(server.serve("/f", data, SlowHead(rate=20)))
    assert isinstance(Work(lambda: network.open(source)).ends(within=2), Unreachable)
    network.close()


def test_a_handshake_that_comes_to_no_end_is_not_waited_for(silent: tuple[int, Callable[[], None]]) -> None:
    network = Network(DownloadSettings(connect_timeout=0.3), {})
    source = DownloadSource(f"https://127.0.0.1:{silent[0]}/f")
    assert isinstance(Work(lambda: network.open(source)).ends(within=2), Unreachable)
    network.close()


def test_a_lookup_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [] if released.wait(10) else None)
    network = Network(DownloadSettings(connect_timeout=0.2), {})
    work = Work(lambda: network.open(DownloadSource("http://far.example/f")))
    assert "no connection in time" in str(work.ends(within=2))
    released.set()
    network.close()


def test_a_body_that_stalls_is_given_up_and_a_slow_one_is_not(server: FaultServer, data: bytes) -> None:
    network = Network(DownloadSettings(stall_timeout=0.3), {})
    body = network.open(DownloadSource(server.serve("/f", data, Hold(after=1000))))
    assert "stopped sending" in str(Work(lambda: read(body)).ends(within=2))
    slow = network.open(DownloadSource(server.serve("/g", data[:20_000], Trickle(20_000))))
    assert read(slow) == data[:20_000]
    network.close()


def test_a_small_file_that_comes_too_slowly_is_given_up(server: FaultServer, data: bytes) -> None:
    network = Network(DownloadSettings(stall_timeout=0.1), {})
    source = DownloadSource(server.serve("/f", data, Trickle(20_000)))
    assert "too slowly" in str(Work(lambda: network.fetch(source, 1 << 22)).ends(within=3))
    network.close()


# -- several addresses ----------------------------------------


@pytest.fixture
def full() -> Iterator[int]:
    """A port of 127.0.0.1 that answers no connection: its queue is full."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="how a full queue behaves differs")
def test_an_address_that_does_not_answer_keeps_the_next_one_waiting_a_quarter_second(
    full: int, server: FaultServer
) -> None:
    dead, good = ("127.0.0.1", full), ("127.0.0.1", server.port)
    begun = time.monotonic()
    with racing.connect([(socket.AF_INET, dead), (socket.AF_INET, good)], 10, Lines()) as sock:
        assert sock.getpeername() == good
        assert sock.gettimeout() == 10
    assert time.monotonic() - begun < SOON


def test_an_address_that_refuses_makes_room_at_once_and_the_last_refusal_is_told(server: FaultServer) -> None:
    good = ("127.0.0.1", server.port)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        dead = bound.getsockname()
        with racing.connect(
            [(socket.AF_INET6, ("::1", 9)), (socket.AF_INET, dead), (socket.AF_INET, good)], 9, Lines()
        ):
            pass
        with pytest.raises(ConnectionRefusedError):
            racing.connect([(socket.AF_INET, dead)], 10, Lines())


def test_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Any] = [(socket.AF_INET6, 1, 6, "", (f"::{i}", 80, 0, 0)) for i in range(3)]
    rows += [(socket.AF_INET, 1, 6, "", ("127.0.0.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: rows)
    found = naming.Names(Lines()).addresses("far.example", 80, 5)
    assert [address[0] for _, address in found] == ["::0", "127.0.0.1", "::1", "::2"]


# -- offline ----------------------------------------


def no_names(*_: object) -> list[Any]:
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def no_such_name(*_: object) -> list[Any]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize(
    ("lookup", "route", "offline"),
    [(no_names, True, True), (no_such_name, True, False), (no_such_name, False, True)],
)
def test_no_network_is_told_from_a_source_that_fails(
    monkeypatch: pytest.MonkeyPatch, lookup: Callable[..., Any], route: bool, offline: bool
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(reach, "online", lambda: route)
    network = Network(PATIENT, {})
    with pytest.raises(Unreachable) as failed:
        network.open(DownloadSource("https://far.example/f"))
    assert failed.value.offline is offline
    network.close()


def test_this_machine_itself_is_never_offline(monkeypatch: pytest.MonkeyPatch, server: FaultServer) -> None:
    monkeypatch.setattr(reach, "online", lambda: False)
    server.refuse()
    for host in ("127.0.0.1", "localhost", "[::1]"):
        network = Network(PATIENT, {})
        with pytest.raises(Unreachable) as failed:
            network.open(DownloadSource(server.url("/f", host)))
        assert not failed.value.offline
        network.close()


NOWHERE = """
from jan_core.types import DownloadSource
from jan_download.network.errors import Unreachable
from jan_download.network.network import Network
from jan_download.network.reach import online
from jan_download.settings import DownloadSettings
print(online())
for host in ("far.example", "10.1.2.3", "[2001:db8::1]", "127.0.0.1", "localhost"):
    try:
        Network(DownloadSettings(), {}).open(DownloadSource(f"http://{host}:9/f"))
    except Unreachable as error:
        print(error.offline)
"""


def test_in_a_real_place_without_a_network_the_world_is_out_of_reach_and_this_machine_is_not() -> None:
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("needs a network namespace of its own")
    done = subprocess.run([*alone, sys.executable, "-c", NOWHERE], capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["False", "True", "True", "True", "False", "False"], done.stderr


def test_where_somebody_refuses_there_is_a_network(monkeypatch: pytest.MonkeyPatch, server: FaultServer) -> None:
    row = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [row])
    monkeypatch.setattr(reach, "online", lambda: False)
    server.refuse()
    network = Network(PATIENT, {})
    with pytest.raises(Unreachable) as failed:
        network.open(DownloadSource("http://lan.example/f"))
    assert not failed.value.offline
    network.close()


def test_a_proxy_on_this_machine_is_reached_without_a_network(
    monkeypatch: pytest.MonkeyPatch, server: FaultServer
) -> None:
    monkeypatch.setattr(reach, "online", lambda: False)
    server.refuse()
    network = Network(DownloadSettings(proxy=f"http://127.0.0.1:{server.port}"), {})
    with pytest.raises(Unreachable, match="the proxy: no connection") as failed:
        network.open(DownloadSource("http://far.example/f"))
    assert not failed.value.offline
    network.close()


@pytest.mark.parametrize(
    ("host", "is_it"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("LOCALHOST.", True),
        ("a.localhost", True),
        ("localhost.example", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_what_this_machine_is(host: str, is_it: bool) -> None:
    assert reach.is_loopback(host) is is_it


def test_an_address_that_two_readers_read_differently_is_not_used(server: FaultServer) -> None:
    network = Network(PATIENT, {})
    for url in (f"http://127.0.0.1\\@{server.host}:{server.port}/f", "http://127%2E0.0.1/f", "file:///etc/passwd", ""):
        with pytest.raises(BadSource):
            network.open(DownloadSource(url))
    network.close()
    assert not server.requests
