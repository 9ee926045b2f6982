"""Runs one command in a process group of its own and ends the whole group when standard input ends.

Started as a script by `process.py`, with the parent holding the other end of standard input: when the parent
cancels, exits or is killed with SIGKILL, the pipe closes and the command goes with all its descendants (a
build is uv, Python, ninja and compilers). Exits with the command's status; 128 + n when signal n ended it.
Standard library only; knows nothing about engines. On Windows the tree is ended by `taskkill` (untested).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

_GRACE = 2.0  # seconds between asking a group to end and ending it: compilers remove their temporary files


def main(command: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the parent, which then closes our input
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=os.name == "posix")
    threading.Thread(target=_end_at_eof, args=(child,), daemon=True).start()
    status = child.wait()
    return 128 - status if status < 0 else status


def _end_at_eof(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    if os.name != "posix":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(child.pid)], capture_output=True, check=False)
    else:
        _signal_group(child.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE)
        _signal_group(child.pid, signal.SIGKILL)  # also those of the group that outlived their leader
    os._exit(128 + signal.SIGTERM)


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
