"""The report of one machine's roll-out: its figures, its page, and what may be handed to the operator."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import anyio
import msgspec
import pytest
from jan_registry.errors import RegistryRefused
from jan_registry.rollout.compare import Deviation
from jan_registry.rollout.evalue import Tally
from jan_registry.rollout.export import Export, ExportDay, export
from jan_registry.rollout.fleet import Period, periods
from jan_registry.rollout.observations import Entered, Pair, Serve, Sync
from jan_registry.rollout.page import page
from jan_registry.rollout.report import RolloutReport, make
from msgspec.structs import replace

from jan_core import RpcError

from .conftest import OpenHouse
from .rollout_kit import BEGINNING, Machine

pytestmark = pytest.mark.anyio
DAY = 86_400
FIRST = (int(BEGINNING) // DAY + 1) * DAY
GOOD = Pair(builtin_us=100, dynamic_us=300, coverage=10_000, overlap=5_000, age=60)
VOID = {"meta"}


class Document(HTMLParser):
    """Reads a page as a browser would, and fails where tags do not fit into each other."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.seen: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.tags == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.tags.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


async def machine(tmp_path: Path) -> Machine:
    """Three days: fallback, mixed with one conflict and one error, and today."""
    async with anyio.create_task_group() as tasks:
        one = Machine(tmp_path, tasks, phase="mixed")
        seen = one.rollout.observations
        at = FIRST
        assert one.keeper.effective(at - 200).phase == "mixed"
        seen.add(at - 100, Entered(phase="mixed", level="signed", percent=25, reason="the operator asks for it"))
        seen.add(at + 10, Sync(outcome="ok", seq=3))
        seen.add(at + 20, Sync(outcome="refused", refused="expired"))
        seen.add(at + 30, Serve(arm="dynamic", count=10, errors=1, micros=[200] * 8 + [400]))
        seen.add(at + 40, GOOD)
        seen.add(at + 50, replace(GOOD, dynamic_us=-1, dynamic_error="OSError: no", coverage=-1))
        seen.add(at + DAY + 10, Serve(arm="dynamic", count=5, micros=[200] * 5))
        worst = Deviation("conflict", "<script>alert(1)</script>", "w.gguf: another hash or size")
        seen.add(at + DAY + 20, replace(GOOD, coverage=9_000, counts={"conflict": 1}, examples=[worst]))
        seen.add(at + DAY + 30, Entered(phase="fallback", level="demotion", reason="conflicts"))
        seen.add(at + 2 * DAY + 10, Serve(arm="builtin", count=7, micros=[100] * 7))
        one.clock.now = at + 2 * DAY + 3_600
        await one.rollout.check()
    return one


def report(one: Machine, *, again: bool = False, give: bool = False) -> RolloutReport:
    now = one.clock.now
    return make(one.rollout, one.keeper.effective(now), now, again=again, give=give)


async def test_the_figures_are_those_that_were_observed(tmp_path: Path) -> None:
    found = report(await machine(tmp_path))
    dynamic = next(arm for arm in found.arms if arm.arm == "dynamic")
    assert (dynamic.answers, dynamic.errors, dynamic.p50, dynamic.p95) == (15, 1, 200, 400)
    assert (found.syncs.ok, found.syncs.refused, found.syncs.kinds) == (1, 1, {"expired": 1})
    pairs = found.pairs
    assert (pairs.pairs, pairs.dynamic_errors, pairs.conflicts, pairs.coverage_lowest) == (3, 1, 1, 9_000)
    assert [(line.phase, line.level) for line in found.history][:2] == [("mixed", "signed"), ("fallback", "demotion")]
    assert [(day.answers, day.errors, day.conflicts, day.coverage) for day in found.days] == [
        (10, 2, 0, 10_000),
        (5, 0, 1, 9_000),
        (7, 0, 0, -1),
    ]
    assert len(found.decisions) == 1
    assert found.replayed is None
    assert found.export is None


async def test_decisions_are_made_again_where_that_is_asked_for(tmp_path: Path) -> None:
    one = await machine(tmp_path)
    assert report(one, again=True).replayed == {"same": 1, "differs": 0, "unknown": 0}
    with one.db.write() as db:
        db.execute("UPDATE decision SET inputs = replace(CAST(inputs AS TEXT), '\"conflicts\":1', '\"conflicts\":0')")
    found = report(one, again=True)
    assert found.replayed == {"same": 0, "differs": 1, "unknown": 0}
    assert found.decisions[0].replayed == "differs"


async def test_the_page_is_whole_loads_nothing_and_runs_nothing(tmp_path: Path) -> None:
    one = await machine(tmp_path)
    text = page(report(one, again=True), one.clock.now)
    document = Document(text)
    assert {"svg", "table", "style"} <= document.seen
    assert not document.seen & {"script", "img", "link", "iframe", "object", "form", "a"}
    assert not [name for name, _ in document.attributes if name in ("src", "href") or name.startswith("on")]
    assert "url(" not in text
    assert "@import" not in text
    assert "<script>alert(1)</script>" in "".join(document.words)
    assert "conflicts: 1, at most 0" in "".join(document.words)


