"""JSON-RPC 2.0 between the host and its clients.

From the wire inwards: `transports` moves bytes, `stdio` ties them to standard input and output, `framing` cuts them
into messages, `messages` names their shapes, `peer` answers them, `outbox` sends what leaves. `direct` is a client in
the same process without any of these; `client` is one on the other end of a pipe. `openrpc` describes what can be
called.
"""
