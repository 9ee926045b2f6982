"""One child process and its pipe: start it, exchange frames, keep its last words, know how it ended.

Knows the frames but nothing of models or requests: those are `client.py`'s. asyncio only.
Untested on Windows (nothing here needs POSIX; the proactor loop carries subprocess pipes).

The child ends with us, however we end: it reads the end of the pipe (`worker/main.py`), and should all its threads be
stuck, the system ends it (`worker/boot.py` on Linux, `winjob.py` on Windows; nothing of the kind on macOS). It starts
no process of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from .causes import Cause, cause_of
from .oom import oom_kills
from .winjob import tie
from .worker.frames import FrameDecoder, FrameError, frame
from .worker.protocol import FromWorker, ToWorker, decode_from_worker, encode

__all__ = ["Child", "ExitReason"]

PACKAGE = Path(__file__).resolve().parent
LOG_SIZE = 64 * 1024
GRACE_SECONDS = 0.5
KILL_SECONDS = 5.0
"""A process that was killed and is still there waits for a device; nobody waits for it any longer."""
KEPT = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TZ",
    "TMPDIR",
    "TEMP",
    "TMP",
    "SYSTEMROOT",
    "WINDIR",
    "LD_LIBRARY_PATH",
)
KEPT_PREFIXES = (
    "LC_",
    "CUDA_",
    "NVIDIA_",
    "HIP_",
    "HSA_",
    "ROC",
    "GGML_",
    "VK_",
    "XDG_",
    "DYLD_",
    "OMP_",
    "GOMP_",
)


class ExitReason(msgspec.Struct, frozen=True):
    """How the child ended. `code` is the exit status, or None when `signal` (its name) ended it.

    `expected`: the host asked for it. `log`: the last lines it wrote, at most 64 KiB. `cause`: why, when nobody asked.
    """

    code: int | None
    signal: str | None
    expected: bool
    log: str
    cause: Cause

    def __str__(self) -> str:
        return self.cause.message


class Child(asyncio.SubprocessProtocol):
    """A worker process. `on_message` gets every frame, in order, and `on_exit` is called once, after the
    last.

    Make one with `spawn`.
    """

    def __init__(self, on_message: Callable[[FromWorker], None], on_exit: Callable[[ExitReason], None]) -> None:
        self._on_message, self._on_exit = on_message, on_exit
        self._decoder = FrameDecoder()
        self._log = bytearray()
        self._expected = False
        self._hung: str | None = None
        self._tie: object = None
        self._oom_kills = oom_kills()
        self._transport: asyncio.SubprocessTransport
        self.exited: asyncio.Future[ExitReason] = asyncio.get_running_loop().create_future()

    @classmethod
    async def spawn(
        cls, engine_dir: Path, on_message: Callable[[FromWorker], None], on_exit: Callable[[ExitReason], None]
    ) -> Child:
        """Start a worker process for the engine in `engine_dir`. Raises OSError when it cannot be started.

        It stays in our process group (a terminal's hang-up reaches it) and ignores Ctrl-C itself.
        """
        arguments = (
            sys.executable, "-P", str(PACKAGE / "worker" / "boot.py"),
            str(engine_dir), str(PACKAGE.parent), str(Path(msgspec.__file__).parent.parent),
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        _, child = await loop.subprocess_exec(
            lambda: cls(on_message, on_exit), *arguments, env=_environment(), cwd=engine_dir, close_fds=True
        )
        with suppress(OSError):
            child._tie = tie(child.pid)
        return child

    @property
    def pid(self) -> int:
        return self._transport.get_pid()

    @property
    def log(self) -> str:
        """The end of what the child wrote to stderr."""
        return self._log.decode("utf-8", "replace")

    def send(self, message: ToWorker) -> None:
        """Queue a message. Without effect once the child is gone. Raises FrameError or UnicodeEncodeError."""
        data = frame(encode(message))
        pipe = self._transport.get_pipe_transport(0)
        if isinstance(pipe, asyncio.WriteTransport) and not pipe.is_closing():
            pipe.write(data)

    def kill(self) -> None:
        """End the child at once."""
        self._expected = True
        self._kill()

    def end_hung(self, how: str) -> None:
        """End a child that stands still. `how` becomes the cause of its end."""
        self._hung = how
        self._kill()

    @property
    def expected(self) -> bool:
        """Its end is: it was asked for."""
        return self._expected

    def expect_exit(self) -> None:
        """From here on the end of the child is no surprise."""
        self._expected = True

    def _kill(self) -> None:
        if self._transport.get_returncode() is None:
            self._transport.kill()
            asyncio.get_running_loop().call_later(KILL_SECONDS, self._ended)

    def _status(self) -> int | None:
        # Popen.kill looks for the status, too; when it is the one to find it, asyncio reports 255 instead.
        process = self._transport.get_extra_info("subprocess")
        found: int | None = process.returncode if process is not None else None
        return found if found is not None else self._transport.get_returncode()

    # --- what asyncio calls ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._log += data
            del self._log[:-LOG_SIZE]
            return
        try:
            for body in self._decoder.feed(data):
                self._on_message(decode_from_worker(body))
        except (FrameError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self._log += f"\nthe worker sent no frame of ours: {type(error).__name__}\n".encode()
            self._kill()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:  # It cannot answer any more, whatever else it may be doing. Mostly it is just ending.
            asyncio.get_running_loop().call_later(GRACE_SECONDS, self._kill)

    def process_exited(self) -> None:
        # Whoever inherited its pipes must not keep us waiting for their end.
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self._transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        # asyncio calls this last: the process has ended and its pipes are read to their end.
        self._ended()

    def _ended(self) -> None:
        if self.exited.done():
            return
        status = self._status()
        name = None
        if status is not None and status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        code, log = None if name else status, self.log
        oom_killed = name == "SIGKILL" and not self._expected and oom_kills() > self._oom_kills
        cause = cause_of(code=code, signal=name, log=log, oom_killed=oom_killed, hung=self._hung)
        reason = ExitReason(code, name, self._expected, log, cause)
        self._transport.close()
        self._tie = None
        self._on_exit(reason)
        self.exited.set_result(reason)


def _environment() -> dict[str, str]:
    """What a worker needs of ours: places, languages, drivers' settings; no secrets, no Python options."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.upper() in KEPT or name.upper().startswith(KEPT_PREFIXES)
    }
    if "CUDA_VISIBLE_DEVICES" not in kept:  # the order of `engines/hardware`; what a person numbered means CUDA's own
        kept.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    # An abort would start a debugger for a backtrace: seconds, and another process in our pipes.
    return {"GGML_NO_BACKTRACE": "1", **kept}
