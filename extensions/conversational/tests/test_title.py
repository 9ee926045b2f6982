"""What a thread is called when nobody named it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_conversational.title import derive_title


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello there", "Hello there"),
        ("\n\n  Second   line \n third", "Second line"),
        ("word " * 20, " ".join(["word"] * 12) + "…"),
        ("x" * 100, "x" * 59 + "…"),
        ("你" * 100, "你" * 59 + "…"),
        ("a\x00b\tc", "a b c"),
        (" \n\t\r\n", ""),
        ("", ""),
    ],
)
def test_the_title_is_the_first_line_in_whole_words(text: str, title: str) -> None:
    assert derive_title(text) == title


@given(st.text(max_size=300))
def test_a_title_is_one_printable_line_of_at_most_60_characters(text: str) -> None:
    title = derive_title(text)
    assert len(title) <= 60
    assert title.isprintable()
    assert title == title.strip()
