"""How detection asks a machine: commands with a time limit, files, folders. Nothing is interpreted here.

Everything a detector knows comes through `Tools`, so that a test can stand in for any machine. No answer is an
exception: what went wrong is in `Answer.problem`, or an empty text.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from msgspec import Struct

__all__ = ["TIMEOUT", "Answer", "Answers", "Command", "SystemTools", "Tools", "ask_all"]

TIMEOUT = 5.0
"""Seconds. A healthy nvidia-smi without persistence mode takes up to three on a machine with eight cards."""

_LIMIT = 4 * 2**20  # characters kept of an output; nvidia-smi tells 150 kB of eight cards
_GRACE = 0.5  # seconds for the pipes of a killed command
_PLACES = {
    "linux": ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/opt/rocm/bin", "/usr/lib/wsl/lib"),
    "darwin": ("/usr/sbin", "/usr/bin"),
    "win32": (r"C:\Windows\System32", r"C:\Program Files\NVIDIA Corporation\NVSMI"),
}


class Answer(Struct, frozen=True):
    """What a command said. `problem` is empty when it ran to its end, whatever its `status`."""

    status: int = 0
    output: str = ""
    error: str = ""
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem and self.status == 0

    @property
    def text(self) -> str:
        """Both outputs: some tools complain on the one, some on the other."""
        return f"{self.output}\n{self.error}"

    @property
    def first_line(self) -> str:
        """The first line that says something, shortened: for a person."""
        lines = (line.strip() for line in self.text.splitlines())
        said = next((line for line in lines if any(sign.isalnum() for sign in line)), "")
        return "".join(sign for sign in said if sign.isprintable())[:200]


Command = tuple[str, ...]
Answers = Mapping[Command, Answer]


class Tools(Protocol):
    """A machine, as detection sees it. `platform` as `sys.platform`, `machine` as `platform.machine()`, `threads`:
    the logical processors this process may use.
    """

    @property
    def platform(self) -> str: ...
    @property
    def machine(self) -> str: ...
    @property
    def threads(self) -> int: ...

    def env(self, name: str) -> str | None:
        """A variable of the environment; None when it is not set."""
        ...

    def has(self, name: str) -> bool:
        """Whether a command of this name is installed."""
        ...

    def run(self, command: Command) -> Answer:
        """Run a command to its end, or to the time limit."""
        ...

    def read(self, path: str) -> str:
        """A text file; empty when it cannot be read."""
        ...

    def names(self, path: str) -> list[str]:
        """The names in a folder, sorted; empty when it cannot be read."""
        ...


class SystemTools:
    """The machine this runs on."""

    platform = sys.platform

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout

    @property
    def machine(self) -> str:
        return platform.machine()

    @property
    def threads(self) -> int:
        if sys.platform == "linux":
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    def env(self, name: str) -> str | None:
        return os.environ.get(name)

    def has(self, name: str) -> bool:
        return self._find(name) is not None

    def run(self, command: Command) -> Answer:
        path = self._find(command[0])
        if path is None:
            return Answer(problem=f"{command[0]} is not installed")
        # C: the words looked for are English, and numbers have points.
        env = {**os.environ, "LC_ALL": "C", "LANG": "C"}
        options: dict[str, Any] = {"creationflags": 0x08000000} if os.name == "nt" else {"start_new_session": True}
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        try:
            process = subprocess.Popen([path, *command[1:]], stdin=null, stdout=pipe, stderr=pipe, env=env, **options)
        except OSError as failure:
            return Answer(problem=f"{command[0]} could not be started: {failure.strerror or failure}")
        return self._collect(process, command[0])

    def _collect(self, process: subprocess.Popen[bytes], name: str) -> Answer:
        # By threads, not communicate(): a tool stuck in its driver cannot even be killed, and would be waited for.
        outputs = [_Reader(stream) for stream in (process.stdout, process.stderr) if stream]
        outputs[0].join(self._timeout)
        status, problem = -1, ""
        if outputs[0].full:
            problem = f"{name} printed without end"
        else:
            try:
                status = process.wait(0 if outputs[0].is_alive() else self._timeout)
            except subprocess.TimeoutExpired:
                problem = f"{name} gave no answer in {self._timeout:g} s"
        if problem:
            _kill(process)
        for output in outputs:
            output.join(_GRACE)
        texts = [bytes(output.data).decode("utf-8", "replace") for output in outputs]
        return Answer(status, texts[0], texts[1], problem)

    def read(self, path: str) -> str:
        try:
            with Path(path).open("rb") as file:
                return file.read(_LIMIT).decode("utf-8", "replace")
        except (OSError, ValueError):
            return ""

    def names(self, path: str) -> list[str]:
        try:
            return sorted(entry.name for entry in os.scandir(path))
        except (OSError, ValueError):
            return []

    def _find(self, name: str) -> str | None:
        # Not shutil.which: on Windows it looks into the working folder first, where anybody may have put something.
        folders = [*_PLACES.get(sys.platform, ()), *os.environ.get("PATH", "").split(os.pathsep)]
        suffix = ".exe" if os.name == "nt" else ""
        for folder in folders:
            path = Path(folder) / (name + suffix)
            if path.is_absolute() and os.access(path, os.X_OK) and path.is_file():
                return str(path)
        return None


class _Reader(threading.Thread):
    """Reads one pipe up to the limit. A daemon: it may hang as long as the tool does."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(daemon=True, name="detection")
        self.data = bytearray()
        self.full = False
        self._stream = stream
        self.start()

    def run(self) -> None:
        with self._stream:
            while block := self._stream.read1(65536):  # type: ignore[attr-defined]  # a BufferedReader
                self.data += block
                if len(self.data) > _LIMIT:
                    self.full = True
                    return


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        if os.name == "nt":
            process.kill()
        else:
            os.killpg(process.pid, 9)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)


def ask_all(tools: Tools, commands: Iterable[Command]) -> dict[Command, Answer]:
    """Run the commands at the same time; those that are not installed cost nothing."""
    wanted = list(commands)
    there = [command for command in wanted if tools.has(command[0])]
    answers = {command: Answer(problem=f"{command[0]} is not installed") for command in wanted}
    if there:
        with ThreadPoolExecutor(len(there), thread_name_prefix="detection") as pool:
            answers.update(zip(there, pool.map(tools.run, there), strict=True))
    return answers
