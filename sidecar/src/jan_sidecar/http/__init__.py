"""The local API: OpenAI's HTTP interface as a thin skin over the method table.

`access.py` says who may speak to us, `guard.py` enforces it on every route, `routes.py` maps paths to methods,
`wire.py` puts answers into OpenAI's exact form, `sse.py` streams them, `errors.py` is the one table of statuses,
`server.py` runs it on uvicorn. Nothing here knows a model or an extension, opens a file a client names, or keeps state
between requests; starlette and uvicorn are imported only when serving.
"""
