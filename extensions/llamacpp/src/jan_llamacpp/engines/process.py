"""Runs a command of an installation: its output line by line into a log file, and no orphan whatever happens.

It knows nothing of uv or engines. Cancelling the await ends the command with all its descendants; so does the
death of this process, because the command runs on a leash (`leash.py`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyio.abc import Process

__all__ = ["run"]

_LEASH = Path(__file__).with_name("leash.py")
_LINE_LIMIT = 64 * 1024
_NICENESS = 10


async def run(
    command: Sequence[str],
    *,
    log: Path,
    cwd: Path,
    env: Mapping[str, str],
    on_line: Callable[[str], None] = lambda line: None,
    background: bool = True,
    holding: Sequence[int] = (),
) -> tuple[int, str]:
    """Run `command`; returns its exit status (128 + n: ended by signal n) and its output, stdout and stderr
    together.

    The output is appended to `log` as it comes and given to `on_line` line by line. `background` lowers the
    command's priority, because the person is using the machine while an engine builds. `holding`: descriptors that the
    leash keeps open until all of the command is gone (POSIX). Raises OSError when the command cannot be started.
    """
    import anyio

    process = await anyio.open_process(
        [sys.executable, "-I", str(_LEASH), *command],
        stdin=PIPE,
        stdout=PIPE,
        stderr=STDOUT,
        env=dict(env),
        cwd=cwd,
        pass_fds=tuple(holding) if os.name == "posix" else (),
    )
    if background and hasattr(os, "setpriority"):
        niceness = max(_NICENESS, os.getpriority(os.PRIO_PROCESS, 0))  # only root may go below one's own
        os.setpriority(os.PRIO_PROCESS, process.pid, niceness)
    try:
        with log.open("ab") as file:
            output = await _read(process, file.write, on_line)
        return await process.wait(), output
    finally:
        with anyio.CancelScope(shield=True):
            await process.aclose()  # closes the leash's input, which ends the command, and waits


async def _read(process: Process, write: Callable[[bytes], object], on_line: Callable[[str], None]) -> str:
    assert process.stdout is not None
    lines: list[str] = []
    pending = b""
    async for chunk in process.stdout:
        write(chunk)
        *whole, pending = (pending + chunk).split(b"\n")
        for raw in whole:
            lines.append(raw[:_LINE_LIMIT].decode("utf-8", "replace").rstrip("\r"))
            on_line(lines[-1])
        pending = pending[:_LINE_LIMIT]
    if pending:
        lines.append(pending.decode("utf-8", "replace"))
        on_line(lines[-1])
    return "\n".join(lines)
