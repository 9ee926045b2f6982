"""From what happens in a house to a report: shown, used, counted, exported, added up over machines, judged."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jan_registry.collections import Branch, Experiment
from jan_registry.experiments.exposure import WINDOW
from jan_registry.experiments.methods import ExperimentMethods
from jan_registry.experiments.report import Unfit, assess, merged
from jan_registry.experiments.service import Experiments, Situation
from jan_registry.experiments.shapes import Aggregate, BranchCounts
from jan_registry.experiments.watching import Watch
from jan_registry.local import open_local
from msgspec.structs import replace

from jan_core import Context, Event, Method, RpcError, hookimpl, method, methods_of
from jan_core.testing import InlineSource
from jan_core.types import ChatRequest, InferenceOutcome, InferenceRequest, ModelRecord

pytestmark = pytest.mark.anyio
OpenHost = Callable[..., AbstractAsyncContextManager[Any]]

NOW = 1_800_000_000.0
ORDER = Experiment(
    id="order", title="Small ones first", branches=[Branch(id="control"), Branch(id="small", slot="small")]
)
FILES = {"a" * 64: ["org/a"], "b" * 64: ["org/b", "org/b-too"]}
SHOWN = [ModelRecord("org/a", "A"), ModelRecord("org/b", "B")]


class Lab:
    """An extension that takes part in experiments; the clock and the signed list are the test's."""

    def __init__(self) -> None:
        self.now, self.listed, self.enabled, self.slots = NOW, [ORDER], True, ["small"]
        self.methods = ExperimentMethods()

    @hookimpl
    async def jan_activate(self, ctx: Context) -> None:
        self.db = open_local(ctx.data_dir)
        self.experiments = Experiments(ctx, self.db, self.situation, lambda: self.now)
        self.methods.experiments = self.experiments
        self.watch = Watch(ctx, self.experiments.used, self.models_with)

    @hookimpl
    def jan_deactivate(self) -> None:
        self.db.close()

    @hookimpl
    def jan_methods(self) -> list[Method]:
        return methods_of(self.methods)

    @hookimpl
    async def jan_event(self, event: Event) -> None:
        await self.watch.event(event)

    @hookimpl
    async def jan_after_inference(self, outcome: InferenceOutcome) -> None:
        await self.watch.after_inference(outcome)

    async def situation(self) -> Situation | None:
        return Situation(self.listed, self.slots, {}, self.enabled)

    async def models_with(self, sha256: str) -> list[str]:
        return FILES.get(sha256, [])


class Engine:
    """An extension that has installed models."""

    asked = 0

    @method("models.list")
    async def installed(self, params: dict[str, Any]) -> dict[str, Any]:
        """What is installed."""
        self.asked += 1
        return {"models": [{"id": "mine", "origin": "org/a"}, {"id": "jan-tiny"}]}

    @hookimpl
    def jan_methods(self) -> list[Method]:
        return methods_of(self)


