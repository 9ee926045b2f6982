"""Stored decisions made again from their stored inputs, and held against what was decided, byte by byte.

A decision is replayed by the version of the gate that made it. One that no version here knows is said to be not
replayable, which is not the same as right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from ..collections import canonical
from .decisions import Decision
from .gates import Inputs, Verdict, judge

__all__ = ["Judge", "Replayed", "judges", "replay"]

Judge = Callable[[Inputs], Verdict]


class Replayed(Struct, frozen=True):
    """`same`: the same bytes again; `differs`: not, or the row says something else than its verdict; `unknown`: no
    gate here is of that version, or the inputs are not those of a gate."""

    number: int
    outcome: Literal["same", "differs", "unknown"]
    detail: str = ""


def judges() -> Mapping[int, Judge]:
    """The gates by version."""
    return {1: judge}


def replay(decision: Decision, known: Mapping[int, Judge]) -> Replayed:
    """Make one decision again."""
    try:
        gate = msgspec.json.decode(decision.inputs, type=_Version).gate
        if gate not in known:
            return Replayed(decision.number, "unknown", f"it was made by gate {gate}")
        inputs = msgspec.json.decode(decision.inputs, type=Inputs)
    except msgspec.MsgspecError as error:
        return Replayed(decision.number, "unknown", f"its inputs cannot be read: {error}")
    if canonical(msgspec.to_builtins(inputs)) != decision.inputs:
        return Replayed(decision.number, "differs", "its inputs are not as they were written")
    verdict = known[gate](inputs)
    again = canonical(msgspec.to_builtins(verdict))
    if again != decision.verdict:
        return Replayed(decision.number, "differs", f"the verdict is {again.decode()}")
    row = (decision.at, decision.from_phase, decision.to_phase, decision.reason)
    if row != (inputs.now, inputs.phase, verdict.phase, verdict.reason):
        return Replayed(decision.number, "differs", "the row says something else than its verdict")
    return Replayed(decision.number, "same")


class _Version(Struct):
    gate: int
