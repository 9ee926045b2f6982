"""Properties of `TextStream`: the same text, whatever the tokens were."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.worker.text import TextStream

# A small alphabet makes stop strings meet the text; the wide one makes characters of 1 to 4 bytes.
NARROW = st.text("ab🙂é", max_size=24)
WIDE = st.text(max_size=24)
STOPS = st.lists(st.text("ab🙂é", min_size=1, max_size=5), max_size=4)


@st.composite
def cut_into_tokens(draw: st.DrawFn, text: st.SearchStrategy[str]) -> tuple[str, list[bytes]]:
    """A text, and its bytes cut anywhere: inside a character too."""
    chosen = draw(text)
    data = chosen.encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    edges = [0, *cuts, len(data)]
    return chosen, [data[a:b] for a, b in pairwise(edges)]


def stream(tokens: list[bytes], stops: list[str]) -> tuple[list[str], bool]:
    """The texts a consumer sees, the last for the end of the generation; and whether a stop string came."""
    text = TextStream(stops)
    seen = [text.feed(token) for token in tokens]
    return [*seen, text.finish()], text.stopped


def before_first_stop(text: str, stops: list[str]) -> tuple[str, bool]:
    """By definition: the first stop string is the one that ends first, of those the longest."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@given(cut_into_tokens(NARROW | WIDE), STOPS)
def test_any_cut_of_any_text_yields_exactly_what_stands_before_the_first_stop_string(
    case: tuple[str, list[bytes]], stops: list[str]
) -> None:
    text, tokens = case
    seen, stopped = stream(tokens, stops)
    assert ("".join(seen), stopped) == before_first_stop(text, stops)


@given(cut_into_tokens(WIDE))
def test_without_stop_strings_every_finished_character_is_shown_at_once(
    case: tuple[str, list[bytes]],
) -> None:
    _, tokens = case
    text, fed, seen = TextStream(), b"", ""
    for token in tokens:
        fed += token
        seen += text.feed(token)
        assert seen == fed.decode(errors="ignore")


@given(cut_into_tokens(NARROW), STOPS)
def test_text_is_held_back_only_while_it_could_begin_a_stop_string(
    case: tuple[str, list[bytes]], stops: list[str]
) -> None:
    _, tokens = case
    text, fed, seen = TextStream(stops), b"", ""
    for token in tokens:
        fed += token
        seen += text.feed(token)
        if text.stopped:
            break
        held = fed.decode(errors="ignore").removeprefix(seen)
        assert not held or any(stop.startswith(held) for stop in stops)


@given(st.lists(st.binary(max_size=6), max_size=8))
def test_bytes_that_are_no_text_become_replacement_characters_and_never_an_error(tokens: list[bytes]) -> None:
    seen, _ = stream(tokens, [])
    whole = b"".join(tokens).decode(errors="replace")
    assert whole.startswith("".join(seen))
    assert set(whole.removeprefix("".join(seen))) <= {"\ufffd"}, "only an unfinished end may be left out"


def test_a_character_cut_off_by_the_end_is_left_out_not_replaced() -> None:
    text = TextStream()
    assert text.feed("wörld 🙂".encode()[:-2]) + text.finish() == "wörld "
