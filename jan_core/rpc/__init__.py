"""JSON-RPC 2.0 between the host and its clients.

From the wire inwards: `transports` and `threads` move bytes, `stdio` ties them to standard input and output (`parent`
tells of the client's death), `framing` cuts them into messages, `messages` names their shapes, `peer` says whether each
may come now (`routes`: which method it asks for, in one pass; `reading`: what else it is, or what is wrong with it;
`depth`; `batches`; `backlog`: what has to wait), `requests` runs them and answers (`start`, `deadlines`), `outbox`
sends what leaves. `direct` is a client in the same process without any of these; `client` is one on the other end of a
pipe. `openrpc` describes what can be called.
"""
