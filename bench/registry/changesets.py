"""A server of one collection in the form of Remote Settings, for the client of that kind to be measured with.

    python changesets.py STATE

STATE is a file `{"timestamp","signature","records":[…],"deleted":[…]}` (`ways.py` writes it) that is read anew
when it was replaced. It speaks what a client needs, and no more:

    GET /v1/buckets/monitor/collections/changes/changeset?_expected=0[&_since="T"]
    GET /v1/buckets/main/collections/models/changeset?_expected=T[&_since="T"]

Always 200, gzip, connections kept, as the original does behind its CDN. Prints its port.
"""

from __future__ import annotations

import gzip
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

LEVEL = 6


class State:
    """What stands in the file now."""

    def __init__(self, path: Path) -> None:
        self._path, self._seen = path, 0
        self.timestamp = 0
        self.metadata: dict[str, Any] = {}
        self.records: list[dict[str, Any]] = []
        self.deleted: list[dict[str, Any]] = []
        self.whole = b""

    def look(self) -> State:
        if (seen := self._path.stat().st_mtime_ns) != self._seen:
            state = json.loads(self._path.read_bytes())
            self.timestamp, self.records, self.deleted = state["timestamp"], state["records"], state["deleted"]
            self.metadata = {"signatures": [{"signature": state["signature"], "mode": "p384ecdsa", "x5u": "/chain"}]}
            self.whole, self._seen = packed(self.changeset(0)), seen
        return self

    def changeset(self, since: int) -> dict[str, Any]:
        changed = [record for record in self.records if record["last_modified"] > since]
        gone = [one for one in self.deleted if one["last_modified"] > since] if since else []
        return {"changes": changed + gone, "timestamp": self.timestamp, "metadata": self.metadata}

    def monitor(self, since: int) -> dict[str, Any]:
        entry = {"id": "models", "bucket": "main", "collection": "models", "last_modified": self.timestamp}
        return {"changes": [entry] if self.timestamp > since else [], "timestamp": self.timestamp, "metadata": {}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet
    disable_nagle_algorithm = True
    state: State

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        since = int(parse_qs(parts.query).get("_since", ['"0"'])[0].strip('"'))
        state = self.state.look()
        if "/monitor/" in parts.path:
            body = packed(state.monitor(since))
        else:
            body = packed(state.changeset(since)) if since else state.whole
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=60")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def packed(value: Any) -> bytes:
    return gzip.compress(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(), LEVEL, mtime=0)


def main() -> None:
    Handler.state = State(Path(sys.argv[1])).look()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
