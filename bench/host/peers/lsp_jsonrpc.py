"""python-lsp-jsonrpc: the peer of python-lsp-server."""

import sys

from pylsp_jsonrpc.dispatchers import MethodDispatcher
from pylsp_jsonrpc.endpoint import Endpoint
from pylsp_jsonrpc.streams import JsonRpcStreamReader, JsonRpcStreamWriter


class Server(MethodDispatcher):
    def __init__(self):
        self.endpoint = Endpoint(self, JsonRpcStreamWriter(sys.stdout.buffer).write, max_workers=4)

    def m_echo(self, session=None, op=None, text=None, temperature=None, top=None, flags=None):
        return {"session": session, "op": op, "text": text, "temperature": temperature, "top": top, "flags": flags}

    def m_stream(self, count=0):
        for number in range(count):
            self.endpoint.notify("token", {"id": 17, "seq": number, "delta": {"text": " hello"}})
        return {"count": count}


server = Server()
JsonRpcStreamReader(sys.stdin.buffer).listen(server.endpoint.consume)
server.endpoint.shutdown()
