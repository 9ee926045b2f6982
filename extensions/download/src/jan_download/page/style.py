"""The page's stylesheet: light and dark as the reader's machine has it, narrow and wide."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --back: #f6f7f9; --card: #fff; --ink: #1c2330; --soft: #5c6675; --rule: #dde1e8;
  --good: #1b7f4b; --bad: #c22f2f; --wait: #8a6500; --line: #2563c9; --hole: #e7eaef;
  --running: #2563c9; --verifying: #12805c; --waiting: #b07c00; --offline: #6b7585; --blocked: #b4433a;
  --paused: #8b94a3; --failed: #c22f2f; --queued: #7b8798;
  --s0: #2f6fd0; --s1: #d9822b; --s2: #2a9d6e; --s3: #9b59b6; --s4: #c2405b; --s5: #3aa6b9; --others: #8a7f6d; }
@media (prefers-color-scheme: dark) { :root { --back: #12161d; --card: #1a202a; --ink: #e7ebf2; --soft: #9aa6b8;
  --rule: #2d3644; --good: #5cc98d; --bad: #f28080; --wait: #e0b64c; --line: #76a9fa; --hole: #2a323f;
  --running: #2b5fb8; --verifying: #15785a; --waiting: #8f6a10; --offline: #566070; --blocked: #9c3c35;
  --paused: #4d5766; --failed: #a83232; --queued: #4a5361;
  --s0: #5b93ea; --s1: #e69a4e; --s2: #4cc090; --s3: #b884d0; --s4: #e0677f; --s5: #5ec6d8; --others: #a89c86; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 24px; line-height: 1.35; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 0 0 12px; }
p { margin: 0; max-width: 75ch; overflow-wrap: anywhere; } .soft { color: var(--soft); }
header { margin-bottom: 24px; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 18px 20px;
  margin-bottom: 16px; overflow-x: auto; }
section > p + .legend { margin-top: 10px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 12px; margin-bottom: 16px; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 14px; }
.tile b { display: block; font-size: 21px; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.3; }
.tile span { color: var(--soft); font-size: 13px; }
.badge { display: inline-block; padding: 1px 10px; border-radius: 99px; color: #fff; background: var(--queued);
  font-size: 15px; font-weight: 600; vertical-align: 3px; margin-left: 6px; white-space: nowrap; }
.badge.running { background: var(--running); } .badge.completed, .badge.verifying { background: var(--verifying); }
.badge.waiting { background: var(--waiting); } .badge.offline { background: var(--offline); }
.badge.blocked_disk { background: var(--blocked); } .badge.failed { background: var(--failed); }
.badge.paused { background: var(--paused); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: 13px; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
td { overflow-wrap: anywhere; }
tr:last-child td { border-bottom: 0; } .n { text-align: right; white-space: nowrap; } .t { white-space: nowrap; }
td.t { width: 1%; }
.h { min-width: 13em; } .w { min-width: 16em; }
code { font: 13px/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
.good { color: var(--good); } .bad { color: var(--bad); } .wait { color: var(--wait); }
.timeline { display: block; width: 100%; height: auto; min-width: 560px; }
.timeline text { font: 12px system-ui, sans-serif; fill: var(--soft); }
.timeline text.on { fill: #fff; font-weight: 600; } .grid { stroke: var(--rule); }
.line { fill: none; stroke: var(--line); stroke-width: 2; stroke-linejoin: round; }
.area { fill: var(--line); opacity: .12; } .dot { fill: var(--line); }
.state { fill: var(--queued); } .state.running { fill: var(--running); } .state.waiting { fill: var(--waiting); }
.state.offline { fill: var(--offline); } .state.blocked_disk { fill: var(--blocked); }
.state.paused { fill: var(--paused); } .state.failed { fill: var(--failed); }
.state.verifying, .state.completed { fill: var(--verifying); }
.pieces { display: block; width: 100%; height: auto; } .gaps { stroke: var(--card); fill: none; }
.s0 { fill: var(--s0); } .s1 { fill: var(--s1); } .s2 { fill: var(--s2); } .s3 { fill: var(--s3); }
.s4 { fill: var(--s4); } .s5 { fill: var(--s5); } .others { fill: var(--others); } .missing { fill: var(--hole); }
.whole { fill-opacity: .6; } .begun { fill-opacity: .3; } .again { fill: var(--bad); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; color: var(--soft); font-size: 13px; margin-bottom: 12px; }
.legend b { font-weight: 400; color: var(--ink); font-variant-numeric: tabular-nums; }
.key { width: 12px; height: 12px; margin-right: 6px; vertical-align: -1px; }
@media (max-width: 600px) { main { padding: 20px 12px 40px; } section { padding: 14px; }
  .tiles { grid-template-columns: 1fr 1fr; } .tile b { font-size: 18px; } .h { min-width: 9em; }
  td.t { white-space: normal; overflow-wrap: normal; min-width: 7em; } }
"""
