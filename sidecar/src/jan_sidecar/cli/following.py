"""Following downloads to their end: what the host tells is shown, Ctrl-C pauses them and says how to go on.

The events `downloads.changed` drive it. Of what another process of this data folder does there are none, so the records
are asked for once a second, too.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import anyio
import click

from .app import HINTS, Failed
from .output import note
from .session import Session
from .standing import LIVE, Record, Steady, under_way

if TYPE_CHECKING:
    from jan_core import Event

    from .bars import Bars
    from .lines import Lines

__all__ = ["begin", "fetch", "follow", "listed", "look_at", "members"]

LOOK = 1.0
"""Seconds after which the records are asked for."""
GRACE = 3.0
"""Seconds that a complete file is waited for to get its path. One of a group that is not complete gets none."""
Look = Callable[[], Awaitable[list[Record]]]


async def begin(session: Session, method: str, params: dict[str, Any], how: dict[str, Any]) -> Record:
    """Call `downloads.start` or `start_group`; returns its answer. `how`: limit, priority and time, as far as they were
    given: they hold for what is taken up again, too. Raises RpcError."""
    from jan_core import RpcError

    answer: Record = await session.call(method, {**params, **how})
    if how and any(map(under_way, listed(answer))):
        try:
            await session.call("downloads.configure", {"id": answer["id"], **how})
        except RpcError as error:
            if error.type != "download_conflict":  # it came to its end meanwhile
                raise
    return answer


async def fetch(session: Session, answer: Record | Sequence[Record], again: str = "") -> list[Record]:
    """Wait until downloads that were begun are all there, and show them meanwhile; returns their records.

    `answer`: of the method that began them, when they are of use only together; else their records. `again`: the
    command that goes on where this one was left. Raises click.Abort when interrupted (they are paused then), Failed
    when one of them fails, RpcError.
    """
    one, records = (True, listed(answer)) if isinstance(answer, dict) else (False, list(answer))
    again = again or f"jan downloads resume {answer['id'] if isinstance(answer, dict) else '--all'}"
    unknown = [record["name"] for record in records if under_way(record) and not record["sha256"]]
    remarks = [
        f"not checked: no SHA-256 is known for {name}, so nothing can tell whether it is right" for name in unknown
    ]
    records, interrupted = await follow(
        session, records, look_at(session, records), one=one, leaving=again, remarks=remarks
    )
    left = [record for record in records if record["state"] != "completed"]
    await _pause(session, [record["id"] for record in left if under_way(record)])
    if interrupted:
        if left:
            note(f"paused; go on with: {again}")
        raise click.Abort
    if left:
        raise _failure(records, again)
    for record in records:
        if not record["verified"]:
            known = f"; its SHA-256 is {record['actual_sha256']}" if record["actual_sha256"] else ""
            note(f"not checked: nobody knew what {record['name']} should hash to{known}")
    return records


async def follow(
    session: Session,
    records: Sequence[Record],
    look: Look,
    *,
    one: bool = False,
    leaving: str = "",
    every: bool = False,
    remarks: Sequence[str] = (),
) -> tuple[list[Record], bool]:
    """Show downloads until none of them comes further by itself; returns them as they stand then, and whether somebody
    interrupted. `one`: they are of use only together, and one that fails ends it. `every`: also those that begin
    meanwhile. `leaving`: the command to go on with when this one is ended as a whole. `remarks` come first."""
    board = {record["id"]: record for record in records}
    steady, changed, interrupted = Steady(), anyio.Event(), anyio.Event()
    looked, over = time.monotonic(), 0.0

    def hear(event: Event) -> None:
        if event.name == "downloads.changed":
            take([event.data])
            changed.set()

    def take(told: Sequence[Record]) -> None:
        board.update({it["id"]: it for it in told if it["id"] in board or (every and under_way(it))})

    def interrupt() -> None:
        interrupted.set()
        changed.set()

    view = _view()
    try:
        with session.hearing(hear), session.interrupts.stopping(interrupt, whole=False):
            for remark in remarks:
                note(remark)
            while not interrupted.is_set():
                if _over(board.values(), one):
                    over = over or time.monotonic()
                    if _usable(board.values()) or time.monotonic() - over > GRACE:
                        break
                view.show([steady.read(record) for record in board.values()])
                with anyio.move_on_after(LOOK / 2):
                    await changed.wait()
                if changed.is_set() and not interrupted.is_set():
                    changed = anyio.Event()
                if time.monotonic() - looked >= LOOK:
                    take(await look())
                    looked = time.monotonic()
    except anyio.get_cancelled_exc_class():
        if leaving:
            note(f"interrupted; what was fetched is kept: go on with: {leaving}")
        raise
    finally:
        view.close()
    return await look() if not interrupted.is_set() else list(board.values()), interrupted.is_set()


def _view() -> Bars | Lines:
    if sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown"):
        from .bars import Bars

        return Bars()
    from .lines import Lines

    return Lines()


def _over(records: Collection[Record], one: bool) -> bool:
    """Whether nothing moves any more, or what was wanted cannot come about."""
    states = {record["state"] for record in records}
    return (one and "failed" in states) or not states & set(LIVE)


def _usable(records: Collection[Record]) -> bool:
    """Whether there is no path to wait for: those of a group come together, a moment after its last file is there."""
    return any(record["state"] != "completed" for record in records) or all(record["path"] for record in records)


def listed(answer: Record) -> list[Record]:
    """The downloads of an answer: of a list, of a group, or the one that it is."""
    records: list[Record] = answer.get("downloads", [answer])
    return records


async def members(session: Session, id: str) -> list[Record]:
    """The download, or those of the group."""
    method = "downloads.group" if id.startswith("dg-") else "downloads.get"
    return listed(await session.call(method, {"id": id}))


def look_at(session: Session, records: Sequence[Record]) -> Look:
    """Asks how these downloads stand."""
    ids = [record["id"] for record in records]
    groups = {record["group"] for record in records}

    async def look() -> list[Record]:
        if len(ids) == 1 or len(groups) > 1 or "" in groups:
            return [await session.caller.call("downloads.get", {"id": id}) for id in ids]
        now = {it["id"]: it for it in listed(await session.caller.call("downloads.group", {"id": min(groups)}))}
        return [now[id] for id in ids if id in now]

    return look


async def _pause(session: Session, ids: Sequence[str]) -> None:
    from jan_core import RpcError

    for id in ids:
        try:
            await session.caller.call("downloads.pause", {"id": id})
        except RpcError as error:  # it may have come to its end just now
            if error.type != "download_conflict":
                note(f"{id} could not be paused: {error}")


def _failure(records: Sequence[Record], again: str) -> Failed:
    """What to say of downloads of which some did not come to their end, of the first that failed if one did."""
    left = [record for record in records if record["state"] != "completed"]
    worst = next((record for record in left if record["state"] == "failed"), left[0])
    error = worst.get("error") or {}
    message = error.get("message") or f"the download is {worst['state']}"
    kept = any(map(_kept, records))
    advice = f"what was fetched is kept; go on with: {again}" if kept else f"try again with: {again}"
    return Failed(f"{worst['name']}: {message}", HINTS.get(error.get("type", ""), advice))


def _kept(record: Record) -> bool:
    """Whether anything of a download is there: what is not the file that was asked for is thrown away."""
    if (record.get("error") or {}).get("type") == "hash_mismatch":
        return False
    return record["state"] == "completed" or any(letter in record["pieces"] for letter in "vwp")
