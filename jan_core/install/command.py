"""Runs a program: its output line by line, and no orphan whatever happens. It knows nothing of what it runs.

Cancelling the await ends the program with its children; so does the death of this process, because the program runs
on a leash (`leash.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import PIPE, STDOUT

__all__ = ["run"]

_LEASH = Path(__file__).with_name("leash.py")
_KEPT = 256 * 1024
"""Bytes of output kept: what went wrong stands at the end, and a program that never stops printing must not fill the
memory."""


async def run(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, on_line: Callable[[str], None] = lambda line: None
) -> tuple[int, str]:
    """Run `command`; returns its exit status (128 + n: ended by signal n) and the end of its output, stdout and stderr
    together. Raises OSError when it cannot be started."""
    import anyio

    process = await anyio.open_process(
        [sys.executable, "-I", str(_LEASH), *command], stdin=PIPE, stdout=PIPE, stderr=STDOUT, env=dict(env), cwd=cwd
    )
    try:
        assert process.stdout is not None
        output = pending = b""
        async for chunk in process.stdout:
            output = (output + chunk)[-_KEPT:]
            *lines, pending = (pending + chunk).split(b"\n")
            pending = pending[-_KEPT:]
            for line in lines:
                on_line(line.decode("utf-8", "replace").strip())
        return await process.wait(), output.decode("utf-8", "replace")
    finally:
        with anyio.CancelScope(shield=True):
            await process.aclose()  # closes the leash's input, which ends the program, and waits
