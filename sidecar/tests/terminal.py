"""A terminal for tests: a process on a pseudo-terminal, keys in, screen text out."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time

LIMIT = 60.0
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|[=>()][0-9A-B]?|\][^\x07]*\x07)")

# Makes the pseudo-terminal the child's controlling one, so that Ctrl-C is a signal there, as for a person.
_START = "import fcntl,os,sys,termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class Terminal:
    """`with Terminal(arguments, environment) as terminal:`; what was written since is in `raw`."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        # No answer comes to a question for the cursor's position: this terminal is nobody's screen.
        environment = {**environment, "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        self.raw = ""
        self._seen = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def expect(self, text: str) -> str:
        """Wait until `text` is shown after what was expected before; returns what was shown up to it."""
        deadline = time.monotonic() + LIMIT
        while text not in (plain := self.plain[self._seen :]):
            if time.monotonic() > deadline or not self._read(deadline):
                raise AssertionError(f"{text!r} was not shown; shown was: {plain!r}")
        end = plain.index(text) + len(text)
        self._seen += end
        return plain[:end]

    def wait(self) -> int:
        """Wait for the end; returns the exit status."""
        deadline = time.monotonic() + LIMIT
        while self._read(deadline):
            pass
        return self.process.wait(LIMIT)

    @property
    def plain(self) -> str:
        """All that was shown, without escape sequences."""
        return _ESCAPES.sub("", self.raw).replace("\r", "")

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux tells the end of the last writer so
            return False
        self.raw += data.decode("utf-8", "replace")
        return bool(data)
