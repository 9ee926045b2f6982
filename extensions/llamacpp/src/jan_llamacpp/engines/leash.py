"""Runs one command in a session of its own and ends the whole session when standard input ends, or
when it is asked to end itself.

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
import time
from contextlib import suppress
from pathlib import Path

_GRACE = 2.0  # seconds for the group to end by itself
_ROUNDS = 200


def main(command: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the parent, which then closes our input
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=os.name == "posix")
    for name in ("SIGTERM", "SIGHUP"):  # they reach us when a whole process group is ended, the command's is another
        if number := getattr(signal, name, None):
            signal.signal(number, lambda *_: _end(child))
    threading.Thread(target=_end_at_eof, args=(child,), daemon=True).start()
    status = child.wait()
    return 128 - status if status < 0 else status


def _end_at_eof(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    if os.name != "posix":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(child.pid)], capture_output=True, check=False)
    else:
        _end_session(child)
    os._exit(128 + signal.SIGKILL)


def _end_session(child: subprocess.Popen[bytes]) -> None:
    """Kill everything the command started: all of its session, as ninja gives each compiler a group of its own.

    Where the system does not list sessions, the group is asked first, so that ninja ends its compilers, then killed.
    """
    if not Path("/proc/self/stat").exists():
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE)
    for _ in range(_ROUNDS):  # again, because one may have forked while the list was read
        members = _session(child.pid)
        if not members:
            break
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _session(leader: int) -> list[int]:
    """The living processes of a session, from /proc; the zombies among them are dead already."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            state, _, _, session = entry.read_text("utf-8").rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(entry.parent.name))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
