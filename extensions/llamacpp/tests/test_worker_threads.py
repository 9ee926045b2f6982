"""How many threads to compute with: what the machine has, less what others use of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.worker.threads import PERIOD, ThreadGovernor, physical_cores


class Machine(ThreadGovernor):
    """A governor that is told what the kernel's accounting says: (seconds, CPU seconds of all, of this process)."""

    def __init__(self, cores: int, readings: list[tuple[float, float, float]]) -> None:
        self.applied: list[int] = []
        self._readings: Iterator[tuple[float, float, float]] = iter(readings)
        super().__init__(cores, adapt=True)

    def _read(self) -> tuple[float, float, float]:
        return next(self._readings)

    def _now(self) -> float:
        return self._last[0] + 2 * PERIOD


def load(cores: int, *foreign: float) -> Machine:
    """`foreign`: how many cores others keep busy, in each period. This process keeps all of its own busy."""
    readings = [(0.0, 0.0, 0.0)]
    for busy in foreign:
        now, everybody, own = readings[-1]
        readings.append((now + PERIOD, everybody + (busy + 1) * PERIOD, own + PERIOD))
    machine = Machine(cores, readings)
    for _ in foreign:
        if machine.look():
            machine.applied.append(machine.threads)
    return machine


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/stat")


@linux
def test_on_a_quiet_machine_every_core_is_used() -> None:
    assert load(4, 0.0, 0.1, 0.3).threads == 4


@linux
def test_a_core_that_others_use_is_left_to_them_at_once() -> None:
    machine = load(4, 1.0)
    assert machine.threads == 3
    assert machine.applied == [3]


@linux
def test_a_core_is_taken_back_only_after_a_calm_while() -> None:
    assert load(2, 1.0, 0.0).threads == 1
    assert load(2, 1.0, 0.0, 0.0, 0.0).threads == 2


@linux
@given(st.integers(2, 64), st.lists(st.floats(0, 100), max_size=20))
def test_there_is_always_a_thread_and_never_more_than_asked_for(cores: int, foreign: list[float]) -> None:
    machine = load(cores, *foreign)
    assert 1 <= machine.threads <= cores
    assert all(1 <= count <= cores for count in machine.applied)
    assert all(a != b for a, b in pairwise([cores, *machine.applied]))


def test_an_explicit_number_stays() -> None:
    governor = ThreadGovernor(3, adapt=False)
    assert not governor.look()
    assert governor.threads == 3


def test_there_is_at_least_one_core_and_no_more_than_the_system_says() -> None:
    assert 1 <= physical_cores() <= (os.cpu_count() or 1)
