"""The roll-out's report as one HTML page: nothing is loaded, nothing runs, and it can be kept or sent as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape

from .gates import Criterion, Thresholds
from .plots import Series, bands, lines
from .report import DayFigures, PhaseLine, RolloutReport

__all__ = ["page"]

LISTED = 60

STYLE = """
:root { color-scheme: light dark; --back: #f6f7f9; --card: #fff; --ink: #1c2330; --soft: #5c6675; --rule: #dde1e8;
  --dynamic: #2563c9; --builtin: #b4560b; --good: #1b7f4b; --bad: #c22f2f; --wait: #8a6500;
  --fallback-band: #7d8797; --mixed-band: #a8680e; --dynamic-band: #2563c9; }
@media (prefers-color-scheme: dark) { :root { --back: #12161d; --card: #1a202a; --ink: #e7ebf2; --soft: #9aa6b8;
  --rule: #2d3644; --dynamic: #76a9fa; --builtin: #f0a05a; --good: #5cc98d; --bad: #f28080; --wait: #e0b64c;
  --fallback-band: #5b6677; --mixed-band: #8f5a10; --dynamic-band: #2b5fb8; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 0 0 12px; }
p { margin: 0; } .soft { color: var(--soft); }
header { margin-bottom: 24px; } header p { max-width: 75ch; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 18px 20px;
  margin-bottom: 16px; overflow-x: auto; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px; margin-bottom: 16px; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 14px; }
.tile b { display: block; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.3; }
.tile span { color: var(--soft); font-size: 13px; }
.phase { display: inline-block; padding: 1px 10px; border-radius: 99px; color: #fff; font-size: 15px; font-weight: 600;
  vertical-align: 3px; margin-left: 8px; }
.phase.fallback { background: var(--fallback-band); } .phase.mixed { background: var(--mixed-band); }
.phase.dynamic { background: var(--dynamic-band); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: 13px; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
tr:last-child td { border-bottom: 0; } .n { text-align: right; white-space: nowrap; } .t { white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); } .wait { color: var(--wait); }
svg { display: block; width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
svg text.on { fill: #fff; font-weight: 600; } .grid { stroke: var(--rule); } .limit { stroke: var(--wait);
  stroke-dasharray: 5 4; } .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.line.dynamic, .line.dynamic-low { stroke: var(--dynamic); }
.line.builtin, .line.builtin-low { stroke: var(--builtin); }
.line.dynamic-low, .line.builtin-low { stroke-width: 1.3; stroke-dasharray: 2 3; }
.dot.dynamic, .dot.dynamic-low { fill: var(--dynamic); } .dot.builtin, .dot.builtin-low { fill: var(--builtin); }
.band.fallback { fill: var(--fallback-band); } .band.mixed { fill: var(--mixed-band); }
.band.dynamic { fill: var(--dynamic-band); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; color: var(--soft); font-size: 13px; margin-bottom: 8px; }
.key { display: inline-block; width: 18px; margin-right: 6px; vertical-align: 4px; border-top: 2px solid; }
.key.low { border-top-style: dotted; } .key.dynamic { color: var(--dynamic); } .key.builtin { color: var(--builtin); }
details summary { cursor: pointer; color: var(--soft); } details table { margin-top: 10px; }
"""


def page(report: RolloutReport, now: float) -> str:
    """The whole document. `report` needs its decisions replayed to say whether they come out the same."""
    body = [
        _head(report),
        _tiles(report),
        _section("Phase", _history(report, now)),
        _section("Latency", _latency(report.days)),
        _section("Coverage", _coverage(report.days)),
        _section("What the next step needs", _gate(report)),
        _section("How the two lists differ", _deviations(report)),
        _section("Decisions", _decisions(report)),
        _section("Days", _days(report.days)),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Roll-out of the model list: {escape(report.phase)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _head(report: RolloutReport) -> str:
    since = f" since {_time(report.since)}" if report.since else ""
    return (
        f'<header><h1>Roll-out of the model list <span class="phase {escape(report.phase)}">{escape(report.phase)}'
        f"</span></h1><p>In <b>{escape(report.phase)}</b>{since}: {escape(report.reason)}.</p>"
        f'<p class="soft">As of {_time(report.at)}. Everything here was seen on this machine and stayed on it.</p>'
        "</header>"
    )


def _tiles(report: RolloutReport) -> str:
    pairs, syncs = report.pairs, report.syncs
    served = {arm.arm: arm for arm in report.arms}
    errors = sum(arm.errors for arm in report.arms)
    tiles = [
        (f"{sum(arm.answers for arm in report.arms):,}", "answers served", ""),
        (_micros(served["dynamic"].p95), "p95 served, dynamic list", ""),
        (_micros(served["builtin"].p95), "p95 served, built-in list", ""),
        (_share(pairs.coverage), "of built-in ids are covered", ""),
        (f"{pairs.conflicts:,}" if pairs.pairs else "–", "conflicts", "bad" if pairs.conflicts else ""),
        (f"{errors + pairs.dynamic_errors:,}", "errors", "bad" if errors + pairs.dynamic_errors else ""),
        (_seconds(pairs.age), "median age of the list", ""),
        (f"{syncs.ok:,}", f"syncs, {syncs.unreachable:,} unanswered, {syncs.refused:,} refused", ""),
    ]
    inside = (
        f'<div class="tile"><b class="{style}">{value}</b><span>{name}</span></div>' for value, name, style in tiles
    )
    return f'<div class="tiles">{"".join(inside)}</div>'


def _history(report: RolloutReport, now: float) -> str:
    if not report.history:
        return _empty("No phase was recorded yet; the first entry is made within a minute of the start.")
    begins = [datetime.fromisoformat(line.at).timestamp() for line in report.history]
    total = max(1.0, now - begins[0])
    spans = [
        ((begin - begins[0]) / total, (end - begins[0]) / total, line.phase, f"{_time(line.at)}: {line.reason}")
        for line, begin, end in zip(report.history, begins, [*begins[1:], now], strict=True)
    ]
    rows = (
        (_time(line.at), _phase(line), f"{escape(line.level)}: {escape(line.reason)}")
        for line in reversed(report.history[-LISTED:])
    )
    bar = bands("Phases over time", spans, (_time(report.history[0].at), _time(report.at)))
    return bar + _table((("since", "t"), ("phase", "t"), ("who decided, and why", "")), rows)


def _phase(line: PhaseLine) -> str:
    return f"{escape(line.phase)}, {line.percent} %" if line.phase == "mixed" else escape(line.phase)


def _latency(days: Sequence[DayFigures]) -> str:
    series = [
        Series("dynamic p95", "dynamic", [_known(day.dynamic_p95) for day in days]),
        Series("dynamic p50", "dynamic-low", [_known(day.dynamic_p50) for day in days]),
        Series("built-in p95", "builtin", [_known(day.builtin_p95) for day in days]),
        Series("built-in p50", "builtin-low", [_known(day.builtin_p50) for day in days]),
    ]
    plot = lines("Latency by day", [day.day for day in days], series, lambda micros: _micros(round(micros)))
    keys = [("dynamic", "dynamic, p95"), ("dynamic low", "p50"), ("builtin", "built-in, p95"), ("builtin low", "p50")]
    legend = "".join(f'<span><i class="key {style}"></i>{name}</span>' for style, name in keys)
    return f'<div class="legend">{legend}</div>{plot}' if plot else _empty("No list was served or measured yet.")


def _coverage(days: Sequence[DayFigures]) -> str:
    limit = Thresholds().coverage
    series = [Series("lowest", "dynamic", [_known(day.coverage) for day in days])]
    plot = lines(
        "Coverage by day, the lowest of each",
        [day.day for day in days],
        series,
        lambda share: _share(round(share)),
        low=9_800,
        limit=(f"needed: {_share(limit)}", limit),
    )
    told = (
        "The share of the built-in list's ids that the dynamic list can resolve or has deprecated; the lowest of a day."
    )
    return f'<p class="legend">{told}</p>{plot}' if plot else _empty("The two lists were not compared yet.")


def _gate(report: RolloutReport) -> str:
    gate = report.gate
    rows = [_criterion(criterion, "good" if criterion.met else "wait") for criterion in gate.criteria]
    rows += [_criterion(defect, "bad") for defect in gate.defects]
    told = f"<p>The gate would now {escape(gate.action)}: {escape(gate.reason)}.</p>"
    columns = (("", ""), ("what", ""), ("seen", "n"), ("needed", "n"))
    return told + (_table(columns, rows) if rows else "")


def _criterion(criterion: Criterion, style: str) -> tuple[str, ...]:
    mark = {"good": "✓ met", "wait": "· not yet", "bad": "✗ overstepped"}[style]
    bound = f"{criterion.bound} {_amount(criterion.name, criterion.threshold)}"
    return (
        f'<span class="{style}">{mark}</span>',
        escape(criterion.name),
        _amount(criterion.name, criterion.value),
        bound,
    )


def _deviations(report: RolloutReport) -> str:
    pairs = report.pairs
    if pairs.coverage < 0:
        return _empty("The two lists were not compared yet.")
    if not pairs.counts:
        return _empty("The newest comparison found no difference.")
    counts = ", ".join(f"{count:,} {escape(kind)}" for kind, count in sorted(pairs.counts.items()))
    rows = ((escape(each.kind), escape(each.id), escape(each.what)) for each in pairs.examples)
    overlap = f"{_share(pairs.overlap)} of the first ten are common"
    return f"<p>In the newest comparison: {counts}; {overlap}.</p>" + _table(
        (("kind", ""), ("model", ""), ("what", "")), rows
    )


def _decisions(report: RolloutReport) -> str:
    if not report.decisions:
        return _empty("Nothing was decided yet; a check is made every quarter of an hour, and at once after a defect.")
    told = ""
    if report.replayed is not None:
        same, differs, unknown = (report.replayed[name] for name in ("same", "differs", "unknown"))
        style = "bad" if differs else "good"
        told = (
            f'<p class="{style}">{same:,} come out the same again, {differs:,} differ, {unknown:,} not replayable.</p>'
        )
    rows = (
        (
            _time(line.at),
            escape(line.from_phase) if line.from_phase == line.to_phase else f"{line.from_phase} → {line.to_phase}",
            escape(line.reason),
            f'<span class="{ {"differs": "bad", "same": "good"}.get(line.replayed, "") }">{line.replayed}</span>',
        )
        for line in report.decisions[:LISTED]
    )
    return told + _table((("at", "t"), ("phase", "t"), ("why", ""), ("again", "")), rows)


def _days(days: Sequence[DayFigures]) -> str:
    if not days:
        return _empty("Nothing was seen yet.")
    columns = (
        ("day", "t"), ("answers", "n"), ("dynamic p95", "n"), ("built-in p95", "n"), ("pairs", "n"), ("coverage", "n"),
        ("conflicts", "n"), ("errors", "n"), ("syncs", "n"), ("refused", "n"),
    )  # fmt: skip
    rows = (
        (
            day.day,
            f"{day.answers:,}",
            _micros(day.dynamic_p95),
            _micros(day.builtin_p95),
            f"{day.pairs:,}",
            _share(day.coverage),
            f"{day.conflicts:,}",
            f"{day.errors:,}",
            f"{day.syncs:,}",
            f"{day.refused:,}",
        )
        for day in reversed(days)
    )
    return f"<details><summary>{len(days):,} days as a table</summary>{_table(columns, rows)}</details>"


def _section(title: str, inside: str) -> str:
    return f"<section><h2>{title}</h2>{inside}</section>"


def _empty(text: str) -> str:
    return f'<p class="soft">{text}</p>'


def _table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> str:
    """Headings with the style of their column; cells are HTML."""
    head = "".join(f'<th class="{style}">{name}</th>' for name, style in columns)
    lines_ = (
        "".join(f'<td class="{style}">{cell}</td>' for cell, (_, style) in zip(row, columns, strict=True))
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in lines_)}</tbody></table>"


def _amount(name: str, value: int) -> str:
    if value < 0:
        return "nothing yet"
    if name.startswith(("span", "age")):
        return _seconds(value)
    if name.startswith("p95"):
        return _micros(value)
    return _share(value) if name == "coverage" else f"{value:,}"


def _known(value: int) -> float | None:
    return float(value) if value >= 0 else None


def _micros(value: int) -> str:
    if value < 0:
        return "–"
    return f"{value / 1000:.3g} ms" if value >= 1000 or not value else f"{value} µs"


def _share(value: int) -> str:
    return f"{value / 100:g} %" if value >= 0 else "–"


def _seconds(value: int) -> str:
    if value < 0:
        return "–"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value} s"


def _time(text: str) -> str:
    """An RFC 3339 time without what nobody reads."""
    return escape(text[:16].replace("T", " "))
