"""One machine's roll-out: real keeper, shadow, gate and database; only time is simulated."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from jan_registry.errors import RegistryRefused, RegistryUnreachable
from jan_registry.rollout.observations import Entered, Pair, Serve
from jan_registry.rollout.replay import judges, replay
from jan_registry.rollout.shadow import Answer
from jan_registry.signed.report import CollectionReport, SyncReport

from .rollout_kit import Machine, answer, record

pytestmark = pytest.mark.anyio
DAY = 86_400
REPORT = SyncReport(collections=[CollectionReport(name="models", how="delta", seq=7)])


async def failing(question: str) -> Answer:
    raise OSError("no such table")


async def test_in_mixed_the_other_list_is_asked_after_an_answer_and_not_with_it(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        machine = Machine(tmp_path, tasks)
        machine.serve("builtin", micros=250)
        assert machine.asked == []
    await machine.rollout.flush()
    assert machine.asked == ["dynamic"]
    pair = machine.rollout.observations.latest("pair")[0].seen
    assert isinstance(pair, Pair)
    assert (pair.served, pair.builtin_us, pair.coverage, pair.cold) == ("builtin", 250, 10_000, True)
    assert 900 <= pair.dynamic_us <= 1_100


@pytest.mark.parametrize("phase", ["fallback", "dynamic"])
async def test_in_other_phases_nothing_runs_beside_what_is_served(tmp_path: Path, phase: str) -> None:
    async with anyio.create_task_group() as tasks:
        machine = Machine(tmp_path, tasks, phase=phase)  # type: ignore[arg-type]
        machine.serve("dynamic")
    assert machine.asked == []


async def test_one_pair_at_a_time_and_no_more_than_one_in_thirty_seconds(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        machine = Machine(tmp_path, tasks)
        for _ in range(10):
            machine.serve()
        await anyio.wait_all_tasks_blocked()
    async with anyio.create_task_group() as tasks:
        machine.serve()
        machine.clock.now += 29
        machine.serve()
    assert machine.asked == ["dynamic"]


@pytest.mark.parametrize("defect", ["conflict", "errors", "slow", "late"])
async def test_less_than_a_minute_lies_between_the_first_defect_and_the_stored_demotion(
    tmp_path: Path, defect: str
) -> None:
    machine: Machine

    async def dynamic(question: str) -> Answer:
        if defect == "errors":
            raise OSError("disk I/O error")
        machine.clock.now += {"slow": 2.4, "late": 2.9}.get(defect, 0)
        return answer([record("a", "b" * 64 if defect == "conflict" else "a" * 64), record("b")])

    async with anyio.create_task_group() as tasks:
        machine = Machine(tmp_path, tasks)
        for _ in range(30):  # a list that was good until now
            machine.serve()
            await settled(machine)
            machine.clock.now += 31
        machine.dynamic = dynamic
        first = machine.clock.now
        machine.serve()  # one request, and then nobody asks any more
        with anyio.fail_after(20):
            while machine.phase == "mixed":
                await anyio.wait_all_tasks_blocked()
                await anyio.lowlevel.checkpoint()
    decision = machine.rollout.decisions.latest(1)[0]
    assert (decision.from_phase, decision.to_phase) == ("mixed", "fallback")
    assert 0 <= decision.at - int(first) < 60
    events = [row for row in machine.rollout.observations.latest("pair") if row.at >= int(first)]
    assert len(events) == {"conflict": 1, "errors": 3, "slow": 21, "late": 4}[defect]
    assert replay(decision, judges()).outcome == "same"
    assert machine.keeper.effective(machine.clock.now).arm(listed=True) == "builtin"


async def settled(machine: Machine) -> None:
    """Until the pair under way is done."""
    with anyio.fail_after(10):
        while machine.rollout._shadow._running:
            await anyio.lowlevel.checkpoint()


async def test_one_bad_answer_is_looked_at_again_and_forgiven(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        machine = Machine(tmp_path, tasks)

        async def once(question: str) -> Answer:
            machine.dynamic = machine.good
            return await failing(question)

        machine.dynamic = once
        machine.serve()
    await machine.rollout.flush()
    assert machine.phase == "mixed"
    pairs = [row.seen for row in machine.rollout.observations.latest("pair")]
    assert [isinstance(pair, Pair) and pair.ok for pair in pairs] == [1, 0]


async def test_no_one_is_demoted_while_both_lists_fail(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        machine = Machine(tmp_path, tasks)
        machine.builtin = machine.dynamic = failing
        for _ in range(5):
            machine.serve("dynamic", error="OSError: disk")
            await settled(machine)
            machine.clock.now += 31
    assert machine.phase == "mixed"


async def test_in_dynamic_three_failed_answers_in_a_row_go_one_step_back(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        machine = Machine(tmp_path, tasks, phase="dynamic")
        for error in ("x", "x", "", "x", "x"):
            machine.serve("dynamic", error=error)
        await anyio.wait_all_tasks_blocked()
        assert machine.phase == "dynamic"
        machine.serve("dynamic", error="x")
    assert machine.phase == "mixed"
    assert machine.asked == []
    await machine.rollout.check()
    assert machine.phase == "mixed", "what was held against one phase is not held against the next"


async def test_in_mixed_without_a_shadow_three_failed_answers_in_a_row_go_one_step_back(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        machine = Machine(tmp_path, tasks, shadow=False)
        for _ in range(3):
            machine.serve("dynamic", error="x")
    assert (machine.phase, machine.asked) == ("fallback", [])


async def test_a_refused_fetch_keeps_from_promotion_and_never_demotes(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        machine = Machine(tmp_path, tasks)
        effective = machine.keeper.effective(machine.clock.now)
        machine.clock.now += 60
        for _ in range(50):
            machine.rollout.synced(effective, RegistryRefused("not signed", kind="signature"))
            machine.rollout.synced(effective, RegistryUnreachable("no answer"))
        verdict = await machine.rollout.check()
    assert verdict is not None
    assert verdict.action == "stay"
    refused = next(criterion for criterion in verdict.criteria if criterion.name == "refused syncs")
    assert (refused.value, refused.met) == (50, False)


async def test_twenty_good_syncs_over_three_days_lead_to_mixed_and_sixty_pairs_over_seven_to_dynamic(
    tmp_path: Path,
) -> None:
    async with anyio.create_task_group() as tasks:
        machine = Machine(tmp_path, tasks, phase="fallback")
        for _ in range(19):
            machine.rollout.synced(machine.keeper.effective(machine.clock.now), REPORT)
            await settled(machine)
            machine.clock.now += 4 * 3600
        await machine.rollout.check()
        assert machine.phase == "fallback"
        machine.rollout.synced(machine.keeper.effective(machine.clock.now), REPORT)
        await settled(machine)
        await machine.rollout.check()
        assert machine.phase == "mixed"
        began = machine.clock.now
        machine.clock.now += 1
        while machine.phase == "mixed":
            machine.serve()
            await settled(machine)
            machine.clock.now += 3 * 3600
            await machine.rollout.check()
            assert machine.clock.now - began < 9 * DAY
        assert machine.phase == "dynamic"
        assert machine.clock.now - began >= 7 * DAY
    moves = [d for d in machine.rollout.decisions.latest(100) if d.from_phase != d.to_phase]
    assert [(d.from_phase, d.to_phase) for d in reversed(moves)] == [("fallback", "mixed"), ("mixed", "dynamic")]
    stays = [d for d in machine.rollout.decisions.latest(100) if d.from_phase == d.to_phase]
    assert 7 <= len(stays) <= 10, "at most one a day"
    assert all(replay(d, judges()).outcome == "same" for d in moves + stays)
    entered = [row.seen for row in machine.rollout.observations.latest("phase")]
    assert [seen.phase for seen in reversed(entered) if isinstance(seen, Entered)] == ["fallback", "mixed", "dynamic"]


async def test_a_phase_that_the_person_chose_stays_whatever_is_seen(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        machine = Machine(tmp_path, tasks, setting="mixed")
        machine.dynamic = failing
        for _ in range(5):
            machine.serve()
            await settled(machine)
            machine.clock.now += 31
    assert machine.phase == "mixed"
    assert [d.to_phase for d in machine.rollout.decisions.latest(9)] == ["mixed"]


async def test_it_ends_with_its_tasks_and_keeps_what_was_seen(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        machine = Machine(tmp_path, tasks)
        never = anyio.Event()

        async def hanging(question: str) -> Answer:
            await never.wait()
            raise AssertionError

        machine.dynamic = hanging
        machine.serve()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert not machine.rollout._shadow._running
    await machine.rollout.flush()
    serve = machine.rollout.observations.latest("serve")[0].seen
    assert isinstance(serve, Serve)
    assert (serve.arm, serve.count) == ("builtin", 1)


async def test_a_disk_that_fails_costs_observations_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with anyio.create_task_group() as tasks:
        machine = Machine(tmp_path, tasks)
        machine.db.path.mkdir()
        assert await machine.rollout.check() is None
        machine.serve()
    assert "observations of the roll-out are lost" in caplog.text