class House:
    def __init__(self, host: Any, lab: Lab, engine: Engine) -> None:
        self.host, self.lab, self.engine = host, lab, engine
        self.client = host.client()

    async def recommend(self) -> str:
        """Show the list once, and wait until that is noted. Answers the branch."""
        arm = await self.lab.experiments.choose()
        self.lab.experiments.shown(arm, SHOWN)
        await self.until(lambda: arm is None or bool(self.lab.experiments._exposures.evidence()))
        return arm.branch if arm else ""

    async def until(self, holds: Callable[[], bool]) -> None:
        with anyio.fail_after(20):
            while not holds():
                await anyio.lowlevel.checkpoint()

    async def report(self, **params: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self.client.call("registry.experiments", params)
        return answer

    async def used(self, *events: Event, scores: dict[str, float]) -> None:
        for event in events:
            self.host.bus.emit(event)
        await self.until(lambda: self.lab.experiments.usage.scores(self.lab.now) == scores)


@pytest.fixture
def open_lab(open_host: OpenHost) -> Callable[[], AbstractAsyncContextManager[House]]:
    @asynccontextmanager
    async def opener() -> AsyncIterator[House]:
        lab, engine = Lab(), Engine()
        sources = [InlineSource("lab", lab, ["registry."]), InlineSource("engine", engine, ["models."])]
        async with open_host(sources=sources) as host:
            yield House(host, lab, engine)

    return opener


@pytest.fixture
async def house(open_lab: Any) -> AsyncIterator[House]:
    async with open_lab() as opened:
        yield opened


def downloaded(sha256: str, job: str = "1", state: str = "completed") -> Event:
    return Event("downloads.changed", {"id": job, "state": state, "sha256": sha256, "actual_sha256": sha256})


# -- one machine -------------------------------------------------------------------------------------------------------


async def test_a_machine_counts_itself_once_its_week_is_over(house: House) -> None:
    branch = await house.recommend()
    await house.used(downloaded("A" * 64), scores={"org/a": 1.0})
    [early] = (await house.report())["experiments"]
    assert (early["status"], early["reason"], early["branch"], early["sessions"]) == (
        "enrolled",
        "qualified",
        branch,
        1,
    )
    mine = next(each for each in early["branches"] if each["branch"] == branch)
    assert (mine["enrolled"], mine["exposed"], mine["settled"], mine["converted"]) == (1, 1, 0, {})
    house.lab.now += WINDOW
    answer = await house.report()
    [late] = answer["experiments"]
    mine = next(each for each in late["branches"] if each["branch"] == branch)
    assert (mine["settled"], mine["converted"]) == (1, {"download": 1})
    assert (late["title"], late["comparisons"][0]["verdict"], late["stop"]) == ("Small ones first", "open", False)
    assert answer["own"][0]["branches"] == late["branches"]


async def test_downloads_loads_and_chats_are_told_apart_and_named_as_the_list_names_them(house: House) -> None:
    loaded = [Event("models.changed", {"id": "mine", "state": state}) for state in ("loading", "loaded", "loaded")]
    await house.used(*loaded, scores={"org/a": 0.5})
    request = InferenceRequest(ChatRequest(messages=[], model="mine"))
    for outcome in (
        InferenceOutcome("llamacpp", "mine", 1.0),
        InferenceOutcome("llamacpp", "mine", 1.0, error="worker_died"),
        InferenceOutcome("far", "mine", 1.0, where="remote"),
    ):
        await house.host.hooks.after_inference(request, outcome)
    await house.until(lambda: house.lab.experiments.usage.scores(NOW) == {"org/a": 1.5})
    several = [downloaded("b" * 64, str(shard)) for shard in range(3)]
    await house.used(downloaded("f" * 64), downloaded("a" * 64, state="running"), *several,
                     scores={"org/a": 1.5, "org/b": 1.0, "org/b-too": 1.0})  # fmt: skip
    assert house.engine.asked == 1


async def test_who_does_not_want_to_leaves_at_once_and_what_was_seen_is_gone(house: House) -> None:
    assert await house.recommend()
    house.lab.enabled = False
    await house.lab.experiments.reconsider()
    assert await house.lab.experiments.choose() is None
    answer = await house.report()
    assert (answer["enabled"], answer["own"]) == (False, [])
    assert (answer["experiments"][0]["status"], answer["experiments"][0]["reason"]) == ("disqualified", "opt-out")
    assert house.lab.experiments._exposures.evidence() == {}


async def test_a_branch_can_be_looked_at_without_being_counted_and_left_for_good(house: House) -> None:
    await house.client.call("registry.join", {"experiment": "order", "branch": "small"})
    arm = await house.lab.experiments.choose()
    assert arm is not None
    assert (arm.slot, arm.counted) == ("small", False)
    house.lab.experiments.shown(arm, SHOWN)
    answer = await house.report()
    assert (answer["experiments"][0]["reason"], answer["own"]) == ("opt-in", [])
    await house.client.call("registry.leave", {"experiment": "order"})
    assert await house.lab.experiments.choose() is None


async def test_who_takes_part_in_nothing_joins_nothing(house: House) -> None:
    house.lab.enabled = False
    with pytest.raises(RpcError, match="takes part in no experiments now"):
        await house.client.call("registry.join", {"experiment": "order", "branch": "small"})
    house.lab.enabled, house.lab.listed = True, [replace(ORDER, state="ended")]
    with pytest.raises(RpcError, match="order has ended"):
        await house.client.call("registry.join", {"experiment": "order", "branch": "small"})


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("join", {"experiment": "none", "branch": "small"}),
        ("join", {"experiment": "order", "branch": "none"}),
        ("leave", {"experiment": "none"}),
        ("experiments", {"merge": [{"experiment": "e", "key": "k", "branches": []}]}),
    ],
)
async def test_what_there_is_not_cannot_be_joined_left_or_added(house: House, name: str, params: Any) -> None:
    with pytest.raises(RpcError) as caught:
        await house.client.call(f"registry.{name}", params)
    assert caught.value.type == "invalid_params"


