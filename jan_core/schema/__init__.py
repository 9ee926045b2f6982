"""Source code for frontends, generated from an OpenRPC document: `typescript` and `rust`.

Both read the document alone (`jan_core.rpc.openrpc`), never Python types: what another process or another program
describes in JSON Schema is generated like everything else. They write types and tables of names, no client.

    document = openrpc.document(host.table, title="jan", version="1")
    Path("contract.ts").write_text(typescript(document))
"""

from .rust import rust
from .typescript import typescript

__all__ = ["rust", "typescript"]
