"""Recorded machines: what the tools and files of one machine say, out of a text file in `recorded/`.

See `recorded/README.md` for the format and for where the texts come from.
"""

from __future__ import annotations

from pathlib import Path

from jan_llamacpp.engines.hardware.tools import Answer, Command

__all__ = ["NAMES", "RecordedTools"]

_FOLDER = Path(__file__).parent / "recorded"
NAMES = sorted(path.stem for path in _FOLDER.glob("*.txt"))


class RecordedTools:
    """Stands in for `SystemTools`. `env`: variables beside the recorded ones; `asked`: the commands that were run."""

    def __init__(self, name: str, **env: str) -> None:
        self._env: dict[str, str] = {}
        self._files: dict[str, str] = {}
        self._folders: dict[str, list[str]] = {}
        self._answers: dict[str, Answer] = {}
        self.asked: list[Command] = []
        text = (_FOLDER / f"{name}.txt").read_text("utf-8")
        latest = ""
        for part in text.split("\n@@ ")[1:]:
            head, _, body = part.partition("\n")
            kind, _, rest = head.partition(" ")
            body = body.removesuffix("\n")
            if kind == "machine":
                self.platform, self.machine, threads = rest.split()
                self.threads = int(threads)
            elif kind == "env":
                variable, _, value = rest.partition("=")
                self._env[variable] = value
            elif kind == "read":
                self._files[rest] = body
            elif kind == "list":
                self._folders[rest] = sorted(body.splitlines())
            elif kind == "run":
                status, _, latest = rest.partition(" ")
                self._answers[latest] = Answer(int(status), body)
            elif kind == "stderr":
                said = self._answers[latest]
                self._answers[latest] = Answer(said.status, said.output, body)
            elif kind == "hang":
                program = rest.split()[0]
                self._answers[rest] = Answer(-1, problem=f"{program} gave no answer in 5 s")
            else:
                raise AssertionError(f"{name}: {head}")
        self._env.update(env)

    def env(self, name: str) -> str | None:
        return self._env.get(name)

    def has(self, name: str) -> bool:
        return any(command.split()[0] == name for command in self._answers)

    def run(self, command: Command) -> Answer:
        self.asked.append(command)
        unknown = Answer(problem=f"{command[0]} is not installed")
        return self._answers.get(" ".join(command), unknown)

    def read(self, path: str) -> str:
        return self._files.get(path, "")

    def names(self, path: str) -> list[str]:
        return self._folders.get(path, [])
