"""JSON-RPC 2.0 between the host and its clients.

From the wire inwards: `stdio` moves bytes, `framing` cuts them into messages, `messages` names their shapes, `peer`
answers them. `direct` is a client in the same process without any of these; `client` is one on the other end of a
pipe.
"""