async def test_an_experiment_whose_slot_is_not_in_the_list_shows_nothing_in_any_branch(house: House) -> None:
    house.lab.slots = []
    assert await house.lab.experiments.choose() is None


async def test_what_is_shown_is_chosen_without_a_disk_as_long_as_nothing_changes(house: House) -> None:
    first = await house.lab.experiments.choose()
    house.lab.db.close()
    house.lab.db.path.unlink()
    assert await house.lab.experiments.choose() is first
    assert not house.lab.db.path.exists()


async def test_a_disk_that_does_not_do_leaves_everybody_with_what_all_see(open_lab: Any, tmp_path: Any) -> None:
    (tmp_path / "data" / "lab" / "registry.db").mkdir(parents=True)
    async with open_lab() as house:
        assert await house.lab.experiments.choose() is None
        await house.lab.experiments.used("org/a", "chat")
        report = await house.report()
        assert [line["reason"] for line in report["experiments"]] == ["unusable"]
        assert any("disk I/O error" in note for note in report["notes"])


# -- many machines -----------------------------------------------------------------------------------------------------


def counts(branch: str, *numbers: int, ratio: int = 1) -> BranchCounts:
    enrolled, exposed, settled, converted = numbers
    return BranchCounts(branch, ratio, enrolled, exposed, settled, {"download": converted} if converted else {})


def aggregate(*branches: BranchCounts, key: str = "order#1") -> Aggregate:
    return Aggregate("order", key, list(branches))


@pytest.mark.parametrize(
    ("control", "other", "verdict", "stop"),
    [
        (counts("control", 1000, 1000, 1000, 100), counts("small", 1000, 1000, 1000, 170), "better", False),
        (counts("control", 1000, 1000, 1000, 170), counts("small", 1000, 1000, 1000, 100), "worse", False),
        (counts("control", 1000, 1000, 1000, 100), counts("small", 1000, 1000, 1000, 104), "open", False),
        (counts("control", 2000, 2000, 2000, 200), counts("small", 2000, 1500, 1500, 250), "mismatch", True),
        (counts("control", 0, 0, 0, 0), counts("small", 0, 0, 0, 0), "open", False),
    ],
)
def test_counts_are_judged(control: BranchCounts, other: BranchCounts, verdict: str, stop: bool) -> None:
    report = assess(aggregate(control, other))
    [comparison] = report.comparisons
    assert (comparison.verdict, report.stop) == (verdict, stop)
    if comparison.difference is not None:
        assert comparison.low <= comparison.difference <= comparison.high


def test_several_branches_share_the_error_among_them() -> None:
    control, other = counts("control", 1000, 1000, 1000, 100), counts("b", 1000, 1000, 1000, 145)
    [alone] = assess(aggregate(control, other)).comparisons
    both = assess(aggregate(control, other, counts("c", 1000, 1000, 1000, 100))).comparisons
    assert both[0].p == pytest.approx(2 * alone.p)
    assert both[0].high - both[0].low > alone.high - alone.low


