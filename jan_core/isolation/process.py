"""One child interpreter: started, spoken to until it has imported its extension, ended, and how it ended in words.

Each child leads a process group of its own, so that a terminal's Ctrl-C is the host's business alone and what the
extension starts can be ended with it. Three things see to it that a child never outlives its host: both sockets reach
their end; a thread in it watches the host (`child.py`); and on Linux the kernel kills the whole group when the host's
end of the *lifeline* closes, which needs no cooperation of the child at all: a regular expression that never ends holds
the interpreter's lock, and no thread of that process will run again.

Knows no requests (`link.py`) and no restarts (`supervisor.py`). POSIX only: Windows cannot hand over sockets this way.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from ..rpc import messages
from ..rpc.framing import MAX_MESSAGE
from .shapes import Hello

__all__ = ["Child", "ChildFailed"]

BOOT = "import sys; sys.path[:] = sys.argv[5:]; from jan_core.isolation.child import main; main(*sys.argv[1:5])"

MOST_WORDS = 64 << 10
"""Bytes kept of the stacks that a dying process tells: what a pipe holds."""

LAST_MOMENT = 1.0
"""Seconds to wait for the status of a process whose sockets are closed already."""


class ChildFailed(Exception):
    """The process could not be started, or ended, before it had said what it is."""


class Child:
    """A child process. Making one starts it; `end` ends it, from any thread, any number of times.

    `requests` is the socket on which the host asks, `calls` the one on which the child does. Raises ChildFailed.
    """

    def __init__(self, name: str) -> None:
        if os.name != "posix" or getattr(sys, "frozen", False) or not sys.executable:
            raise ChildFailed("isolation needs a POSIX system and an interpreter of its own to start")
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._buffer = b""
        self.status: int | None = None
        """The exit status, negative for a signal's number, once it has ended."""
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            self.requests, asked = socket.socketpair()
            ours.enter_context(self.requests)
            theirs.enter_context(asked)
            self.calls, answered = socket.socketpair()
            ours.enter_context(self.calls)
            theirs.enter_context(answered)
            reading, self._lifeline = os.pipe()
            ours.callback(os.close, self._lifeline)
            theirs.callback(os.close, reading)
            self._words, writing = os.pipe()
            ours.callback(os.close, self._words)
            theirs.callback(os.close, writing)
            os.set_blocking(self._words, False)
            descriptors = (asked.fileno(), answered.fileno(), reading, writing)
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", BOOT, *map(str, descriptors), *sys.path],
                    stdin=subprocess.DEVNULL,
                    stdout=_stderr(),  # a stray print() of the extension cannot reach anybody's channel
                    pass_fds=descriptors,
                    process_group=0,
                )
            except OSError as error:
                raise ChildFailed(f"its process could not be started: {error}") from error
            ours.pop_all()  # else there is no process, and nothing is to be left of it
        threading.Thread(target=self._wait, name=f"child {name}", daemon=True).start()

    def begin(self, hello: Hello, limit: float) -> bytes:
        """Let it import its extension; returns its answer, a JSON-RPC message. Blocks, for `limit` seconds at most.

        Raises ChildFailed.
        """
        until = time.monotonic() + limit
        params = {"clientInfo": {"name": "host"}, "hello": hello}
        message = messages.encode({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}) + b"\n"
        try:
            self.requests.settimeout(limit)
            self.requests.sendall(message)
            while b"\n" not in self._buffer:
                self.requests.settimeout(max(until - time.monotonic(), 0.001))
                data = self.requests.recv(1 << 16)
                if not data or len(self._buffer) > MAX_MESSAGE:
                    break
                self._buffer += data
        except TimeoutError:
            raise ChildFailed(f"it had not been imported after {limit:g} s") from None
        except OSError:
            pass  # it ended: its status says more
        answer, newline, self._buffer = self._buffer.partition(b"\n")
        if not newline:
            self.join(LAST_MOMENT)
            raise ChildFailed(f"its process {self.how()} while it was imported")
        return answer

    def rest(self) -> bytes:
        """What it said after its answer already."""
        rest, self._buffer = self._buffer, b""
        return rest

    def on_exit(self, listener: Callable[[], None]) -> None:
        """Call `listener` once it has ended, from another thread; at once when it has already."""
        with self._lock:
            if self.status is None:
                self._listeners.append(listener)
                return
        listener()

    def join(self, limit: float) -> None:
        """Wait until it has ended. Blocks."""
        ended = threading.Event()
        self.on_exit(ended.set)
        ended.wait(limit)

    def how(self) -> str:
        """How it ended, as the rest of a sentence about it."""
        if self.status is None:
            return "did not end"
        if self.status >= 0:
            return f"ended with status {self.status}"
        try:
            name = signal.Signals(-self.status).name
        except ValueError:
            name = f"signal {-self.status}"
        return f"was ended by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")

    def end(self) -> None:
        """End it and whatever it has started, now."""
        with self._lock:
            if self.status is None:
                self._kill()

    def abort(self) -> None:
        """End it so that it says what it was doing (`last_words`); what it has started ends with it."""
        with self._lock:
            if self.status is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(self._process.pid, signal.SIGABRT)

    def last_words(self) -> str:
        """What the interpreter wrote of the threads' stacks as a fatal signal ended it; empty when it had no time."""
        with contextlib.suppress(OSError):
            return os.read(self._words, MOST_WORDS).decode("utf-8", "replace")
        return ""

    def close(self) -> None:
        """End it, and give back the descriptors. Only when nothing on the event loop waits for them."""
        self.end()
        self._close()

    def _kill(self) -> None:
        # Its number stays its own until `wait` has fetched its status, which happens under the same lock.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _wait(self) -> None:
        if hasattr(os, "waitid"):  # not on macOS before 3.13
            with contextlib.suppress(ChildProcessError):  # somebody in this process waits for everybody's
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        else:
            self._process.wait()
        with self._lock:
            self._kill()  # what it has started and left behind
            self.status = self._process.wait()
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def _close(self) -> None:
        self.requests.close()
        self.calls.close()
        for descriptor in (self._lifeline, self._words):
            if descriptor >= 0:
                os.close(descriptor)
        self._lifeline = self._words = -1


def _stderr() -> int:
    try:
        os.fstat(2)
    except OSError:  # closed, as by a shell that wants no output
        return subprocess.DEVNULL
    return 2
