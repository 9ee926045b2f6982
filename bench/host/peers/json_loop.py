"""What most sidecars start from: the standard library's json and a loop over lines. No checks, no limits."""

import json
import sys


def echo(session, op, text, temperature, top, flags):
    return {"session": session, "op": op, "text": text, "temperature": temperature, "top": top, "flags": flags}


def stream(count):
    for number in range(count):
        item = {"id": 17, "seq": number, "delta": {"text": " hello"}}
        out.write(json.dumps({"jsonrpc": "2.0", "method": "token", "params": item}).encode() + b"\n")
        out.flush()
    return {"count": count}


METHODS = {"echo": echo, "stream": stream}
out = sys.stdout.buffer
for line in sys.stdin.buffer:
    message = json.loads(line)
    try:
        result = METHODS[message["method"]](**message["params"])
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
    except Exception as error:
        answer = {"jsonrpc": "2.0", "id": message.get("id"), "error": {"code": -32603, "message": str(error)}}
    out.write(json.dumps(answer).encode() + b"\n")
    out.flush()
