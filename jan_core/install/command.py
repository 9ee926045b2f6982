"""Runs a program: its output line by line, and no orphan whatever happens. It knows nothing of what it runs.

The program runs under a leash: this same file, started as a script (standard library only). The leash starts the
program in a process group of its own, hands its output on, and ends the group as soon as the program or the leash's
standard input ends. We hold the other end of that input: cancelling the await closes it, and so does our death by any
signal. What leaves the group on purpose is not found again, but nobody waits for it. On Windows the tree is ended by
`taskkill` (untested).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

__all__ = ["run"]

_KEPT = 256 * 1024
"""Bytes of output kept: what went wrong stands at the end, and a program that never stops printing must not fill the
memory."""
_DRAIN = 1.0  # seconds for the last of its output, once it has ended
_GRACE = 2.0  # seconds for the group to end by itself: `uv` leaves its cache in order


async def run(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, on_line: Callable[[str], None] = lambda line: None
) -> tuple[int, str]:
    """Run `command`; returns its exit status (128 + n: ended by signal n) and the end of its output, stdout and stderr
    together. Raises OSError when it cannot be started."""
    import anyio

    process = await anyio.open_process(
        [sys.executable, "-I", "-S", __file__, *command],
        stdin=PIPE,
        stdout=PIPE,
        stderr=STDOUT,
        env=dict(env),
        cwd=cwd,
        start_new_session=os.name == "posix",  # a terminal's signals are for us, and a leash must not die before us
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


def _leash(command: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=os.name == "posix")
    threading.Thread(target=_end_with_input, args=(child,), daemon=True).start()
    # Not our own output: what the program leaves behind would hold it open.
    output = threading.Thread(target=_hand_on, args=(child,), daemon=True)
    output.start()
    status = child.wait()
    _end(child, signal.SIGKILL)
    output.join(_DRAIN)
    return 128 - status if status < 0 else status


def _end_with_input(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    _end(child, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(_GRACE)
    _end(child, signal.SIGKILL)


def _hand_on(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    with suppress(OSError):  # nobody reads any more
        while chunk := os.read(child.stdout.fileno(), 65536):
            while chunk:
                chunk = chunk[os.write(1, chunk) :]


if sys.platform == "win32":

    def _end(child: subprocess.Popen[bytes], how: int) -> None:
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(child.pid)], capture_output=True, check=False)

else:

    def _end(child: subprocess.Popen[bytes], how: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS: only zombies are left
            os.killpg(child.pid, how)


if __name__ == "__main__":
    sys.exit(_leash(sys.argv[1:]))