def test_branches_of_unequal_ratio_are_compared_by_their_ratio() -> None:
    unequal = (counts("control", 9000, 9000, 9000, 900, ratio=9), counts("b", 1000, 1000, 1000, 100))
    report = assess(aggregate(*unequal))
    assert (report.comparisons[0].verdict, report.stop, report.mismatch_p) == ("open", False, 1.0)


MACHINES = st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=40)


def machine(second: bool, far: int, key: str = "order#1") -> Aggregate:
    """One machine's: drawn, shown, settled, converted, as far as it came."""
    numbers = [int(far >= step) for step in range(4)]
    nothing = [0, 0, 0, 0]
    return aggregate(
        counts("control", *(nothing if second else numbers)),
        counts("small", *(numbers if second else nothing)),
        key=key,
    )


@settings(max_examples=50)
@given(MACHINES, st.randoms(use_true_random=False))
def test_sums_do_not_depend_on_who_added_them_up_first(
    machines: list[tuple[bool, int]], shuffle: random.Random
) -> None:
    each = [machine(*one, key=f"order#{number % 2}") for number, one in enumerate(machines)]
    at_once = merged(each)
    cut = shuffle.randrange(len(each) + 1)
    halves = [*merged(each[:cut]).values(), *merged(each[cut:]).values()]
    shuffle.shuffle(halves)
    assert merged(halves) == at_once
    assert sum(branch.enrolled for sums in at_once.values() for branch in sums.branches) == len(machines)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (aggregate(counts("control", 1, 2, 0, 0), counts("small", 0, 0, 0, 0)), "more machines were counted later"),
        (aggregate(counts("control", 1, 1, 0, 1), counts("small", 0, 0, 0, 0)), "more machines were counted later"),
        (aggregate(counts("control", 1, 1, 0, 0), counts("control", 0, 0, 0, 0)), "the same id"),
        (aggregate(counts("control", 1, 1, 0, 0), counts("third", 0, 0, 0, 0)), "other branches"),
        (aggregate(counts("control", 1, 1, 0, 0), counts("small", 0, 0, 0, 0, ratio=2)), "other branches"),
        (
            Aggregate("another", "order#1", [counts("control", 0, 0, 0, 0), counts("small", 0, 0, 0, 0)]),
            "other branches",
        ),
    ],
)
def test_counts_that_cannot_be_are_refused_with_their_place(bad: Aggregate, why: str) -> None:
    with pytest.raises(Unfit, match=why) as caught:
        merged([machine(False, 3), bad])
    assert caught.value.place == 1


async def test_what_many_machines_exported_is_added_to_what_was_counted_here(house: House) -> None:
    branch = await house.recommend()
    house.lab.now += WINDOW
    [own] = (await house.report())["own"]
    many = []
    for second, share in ((False, 0.1), (True, 0.3)):
        for number in range(400):
            other = {**own, "branches": [dict(each) for each in own["branches"]]}
            for place, each in enumerate(other["branches"]):
                here = int(place == second)
                each |= {"enrolled": here, "exposed": here, "settled": here,
                         "converted": {"download": 1} if here and number < share * 400 else {}}  # fmt: skip
            many.append(other)
    [report] = (await house.report(merge=many))["experiments"]
    assert sum(each["enrolled"] for each in report["branches"]) == 801
    assert report["comparisons"][0]["verdict"] == "better"
    [without] = (await house.report(merge=many, here=False))["experiments"]
    assert [each["enrolled"] for each in without["branches"]] == [400, 400]
    assert without["branch"] == branch


def test_an_export_has_nothing_but_the_experiment_and_counts() -> None:
    assert set(Aggregate.__struct_fields__) == {"experiment", "key", "branches", "metric"}
    assert set(BranchCounts.__struct_fields__) == {"branch", "ratio", "enrolled", "exposed", "settled", "converted"}
