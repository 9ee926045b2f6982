"""Memory while a huge file comes: what the host has more than before, and aria2c at most."""

from __future__ import annotations

import content
from kit import GB, MIB, Kit, NotTakenError, say
from machine import Load
from report import Reach, Report, Table, figure
from sides import ARIA2, OURS, take

__all__ = ["measure"]


async def measure(kit: Kit) -> Report:
    """Take all figures. Raises NotTakenError when there is no room for the file."""
    kit.room(kit.huge)
    say(f"memory: making a file of {kit.huge:,} MiB that takes no room")
    web = kit.serve(content.holes(kit.fresh("huge") / "model.bin", kit.huge * MIB))
    report, rows, load = Report(), [], Load(lambda: [web.pid])
    for side in (*OURS, ARIA2[0]):
        say(f"memory: {side}")
        try:
            took = await take(side, kit, web, check=False)
        except NotTakenError as error:
            report.notes.append(str(error))
            continue
        grown = took.peak - took.before if took.before else None
        figures = [took.peak, took.before or None, grown, web.content.size / GB * 1000 / took.seconds]
        rows.append([side, *map(figure, figures)])
        if side in OURS:
            report.reaches.append(Reach(f"{side}: more than before", grown, 64, "MiB"))
    columns = ["", "at most, MiB", "before", "more", "MB/s, checked"]
    report.tables.append(Table(f"Memory with a file of {kit.huge:,} MiB", columns, rows))
    report.notes.append(f"one run each; the file is zeros but for 8 bytes in 8 MiB; {kit.busy(load)}")
    return report
