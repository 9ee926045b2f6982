"""One file from nginx on loopback onto the disk, its SHA-256 checked: ours beside the others, in turns."""

from __future__ import annotations

from kit import GB, Kit, NotTakenError, say
from machine import Load
from report import Reach, Report, Table, figure, ratio
from sides import ARIA2, HTTPX, OURS, SIDES, Took, take
from spread import median, percentile, spread

__all__ = ["measure"]


async def measure(kit: Kit) -> Report:
    """Take all figures. Raises NotTakenError without nginx."""
    web, report = kit.web, Report()
    taken: dict[str, list[Took]] = {side: [] for side in SIDES}
    load = Load(lambda: [web.pid])
    for number in range(kit.runs):
        order = list(SIDES) if number % 2 == 0 else list(reversed(SIDES))
        for side in [side for side in order if side in taken]:
            say(f"throughput: {number + 1} of {kit.runs}, {side}")
            try:
                taken[side].append(await take(side, kit, web, check=number == 0))
            except NotTakenError as error:
                report.notes.append(str(error))
                del taken[side]
    size = web.content.size / GB
    report.tables = [_speeds(taken, size), _ratios(taken), _computing(taken, size), _lags(taken)]
    report.reaches = _reaches(taken)
    report.notes += [
        f"{web.content.size / (1 << 20):,.0f} MiB, medians of {kit.runs} runs in alternating order (least to most); "
        + kit.busy(load),
        "all have checked a SHA-256 when they are done, but for the one that is called unchecked",
    ]
    return report


def _speeds(taken: dict[str, list[Took]], size: float) -> Table:
    columns = ["", "MB/s, checked", "checked and on the disk", "until it came, s", "was checked", "was on the disk"]
    rows = []
    for side, runs in taken.items():
        until = [(took.transfer, took.seconds, took.seconds + took.sync) for took in runs]
        came, checked, synced = ([times[n] for times in until] for n in range(3))
        speeds = (spread([size * 1000 / seconds for seconds in each]) for each in (checked, synced))
        rows.append([side, *speeds, *(figure(median(each)) for each in (came, checked, synced))])
    return Table("Throughput", columns, rows)


def _ratios(taken: dict[str, list[Took]]) -> Table:
    rows = []
    for other in taken:
        if other not in OURS:
            rows.append([other, *(figure(ratio(_best(taken, [other]), _best(taken, [each]))) for each in OURS)])
    return Table("Times as fast as", ["", *OURS], rows)


def _computing(taken: dict[str, list[Took]], size: float) -> Table:
    rows = []
    for side, runs in taken.items():
        used = [median([took.computing / size for took in runs]), median([took.server / size for took in runs])]
        grown = median([took.peak - took.before for took in runs]) if runs[0].before else None
        rows.append([side, *map(figure, [*used, median([took.peak for took in runs]), grown])])
    columns = ["", "computing, s per GB", "nginx meanwhile", "memory at most, MiB", "more than before"]
    return Table("Computing and memory", columns, rows)


def _lags(taken: dict[str, list[Took]]) -> Table:
    rows = []
    for side in OURS:
        late = [seconds * 1e3 for took in taken.get(side, []) for seconds in took.late]
        found = [percentile(late, share) for share in (0.5, 0.95, 0.99)] + [max(late, default=None)]
        rows.append([side, *map(figure, found), figure(len(late))])
    columns = ["", "p50, ms", "p95", "p99", "most", "ticks"]
    return Table("How late a timer of 2 ms is on the host's event loop meanwhile", columns, rows)


def _reaches(taken: dict[str, list[Took]]) -> list[Reach]:
    reaches = []
    for side in OURS:
        mine = _best(taken, [side])
        late = [seconds * 1e3 for took in taken.get(side, []) for seconds in took.late]
        reaches += [
            Reach(f"{side}: over aria2c's best, checked", ratio(_best(taken, ARIA2), mine), 1, at_least=True),
            Reach(f"{side}: over httpx's best", ratio(_best(taken, HTTPX), mine), 3, at_least=True),
            Reach(f"{side}: the event loop, p99", percentile(late, 0.99) if late else None, 10, "ms"),
        ]
    return reaches


def _best(taken: dict[str, list[Took]], sides: list[str] | tuple[str, ...]) -> float | None:
    """Seconds of the fastest of some, checked; the median of its runs."""
    found = [median([took.seconds for took in taken[side]]) for side in sides if taken.get(side)]
    return min((seconds for seconds in found if seconds is not None), default=None)
