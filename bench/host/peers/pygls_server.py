"""pygls: a language server with methods of its own, one sync and one async."""

from pygls.lsp.server import LanguageServer

server = LanguageServer("bench", "1")


@server.feature("echo")
def echo(ls, params):
    return same(params)


@server.feature("echo_async")
async def echo_async(ls, params):
    return same(params)


@server.feature("stream")
def stream(ls, params):
    for number in range(params.count):
        ls.protocol.notify("token", {"id": 17, "seq": number, "delta": {"text": " hello"}})
    return {"count": params.count}


def same(params):
    names = ("session", "op", "text", "temperature", "top", "flags")
    return {name: getattr(params, name) for name in names}


server.start_io()
