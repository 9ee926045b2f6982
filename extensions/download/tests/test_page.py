"""The page of a download's history: one file that loads and runs nothing, whatever stands in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jan_download.journal import HistoryEntry
from jan_download.page import page as page_of
from jan_download.page.timeline import stretches
from jan_download.page.words import address, span
from jan_download.records import PIECE, Piece
from jan_download.shapes import Download, JobError
from jan_download.status import SourceFigures

BEGAN = 1_795_361_600.0
VOID = {"meta"}


def download(pieces: int = 3, **changes: Any) -> Download:
    given_ = {
        "id": "dl-0123456789abcdef",
        "name": "model.gguf",
        "url": "https://hub.example/model.gguf",
        "destination": "model.gguf",
        "state": "completed",
        "sha256": "ab" * 32,
        "verified": True,
        "bytes_done": pieces * PIECE,
        "bytes_total": pieces * PIECE,
    }
    return Download(**{**given_, **changes})


def entry(after: float, kind: str, **data: Any) -> HistoryEntry:
    return HistoryEntry(BEGAN + after, kind, data)


RUN = [
    entry(0, "state", state="queued", done=0),
    entry(1, "state", state="running", done=0),
    entry(1, "source", id="hub.example", state="active"),
    *(entry(2 + second, "sample", done=second * 10**6, speed=10**6 * second) for second in range(1, 9)),
    entry(12, "state", state="offline", done=8 * 10**6, waiting_for="the network"),
    entry(90_000, "state", state="running", done=8 * 10**6),
    entry(90_001, "piece", index=1),
    entry(90_001, "source", id="bad.example", state="quarantined", reason="piece 2 is wrong", errors=1, bytes=PIECE),
    entry(
        90_009, "sources", figures=[{"id": "hub.example", "state": "active", "bytes": 2 * PIECE, "speed": 5 * 10**6}]
    ),
    entry(90_009, "state", state="verifying", done=3 * PIECE),
    entry(90_010, "state", state="completed", done=3 * PIECE, verified=True),
]


def page(shown: Download, entries: list[HistoryEntry], pieces: list[Piece], now: float) -> str:
    return page_of([(shown, entries, pieces)], now)


class Reader(HTMLParser):
    """Reads a document strictly: every element is closed in order, and what could load or run is noted."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.outward = [""], list[str]()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "img", "link", "iframe", "object", "a", "base", "form", "foreignobject"):
            self.outward.append(tag)
        self.outward += [name for name, _ in attrs if name in ("src", "href", "xlink:href") or name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(document: str) -> Reader:
    reader = Reader(document)
    assert reader.open == [], "every element is closed"
    assert reader.outward == [], "nothing is loaded, nothing runs, nothing leads away"
    assert "url(" not in document
    assert "@import" not in document
    return reader


def pieces(count: int, **changes: Any) -> list[Piece]:
    return [
        Piece(**{"index": index, "length": PIECE, "state": "verified", "source": "hub.example", **changes})
        for index in range(count)
    ]


def test_a_complete_download_says_that_it_is_verified_and_what_happened() -> None:
    reader = read(page(download(), RUN, pieces(3), BEGAN + 90_020))
    text = "\n".join(reader.text)
    assert "Verified." in text
    assert "piece 2 (from 8.4 MB on) was wrong and is fetched again" in text
    assert "bad.example is not used any more: it sent wrong bytes (piece 2 is wrong)" in text
    assert "no network at 8.0 MB" in text
    assert "complete, and its SHA-256 matches" in text
    assert "content-security-policy" in {(attributes.get("http-equiv") or "").lower() for _, attributes in reader.tags}


def test_what_nobody_could_check_is_never_called_verified() -> None:
    unchecked = download(sha256="", verified=False, actual_sha256="cd" * 32)
    text = "\n".join(read(page(unchecked, [], [], BEGAN)).text)
    assert "Not checked." in text
    assert "Verified" not in text
    assert "cd" * 32 in text


def test_the_downloads_of_a_group_are_below_each_other_on_one_page() -> None:
    shown = [(download(name=f"part-{n}.gguf"), RUN, pieces(3)) for n in range(3)]
    document = page_of(shown, BEGAN + 90_020)
    reader = read(document)
    assert [tag for tag, _ in reader.tags].count("h1") == 3
    assert document.count("<main>") == 1
    assert "<title>part-0.gguf and 2 more</title>" in document
    assert all(f"part-{n}.gguf" in reader.text for n in range(3))


def test_a_page_without_any_history_is_a_page() -> None:
    empty = download(0, state="queued", verified=False)
    text = "\n".join(read(page(empty, [], [], BEGAN)).text)
    assert "No history of this download was kept." in text
    assert "How large the file is, is not known yet." in text


@pytest.mark.parametrize("count", [1, 3, 5_000, 100_000])
def test_any_number_of_pieces_makes_a_drawing_of_bearable_size(count: int) -> None:
    some = [piece for piece in pieces(count) if piece.index % 7 != 3]
    document = page(download(count, state="running", verified=False), RUN[:4], some, BEGAN + 60)
    assert len(document) < 400_000
    drawn = next(dict(it) for tag, it in read(document).tags if tag == "svg" and it.get("class") == "pieces")
    assert f"{count:,} pieces" in (drawn["aria-label"] or "")


def test_a_piece_that_was_fetched_again_is_marked_and_counted() -> None:
    some = pieces(3)
    some[1].tries, some[1].source = 1, "mirror.example"
    text = page(download(), RUN, some, BEGAN + 90_020)
    assert 'class="again"' in text
    assert "was wrong and fetched again <b>1</b>" in text
    assert "mirror.example <b>1 ·" in text


def test_secrets_of_an_address_stay_out() -> None:
    secret = "https://me:hunter2@hub.example:8443/a/model.gguf?X-Amz-Signature=deadbeef#frag"
    assert address(secret) == "https://hub.example:8443/a/model.gguf"
    document = page(download(url=secret), RUN, pieces(3), BEGAN)
    assert "hunter2" not in document
    assert "deadbeef" not in document


def test_a_source_is_counted_over_all_runs() -> None:
    def figures(amount: int, errors: int) -> dict[str, Any]:
        return {"id": "hub.example", "state": "active", "bytes": amount, "errors": errors, "speed": 1000}

    history = [
        *RUN[:2],
        entry(5, "sources", figures=[figures(10**9, 2)]),
        entry(6, "sources", figures=[figures(10**8, 1)]),
    ]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page(download(state="paused", verified=False), history, [], BEGAN + 9))
    place = cells.index("<bdi>hub.example</bdi>")
    assert cells[place + 1] == "1.1 GB"
    assert re.sub("<[^>]*>", "", cells[place + 3]) == "3"


