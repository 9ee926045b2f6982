"""Record the golden transcripts of `clients/transcripts` from the `jan-sidecar` beside this interpreter.

    python tools/transcripts.py

Look at the diff: each line of it is a change that frontends see.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "clients" / "transcripts"
RULES: dict[str, Any] = json.loads((FOLDER / "rules.json").read_text("utf-8"))
HELLO = {"protocolVersion": "1.0", "clientInfo": {"name": "transcript", "version": "1"}}


def normalised(value: Any) -> Any:
    """A message with the rules applied."""
    if isinstance(value, list):
        return [normalised(part) for part in value]
    if isinstance(value, dict):
        members = RULES["members"]
        return {name: members[name] if name in members else normalised(inner) for name, inner in value.items()}
    if isinstance(value, str):
        return next((prefix for prefix in RULES["prefixes"] if value.startswith(prefix)), value)
    return value


class Recorder:
    """A conversation being had. Ids count from 1, as the clients' own do."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process, self.lines, self.last = process, list[Any](), 0

    def request(self, method: str, params: Any = None, *, token: bool = False) -> int:
        """Send a request; returns its id."""
        self.last += 1
        params = {**(params or {}), **({"progressToken": self.last} if token else {})}
        self.send({"jsonrpc": "2.0", "id": self.last, "method": method, "params": params})
        return self.last

    def call(self, method: str, params: Any = None, *, token: bool = False) -> None:
        """Send a request and record everything up to its answer."""
        self.until(self.request(method, params, token=token))

    def notify(self, method: str, params: Any = None) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params or {}})

    def begin(self) -> None:
        """Every conversation but those about its beginning begins so."""
        self.call("initialize", HELLO)

    def send(self, message: Any) -> None:
        self._write("send", message, json.dumps(message))

    def raw(self, text: str) -> None:
        self._write("raw", text, text)

    def until(self, id: int | None) -> None:
        """Record what comes, up to the answer with this id."""
        while True:
            message = self.receive()
            if isinstance(message, dict) and "method" not in message and message.get("id") == id:
                return

    def receive(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the sidecar ended in the middle of a transcript")
        self.lines.append({"receive": normalised(json.loads(line))})
        return self.lines[-1]["receive"]

    def end(self) -> None:
        """Close the way out."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.lines.append({"exit": self._process.wait(10)})

    def _write(self, kind: str, what: Any, text: str) -> None:
        assert self._process.stdin is not None
        self.lines.append({kind: what})
        self._process.stdin.write(text.encode() + b"\n")
        self._process.stdin.flush()


def initialize(r: Recorder) -> None:
    """What comes before `initialize` is refused; it is answered once; unknown members are ignored."""
    r.call("ping")
    r.call("initialize", {**HELLO, "capabilities": {"colours": 16}, "aMemberOfTomorrow": True})
    r.call("initialize", HELLO)
    r.call("ping")


def call(r: Recorder) -> None:
    """A call: any JSON comes back as it was sent. The first call of an extension loads it."""
    r.begin()
    r.call("probe.echo", {"value": {"text": 'é \u2028 \U0001f600 \\ "', "numbers": [0, -1, 1.5, 9007199254740991]}})
    r.call("probe.echo", {"value": None})


def errors(r: Recorder) -> None:
    """Every kind of error."""
    r.begin()
    r.call("no.such.method")
    r.call("probe.nothing")
    r.call("probe.echo")
    r.call("probe.fail", {"how": "quietly"})
    r.call("probe.fail", {"how": "domain"})
    r.call("probe.fail", {"how": "defect"})
    r.call("probe.late")
    r.send({"jsonrpc": "1.0", "id": 20, "method": "ping"})
    r.until(20)
    r.send({"jsonrpc": "2.0", "id": None, "method": "ping"})
    r.until(None)
    r.send({"jsonrpc": "2.0", "id": 21})
    r.until(21)
    r.send({"jsonrpc": "2.0", "id": 22, "method": "probe.echo", "params": ["by", "position"]})
    r.until(22)


def stream(r: Recorder) -> None:
    """Items, numbered without gaps, then the answer; also of an empty stream."""
    r.begin()
    r.call("probe.count", {"upto": 3})
    r.call("probe.count", {"upto": 0})


def cancel(r: Recorder) -> None:
    """A cancelled request is answered with -32800; its id is free again; a cancellation of nothing is ignored."""
    r.begin()
    waiting = r.request("probe.wait")
    while r.receive().get("method") != "$/stream":
        pass
    r.send({"jsonrpc": "2.0", "id": waiting, "method": "ping"})
    r.until(waiting)
    r.notify("$/cancelRequest", {"id": waiting})
    r.until(waiting)
    r.notify("$/cancelRequest", {"id": waiting})
    r.send({"jsonrpc": "2.0", "id": waiting, "method": "probe.echo", "params": {"value": "free"}})
    r.until(waiting)


def progress(r: Recorder) -> None:
    """Reports for a request with a token, between `begin` and `end`; none for one without."""
    r.begin()
    r.call("probe.work", {"upto": 3}, token=True)
    r.call("probe.work", {"upto": 3})


def batch(r: Recorder) -> None:
    """A batch is answered by one array; one of notifications alone by nothing; an empty one is an error."""
    r.begin()
    r.call("probe.echo", {"value": 0})
    ping = {"jsonrpc": "2.0", "method": "ping"}
    # All of these are answered at once: the order of answers in an array is nobody's promise.
    r.send([{**ping, "id": 30}, ping, {**ping, "id": 31, "jsonrpc": "1.0"}, 7])
    r.receive()
    r.send([{**ping, "id": 32, "method": "no.such.method"}])
    r.receive()
    r.send([ping, ping])
    r.send([])
    r.until(None)
    r.call("ping")


def event(r: Recorder) -> None:
    """Events come between answers: an extension's own, and what settings and extensions tell."""
    r.begin()
    r.call("probe.tell", {"value": [1, 2]})
    r.call("settings.set", {"extension": "probe", "values": {"loud": True}})
    r.call("settings.set", {"extension": "probe", "values": {"loud": "very"}})


def disabled(r: Recorder) -> None:
    """In safe mode a method of an extension that is off says which one would serve it."""
    r.begin()
    r.call("probe.echo", {"value": 1})


def garbage(r: Recorder) -> None:
    """What is not JSON is answered with a null id, and what follows it as if nothing had been."""
    r.begin()
    for text in ("not JSON", "{", '"a string"', '{"jsonrpc":"2.0","id":40,"method":"ping"} and more'):
        r.raw(text)
        r.until(None)
    r.call("ping")


def shutdown(r: Recorder) -> None:
    """`shutdown` waits for what runs and refuses what is new; `exit` ends the process."""
    r.begin()
    waiting = r.request("probe.wait")
    while r.receive().get("method") != "$/stream":
        pass
    last = r.request("shutdown")
    r.call("ping")
    r.notify("$/cancelRequest", {"id": waiting})
    r.until(last)
    r.notify("exit")


SCENES: list[tuple[Callable[[Recorder], None], list[str]]] = [
    *((scene, []) for scene in (initialize, call, errors, stream, cancel, progress, batch, event, garbage, shutdown)),
    (disabled, ["--safe-mode"]),
]


def record(scene: Callable[[Recorder], None], args: list[str]) -> str:
    """Play one scene; returns its transcript."""
    with tempfile.TemporaryDirectory() as data_dir:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "jan-sidecar", "--data-dir", data_dir, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(FOLDER / "probe")},
        )
        recorder = Recorder(process)
        try:
            scene(recorder)
            recorder.end()
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    header = {"about": (scene.__doc__ or "").strip(), "args": args}
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in (header, *recorder.lines))


def main() -> int:
    for scene, args in SCENES:
        (FOLDER / f"{scene.__name__}.ndjson").write_text(record(scene, args), "utf-8")
        print(f"wrote clients/transcripts/{scene.__name__}.ndjson")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
