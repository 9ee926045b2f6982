"""Runs one command in a process group of its own and ends the group when standard input ends.

Started as a script by `command.py`, which holds the other end of standard input: when the host cancels, exits or is
killed with SIGKILL, the pipe closes and the command goes with its children. Exits with the command's status; 128 + n
when signal n ended it. Standard library only. On Windows the tree is ended by `taskkill` (untested).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

_GRACE = 2.0  # seconds for the group to end by itself: `uv` leaves its cache in order


def main(command: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the host, which then closes our input
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
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # whoever did not hear
    os._exit(128 + 9)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
