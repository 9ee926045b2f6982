"""Which messages are left out: properties of the strategy, for any conversation."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from jan_conversational.window import drop_oldest, must_stay

from jan_core.types import Assembly, Budget, ChatMessage, Thread

THREAD = Thread("t", "", "", "")


@st.composite
def assemblies(draw: st.DrawFn) -> Assembly:
    roles = draw(st.lists(st.sampled_from(["system", "user", "assistant", "tool"]), min_size=1, max_size=12))
    count = len(roles)
    return Assembly(
        THREAD,
        messages=[ChatMessage(role=r, content=str(i)) for i, r in enumerate(roles)],
        tokens=draw(st.lists(st.integers(0, 50), min_size=count, max_size=count)),
        ids=[str(i) for i in range(count)],
        pinned=sorted(draw(st.sets(st.integers(0, count - 1)))),
    )


@given(assemblies(), st.integers(0, 400))
def test_what_must_stay_stays_in_order_and_everything_is_accounted_for(before: Assembly, room: int) -> None:
    original = msgspec.json.encode(before)
    after = drop_oldest(before, Budget("m", room, 0))
    assert msgspec.json.encode(before) == original  # others may hold it
    assert {str(i) for i in must_stay(before)} <= set(after.ids)
    assert sorted([*after.ids, *after.omitted], key=int) == before.ids
    assert after.ids == sorted(after.ids, key=int)
    assert [m.content for m in after.messages] == after.ids
    assert [before.tokens[int(i)] for i in after.ids] == after.tokens
    assert {after.ids[i] for i in after.pinned} == {before.ids[i] for i in before.pinned}
    assert bool(after.omitted) == bool(after.notes)


@given(assemblies(), st.integers(0, 400))
def test_it_fits_or_nothing_more_can_go(before: Assembly, room: int) -> None:
    after = drop_oldest(before, Budget("m", room, 0))
    fits = sum(after.tokens) <= room
    assert fits or len(must_stay(after)) == len(after.messages)


@given(assemblies(), st.integers(0, 400))
def test_no_more_goes_than_must(before: Assembly, room: int) -> None:
    after = drop_oldest(before, Budget("m", room, 0))
    if sum(before.tokens) <= room:
        assert after is before
    dropped = [int(i) for i in after.omitted]
    if dropped:
        # Putting back the last question that went, with its answers, would not fit.
        starts = [i for i in dropped if before.messages[i].role == "user" or i == dropped[0]]
        assert sum(after.tokens) + sum(before.tokens[i] for i in dropped if i >= starts[-1]) > room


@given(assemblies(), st.integers(0, 400))
def test_no_answer_is_left_whose_question_went(before: Assembly, room: int) -> None:
    after = drop_oldest(before, Budget("m", room, 0))
    stay = {str(i) for i in must_stay(before)}
    for id in after.ids:
        earlier = [m for m in before.messages[: int(id)] if m.role == "user"]
        if before.messages[int(id)].role == "assistant" and id not in stay and earlier:
            assert earlier[-1].content in after.ids or earlier[-1].content in stay


def test_an_inconsistent_assembly_of_another_extension_is_left_alone() -> None:
    odd = Assembly(THREAD, [ChatMessage(role="user", content="x")] * 2, tokens=[100], ids=["a"])
    assert drop_oldest(odd, Budget("m", 10, 0)) is odd
