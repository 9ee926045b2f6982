"""Addresses and text from other people's servers."""

from __future__ import annotations

import unicodedata
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_registry.hubs.links import RepoPath, link, repo_path
from jan_registry.hubs.text import line, lines, tags


@pytest.mark.parametrize(
    ("url", "followed"),
    [
        ("https://example.org/a b/é?x=1", "https://example.org/a%20b/%C3%A9?x=1"),
        ("https://example.org/a%20b", "https://example.org/a%20b"),
        ("https://example.org/100%", "https://example.org/100%25"),
        (" https://example.org/a ", "https://example.org/a"),
        ("http://127.0.0.1:80/a", "http://127.0.0.1:80/a"),
        ("http://example.org/a", ""),
        ("ftp://example.org/a", ""),
        ("file:///etc/passwd", ""),
        ("https://user:secret@example.org/a", ""),
        ("https://user@example.org/a", ""),
        ("https:///a", ""),
        ("https://example.org:99999/a", ""),
        ("https://[::1/a", ""),
        ("//example.org/a", ""),
        ("https://example.org/" + "a" * 5000, ""),
        ("", ""),
    ],
)
def test_only_an_address_that_may_be_followed_stays_one(url: str, followed: str) -> None:
    assert link(url) == followed


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://huggingface.co/a/b/resolve/main/x.gguf", ("huggingface.co", "a/b", "main", "x.gguf")),
        (
            "https://huggingface.co/a/b/resolve/v%2F1/d%20d/x.gguf?download=true",
            ("huggingface.co", "a/b", "v/1", "d d/x.gguf"),
        ),
        ("https://hf.example/a/b/blob/main/x.gguf", ("hf.example", "a/b", "main", "x.gguf")),
        ("https://huggingface.co/a/resolve/main/x.gguf", None),
        ("https://huggingface.co/a/b/resolve/main/../x.gguf", None),
        ("https://huggingface.co/a/b/resolve/main/%2e%2e/x.gguf", None),
        ("https://huggingface.co/a/b/resolve/main/", None),
        ("http://huggingface.co/a/b/resolve/main/x.gguf", None),
    ],
)
def test_an_address_of_hugging_faces_form_names_a_file_in_a_repository(
    url: str, place: tuple[str, str, str, str] | None
) -> None:
    assert repo_path(url) == (RepoPath(*place) if place else None)


def test_text_is_shown_without_what_hides_or_turns_it() -> None:
    assert line("a\u202eb\x00c\n\td") == "a b c d"
    assert line("e\u0301") == "é"
    assert line("x" * 300) == "x" * 199 + "…"
    assert lines("a\r\nb\u2066") == "a\nb"
    assert tags(["a", "", "a", "b\n", "c" * 100]) == ["a", "b", "c" * 63 + "…"]


@given(st.text(max_size=400), st.integers(1, 300))
def test_any_text_becomes_one_line_of_the_length_asked_for(text: str, limit: int) -> None:
    shown = line(text, limit)
    assert len(shown) <= limit
    assert "\n" not in shown
    assert not any(unicodedata.category(c) == "Cc" for c in shown)


@given(st.text(max_size=80) | st.builds("https://{}".format, st.text(max_size=60)))
def test_any_text_is_an_address_of_plain_characters_or_none(text: str) -> None:
    url = link(text)
    if url:
        parts = urlsplit(url)
        assert url.isascii()
        assert " " not in url
        assert parts.hostname
        assert parts.username is None
        assert link(url) == url
    repo_path(text)