async def test_the_page_of_a_machine_that_has_seen_nothing_says_so(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        one = Machine(tmp_path, tasks)
    words = "".join(Document(page(report(one, again=True), one.clock.now)).words)
    for said in ("No list was served", "were not compared yet", "Nothing was decided yet", "No phase was recorded"):
        assert said in words


async def test_what_is_handed_on_are_counts_of_whole_days_in_mixed_and_nothing_else(tmp_path: Path) -> None:
    given = report(await machine(tmp_path), give=True).export
    assert given is not None
    first = FIRST // DAY
    assert given.days == [
        ExportDay(day=first, percent=25, arm="dynamic", answers=10, errors=1, conflicts=0, demoted=False),
        ExportDay(day=first + 1, percent=25, arm="dynamic", answers=5, errors=0, conflicts=1, demoted=True),
    ]
    plain = msgspec.json.decode(msgspec.json.encode(given))
    assert {type(value) for day in plain["days"] for name, value in day.items() if name != "arm"} == {int, bool}
    assert msgspec.json.decode(msgspec.json.encode(given), type=Export) == given


async def test_refusals_are_counted_by_what_they_are(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        one = Machine(tmp_path, tasks)
        for kind in ("rollback", "rollback", "signature"):
            one.rollout.synced(one.keeper.effective(one.clock.now), RegistryRefused("no", kind=kind))
        await one.rollout.flush()
    assert report(one).syncs.kinds == {"rollback": 2, "signature": 1}


async def test_a_day_on_which_the_percentage_changed_is_not_handed_on(tmp_path: Path) -> None:
    one = await machine(tmp_path)
    raised = Entered(phase="mixed", level="signed", percent=50, reason="the operator asks for it")
    one.rollout.observations.add(FIRST + 5, raised)
    await one.rollout.flush()
    history = sorted(one.rollout.observations.latest("phase"), key=lambda row: -row.at)
    given = export(history, one.rollout.observations.latest("serve"), [], one.clock.now)
    assert [(day.day, day.percent) for day in given.days] == [(FIRST // DAY + 1, 50)]


def exported(number: int, arm: str, *, percent: int = 5, errors: int = 0, demoted: bool = False) -> ExportDay:
    return ExportDay(day=number, percent=percent, arm=arm, answers=9, errors=errors, conflicts=0, demoted=demoted)  # type: ignore[arg-type]


def test_many_exports_add_up_to_periods_with_a_gap_where_nobody_reported() -> None:
    exports = [
        Export(days=[exported(10, "dynamic"), exported(12, "dynamic", demoted=True)]),
        Export(days=[exported(10, "builtin", errors=2), exported(12, "builtin", demoted=True)]),
        Export(days=[exported(10, "dynamic", errors=1), exported(10, "dynamic", errors=1)]),
        Export(days=[exported(10, "dynamic", percent=25)]),
    ]
    assert periods(exports) == [
        Period(at=11 * DAY, percent=5, control=Tally(1, 1), candidate=Tally(2, 1)),
        Period(at=12 * DAY),
        Period(at=13 * DAY, percent=5, control=Tally(1, 0), candidate=Tally(1, 1)),
    ]
    assert periods([]) == []


async def test_the_operator_has_a_folder_of_exports_judged(open_house: OpenHouse, tmp_path: Path) -> None:
    folder = tmp_path / "exports"
    folder.mkdir()
    for number in range(2_000):
        days = [exported(day, "dynamic" if number % 20 == 0 else "builtin") for day in range(100, 105)]
        (folder / f"{number}.json").write_bytes(msgspec.json.encode(Export(days=days)))
    (folder / "broken.json").write_text('{"schema": 1, "days": [{"day": -1}]}')
    (folder / "named.json").write_text('{"schema": 1, "days": [], "machine": "anna"}')
    (folder / "notes.txt").write_text("not one of them")
    async with open_house() as house:
        answer = await house.client.call("registry.operator.fleet", {"folder": str(folder)})
        assert (answer["machines"], len(answer["periods"])) == (2_000, 5)
        assert answer["periods"][0]["control"] == {"units": 1_900, "failed": 0}
        assert [line.partition(":")[0] for line in answer["skipped"]] == ["broken.json", "named.json"]
        verdict = answer["verdicts"][-1]
        assert (verdict["action"], verdict["percent"], answer["percent"]) == ("stay", 5, 5)
        strict = await house.call("operator.fleet", folder=str(folder), margin=500)
        assert [each["action"] for each in strict["verdicts"]][:3] == ["stay", "stay", "promote"]
        assert "it does not count: machines were at 5 %, not at 25 %" in strict["verdicts"][3]["reason"]
        for params in (
            {"folder": "exports"},
            {"folder": str(folder), "steps": [5, 5]},
            {"folder": str(tmp_path / "no")},
        ):
            with pytest.raises(RpcError):
                await house.call("operator.fleet", **params)