def test_a_long_pause_leaves_room_for_what_moved() -> None:
    parts = stretches(RUN, BEGAN + 90_010)
    assert [part.state for part in parts] == ["queued", "running", "offline", "running", "verifying", "completed"]
    document = page(download(), RUN, pieces(3), BEGAN + 90_020)
    widths = {
        str(it["class"]): float(str(it["width"]))
        for tag, it in read(document).tags
        if tag == "rect" and "state " in str(it["class"])
    }
    assert widths["state offline"] < 150
    assert widths["state running"] > 250


odd = st.text(max_size=40) | st.sampled_from(
    ['"><script>alert(1)</script>', "</svg><img src=x onerror=alert(1)>", "\u202egpj.exe", "&lt;", "\x00\x1b[31m"]
)
states = st.sampled_from(
    [
        "queued",
        "running",
        "waiting",
        "offline",
        "blocked_disk",
        "paused",
        "verifying",
        "completed",
        "failed",
        "cancelled",
    ]
)
entries = st.lists(
    st.builds(
        HistoryEntry,
        st.floats(1e9, 2e9),
        st.just("state"),
        st.fixed_dictionaries(
            {"state": states, "done": st.integers(0, 1 << 50)},
            optional={"error": odd, "waiting_for": odd, "origin": odd},
        ),
    )
    | st.builds(
        HistoryEntry, st.floats(1e9, 2e9), st.just("sample"), st.fixed_dictionaries({"speed": st.integers(0, 1 << 50)})
    )
    | st.builds(
        HistoryEntry,
        st.floats(1e9, 2e9),
        st.just("source"),
        st.fixed_dictionaries(
            {"id": odd, "state": st.sampled_from(["active", "waiting", "quarantined", "gone"])},
            optional={"reason": odd},
        ),
    )
    | st.builds(HistoryEntry, st.floats(1e9, 2e9), odd, st.just({})),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(
    name=odd,
    url=odd,
    host=odd,
    reason=odd,
    state=states,
    history=entries,
    count=st.integers(0, 40),
    part=st.integers(0, 40),
)
def test_whatever_names_hosts_and_errors_are_it_stays_text(
    name: str, url: str, host: str, reason: str, state: Any, history: list[HistoryEntry], count: int, part: int
) -> None:
    shown = download(
        count,
        name=name,
        url=url,
        destination=name,
        group=host,
        origin=host,
        state=state,
        verified=state == "completed",
        waiting_for=reason,
        error=JobError(1, "x", reason, False),
        sources=[SourceFigures(id=host, state="gone", reason=reason)],
    )
    history.sort(key=lambda it: it.at)
    document = page(shown, history, pieces(part, source=host), 2e9 + 1)
    reader = read(document)
    assert {tag for tag, _ in reader.tags} <= {
        "html", "head", "meta", "title", "style", "body", "main", "header", "h1", "h2", "p", "b", "bdi", "span", "div",
        "section", "svg", "path", "rect", "line", "circle", "text", "table", "thead", "tbody", "tr", "th", "td", "code",
    }  # fmt: skip
    assert "\x1b" not in document
    assert "\u202e" not in document


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.2, "0.2 s"), (59.6, "60 s"), (75, "1 min 15 s"), (3600, "1 h"), (90_061, "1 d 1 h")]
)
def test_lengths_of_time_are_in_two_units(seconds: float, told: str) -> None:
    assert span(seconds) == told
