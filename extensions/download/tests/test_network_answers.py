"""Answers are checked before anybody reads them: parts, sizes, versions, refusals."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_download.errors import BadSource, SourceNotFound, SourceUnauthorized
from jan_download.network.answers import asked_delay, extent, refusal
from jan_download.network.body import Body
from jan_download.network.errors import Changed, NoRanges, Unreachable
from jan_download.network.network import Network
from jan_download.network.ranges import content_length, content_range, retry_after, strong_validator
from jan_download.settings import DownloadSettings

from jan_core import JanError
from jan_core.types import DownloadSource

from .faults import (
    Chunked,
    Close,
    Drop,
    Encoded,
    ETag,
    Fault,
    Garbage,
    Header,
    NoLength,
    Status,
    WrongLength,
    WrongRange,
)
from .faults import (
    NoRanges as ServesNoRanges,
)
from .faultserver import FaultServer

SETTINGS = DownloadSettings(connect_timeout=5, stall_timeout=5)


def read(body: Body, size: int = 1 << 16) -> bytes:
    """A body to its end."""
    buffer, data = memoryview(bytearray(size)), bytearray()
    try:
        while count := body.readinto(buffer):
            data += buffer[:count]
    finally:
        body.close()
    return bytes(data)


@pytest.fixture
def network() -> Iterator[Network]:
    one = Network(SETTINGS, {})
    yield one
    one.close()


def test_a_part_is_what_was_asked_for_and_says_so(network: Network, server: FaultServer, data: bytes) -> None:
    body = network.open(DownloadSource(server.serve("/f", data)), 1000, 500_000, size=len(data))
    assert (body.first, body.last, body.total, body.ranged) == (1000, 500_000, len(data), True)
    assert (body.validator, body.host) == ('"v1"', "127.0.0.1")
    assert read(body) == data[1000:500_001]


def test_to_the_end_of_a_file_of_unknown_size(network: Network, server: FaultServer, data: bytes) -> None:
    body = network.open(DownloadSource(server.serve("/f", data)), 5)
    assert (body.last, body.total) == (len(data) - 1, len(data))
    assert read(body, 1000) == data[5:]


def test_an_end_beyond_the_file_is_taken_for_its_end(network: Network, server: FaultServer, data: bytes) -> None:
    body = network.open(DownloadSource(server.serve("/f", data)), 10, len(data) + 5)
    assert read(body) == data[10:]


def test_an_empty_file_is_a_file(network: Network, server: FaultServer) -> None:
    body = network.open(DownloadSource(server.serve("/f", b"")))
    assert (body.total, body.ranged, read(body)) == (0, False, b"")


@pytest.mark.parametrize("faults", [(ServesNoRanges(),), (ServesNoRanges(), Chunked()), (ServesNoRanges(), NoLength())])
def test_a_server_without_ranges_gives_the_whole_file_or_nothing(
    network: Network, server: FaultServer, data: bytes, faults: tuple[Fault, ...]
) -> None:
    source = DownloadSource(server.serve("/f", data, *faults))
    body = network.open(source, 0, 99, size=len(data))
    assert (body.first, body.ranged) == (0, False)
    assert body.total == (len(data) if len(faults) == 1 else -1)
    assert read(body) == data
    with pytest.raises(NoRanges):
        network.open(source, 100, 200, size=len(data))


@pytest.mark.parametrize("faults", [(), (ServesNoRanges(),)])
def test_another_size_is_another_file(
    network: Network, server: FaultServer, data: bytes, faults: tuple[Fault, ...]
) -> None:
    source = DownloadSource(server.serve("/f", data, *faults))
    with pytest.raises(Changed, match=f"{len(data)} bytes, not {len(data) + 1}"):
        network.open(source, 0, 99, size=len(data) + 1)


def test_beyond_the_end_the_server_says_how_long_it_is(network: Network, server: FaultServer, data: bytes) -> None:
    source = DownloadSource(server.serve("/f", data))
    with pytest.raises(Changed, match=str(len(data))):
        network.open(source, len(data) + 10, size=len(data) + 50)


def test_another_version_is_not_mixed_in(network: Network, server: FaultServer, data: bytes) -> None:
    source = DownloadSource(server.serve("/f", data, etag='"v2"'))
    with pytest.raises(Changed, match="another version"):
        network.open(source, 10, 99, validator='"v1"', size=len(data))
    assert server.headers("If-Range") == ['"v1"']
    assert read(network.open(source, 10, 99, validator='"v2"', size=len(data))) == data[10:100]


@pytest.mark.parametrize(
    "fault",
    [
        WrongRange(first=1),
        WrongRange(last=-1),
        WrongRange(last=1),
        WrongRange(text=""),
        WrongRange(text="bytes 10-99/many"),
        WrongLength(-1),
        WrongLength(1),
        Encoded(),
        Header("Content-Encoding", "br"),
    ],
)
def test_another_part_than_was_asked_for_is_refused(
    network: Network, server: FaultServer, data: bytes, fault: Fault
) -> None:
    with pytest.raises(BadSource):
        network.open(DownloadSource(server.serve("/f", data, fault)), 10, 99, size=len(data))


@pytest.mark.parametrize("fault", [Drop(at=500), Drop(at=500, reset=True)])
def test_a_body_that_ends_too_early_is_a_reason_to_try_again(
    network: Network, server: FaultServer, data: bytes, fault: Fault
) -> None:
    body = network.open(DownloadSource(server.serve("/f", data, fault)), 100, 999)
    with pytest.raises(Unreachable) as broke:
        read(body)
    if not fault.reset:  # type: ignore[attr-defined]
        assert broke.value.brought == 400


@pytest.mark.parametrize("faults", [(Chunked(),), (NoLength(),)])
def test_a_body_without_a_length_is_no_longer_than_the_file(
    network: Network, server: FaultServer, data: bytes, faults: tuple[Fault, ...]
) -> None:
    source = DownloadSource(server.serve("/f", data, ServesNoRanges(), *faults))
    with pytest.raises(BadSource, match="more than 1000 bytes"):
        read(network.open(source, size=1000))


def test_a_body_without_a_length_that_is_shorter_than_the_file_is_not_taken_for_it(
    network: Network, server: FaultServer, data: bytes
) -> None:
    source = DownloadSource(server.serve("/f", data, ServesNoRanges(), Chunked()))
    with pytest.raises(Changed, match=f"{len(data)} bytes, not"):
        read(network.open(source, size=len(data) + 1))
    server.faults("/f", ServesNoRanges(), NoLength())
    with pytest.raises(Unreachable):
        read(network.open(source, size=len(data) + 1))


def test_a_chunked_body_that_breaks_is_not_taken_for_whole(network: Network, server: FaultServer, data: bytes) -> None:
    source = DownloadSource(server.serve("/f", data, ServesNoRanges(), Chunked(), Drop(at=500_000)))
    with pytest.raises(Unreachable):
        read(network.open(source))


@pytest.mark.parametrize("fault", [Close(), Close(reset=True), Garbage(), Garbage(b"HTTP/1.1 200 OK\r\nX: y\r\n")])
def test_what_is_no_answer_is_a_reason_to_try_again(
    network: Network, server: FaultServer, data: bytes, fault: Fault
) -> None:
    with pytest.raises(Unreachable):
        read(network.open(DownloadSource(server.serve("/f", data, fault))))


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_waited_for_as_long_as_the_server_says(
    network: Network, server: FaultServer, data: bytes, status: int
) -> None:
    with pytest.raises(Unreachable, match=str(status)) as refused:
        network.open(DownloadSource(server.serve("/f", data, Status(status, retry_after=7))))
    assert refused.value.delay == 7
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, SourceUnauthorized),
        (403, SourceUnauthorized),
        (404, SourceNotFound),
        (410, SourceNotFound),
        (400, BadSource),
    ],
)
def test_what_will_not_pass_is_told_to_a_person(
    network: Network, server: FaultServer, data: bytes, status: int, kind: type[JanError]
) -> None:
    url = server.serve("/f", data, Status(status))
    with pytest.raises(kind, match=f"127.0.0.1 answered {status}") as refused:
        network.open(DownloadSource(url + "?secret=1"))
    assert "secret" not in str(refused.value) + str(refused.value.data)


def test_connections_are_kept_when_a_body_was_read_to_its_end_and_after_errors_too(
    network: Network, server: FaultServer, data: bytes
) -> None:
    source = DownloadSource(server.serve("/f", data, Status(404).only(1), ETag("").only(2), Chunked().only(3)))
    assert read(network.open(source, 0, 9)) == data[:10]
    with pytest.raises(SourceNotFound):
        network.open(source)
    for _ in range(3):
        assert read(network.open(source, 1, 9)) == data[1:10]
    assert server.connected == 1


def test_a_connection_whose_body_was_left_is_closed_at_once(network: Network, server: FaultServer, data: bytes) -> None:
    source = DownloadSource(server.serve("/f", data * 5))
    body = network.open(source)
    body.readinto(memoryview(bytearray(10)))
    body.close()
    server.wait_idle()
    assert read(network.open(source, 0, 9)) == data[:10]
    assert server.connected == 2


def test_a_kept_connection_that_the_server_closed_meanwhile_is_no_failure(
    network: Network, server: FaultServer, data: bytes
) -> None:
    source = DownloadSource(server.serve("/f", data, Close().only(3)))
    bodies = [network.open(source, i, 9) for i in range(3)]
    for body in bodies:
        read(body)
    assert read(network.open(source, 1, 9)) == data[1:10]  # what it tries first is closed on it


def test_a_small_file_is_fetched_whole_up_to_a_limit(network: Network, server: FaultServer, data: bytes) -> None:
    source = DownloadSource(server.serve("/f", data))
    assert network.fetch(source, len(data)) == data
    for faults in ((), (Chunked(),), (NoLength(),)):
        server.faults("/f", *faults)
        with pytest.raises(BadSource):
            network.fetch(source, len(data) - 1)
    server.faults("/f", Chunked())
    assert network.fetch(source, len(data)) == data
    assert set(server.headers("Accept-Encoding")) == {"identity"}
    assert set(server.headers("Range")) == {None}


@pytest.mark.parametrize(
    ("status", "code", "licence", "says"),
    [
        (403, "GatedRepo", True, "must be accepted on its web page first"),
        (401, "GatedRepo", True, "a token given for it"),
        (401, "RepoNotFound", False, "or it is private"),
        (401, "", False, "wants a token"),
        (403, "", False, "licence accepted"),
    ],
)
def test_a_refusal_says_what_a_person_has_to_do(status: int, code: str, licence: bool, says: str) -> None:
    error = refusal(status, {"X-Error-Code": code}, "hub.example", missing="HF_TOKEN")
    assert isinstance(error, SourceUnauthorized)
    assert error.data["licence"] is licence
    assert says in error.message
    assert "HF_TOKEN" in error.message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"RateLimit": '"api";r=0;t=55'}, 56),
        ({"RateLimit": '"api";r=3;t=55'}, 0),
        ({"Retry-After": "9", "RateLimit": '"api";r=0;t=1'}, 9),
        ({"RateLimit": "r=0; t=999999"}, 3600),
        ({"Retry-After": "soon"}, 0),
    ],
)
def test_a_server_says_in_two_ways_how_long_to_wait(headers: dict[str, str], seconds: float) -> None:
    assert asked_delay(headers) == seconds


HEADERS = st.dictionaries(
    st.sampled_from(["Content-Range", "Content-Length", "ETag", "Last-Modified", "Date", "Retry-After", "RateLimit"]),
    st.one_of(
        st.text(max_size=40),
        st.from_regex(r"bytes [0-9]{1,3}-[0-9]{1,3}/([0-9]{1,3}|\*)", fullmatch=True),
        st.from_regex(r'(W/)?"[a-z]{0,4}"', fullmatch=True),
        st.integers(-5, 1200).map(str),
    ),
)


@given(
    st.sampled_from([200, 206, 416]), HEADERS, st.integers(0, 300), st.integers(-1, 300), st.sampled_from(["", '"a"']),
    st.integers(0, 300),
)  # fmt: skip
def test_whatever_a_head_says_what_is_accepted_is_what_was_asked_for(
    status: int, headers: dict[str, str], first: int, last: int, validator: str, size: int
) -> None:
    try:
        found = extent(status, headers, "h", first, last, validator, size)
    except BadSource:
        return
    assert status != 416
    assert found.first == (first if status == 206 else 0)
    assert found.total in (-1, size) or not size
    if status == 206:
        assert found.first <= found.last
        assert found.last == (last if last >= 0 else found.last) or found.last + 1 in (found.total, size)
        assert found.total < 0 or found.last < found.total
    assert not validator or found.validator in ("", validator) or not found.validator.startswith('"')


@given(st.text(max_size=60))
def test_no_header_breaks_its_reader(text: str) -> None:
    assert 0 <= retry_after(text) <= 3600
    assert 0 <= asked_delay({"RateLimit": text}) <= 3600
    assert content_length({"Content-Length": text}) >= -1
    assert strong_validator({"ETag": text, "Last-Modified": text, "Date": text}) in ("", text.strip())
    found = content_range(text)
    assert found is None or found.last < found.total or found.total < 0 or found.first < 0
