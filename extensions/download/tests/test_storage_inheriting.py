"""A partial file that another job goes on with, whatever its pieces are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_download.records import Piece
from jan_download.storage.inheriting import in_pieces_of

from .faults import Hold
from .faultserver import FaultServer
from .house import OpenHouse, content, happens, piece_list

pytestmark = pytest.mark.anyio


@given(
    size=st.integers(1, 500),
    old=st.integers(1, 60),
    new=st.integers(1, 60),
    data=st.data(),
)
def test_no_byte_is_claimed_that_is_not_there_and_every_one_that_can_be_is(
    size: int, old: int, new: int, data: st.DataObject
) -> None:
    there: set[int] = set()
    pieces = []
    for index in range(-(-size // old)):
        most = min(old, size - index * old)
        length = data.draw(st.integers(0, most))
        pieces.append(Piece(index, length, source="h" if index % 2 else ""))
        there |= set(range(index * old, index * old + length))
    found = in_pieces_of(new, old, size, pieces)
    claimed = {index for piece in found for index in range(piece.index * new, piece.index * new + piece.length)}
    assert claimed <= there
    assert sum(piece.length for piece in found) == len(claimed), "no piece comes twice"
    for begin in range(0, size, new):
        prefix = 0
        while prefix < new and begin + prefix in there:
            prefix += 1
        assert set(range(begin, begin + prefix)) <= claimed
    for piece in found:
        whole = piece.length == min(new, size - piece.index * new)
        assert piece.state == ("whole" if whole else "begun")


@pytest.mark.parametrize(("first", "second"), [(1 << 20, None), (None, 1 << 20), (1 << 20, 3 << 20)])
async def test_what_was_fetched_in_pieces_of_another_length_is_not_fetched_again(
    open_house: OpenHouse, server: FaultServer, big: bytes, first: int | None, second: int | None
) -> None:
    url = server.serve("/f", big, Hold(after=20_000_000))
    lists = [piece_list(server, big, f"/{n}", n) if n else None for n in (first, second)]
    async with open_house() as house:
        job = await house.start(url, big, pieces=lists[0])
        await happens(server.wait_held)
        await house.see(job["id"], lambda job: job["bytes_done"] > 10_000_000)
        had = (await house.one("cancel", job["id"]))["bytes_done"]
        server.faults("/f")
        before = server.sent("/f")
        done = await house.fetch(url, big, pieces=lists[1])
        assert content(done) == big
        again = server.sent("/f") - before - (len(big) - had)
        assert done["bytes_discarded"] <= 8 * (8 << 20)
        assert again <= done["bytes_discarded"] + 2_000_000
        assert again < 0.5 * had
