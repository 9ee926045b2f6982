"""Write the generated files of `clients/` from the method table with the first-party extensions active.

    python tools/contracts.py            # write
    python tools/contracts.py --check    # fail when what is there is stale

The clients' tests compile what is generated from `tricky.py` too.

The transcripts beside them are recorded by `tools/transcripts.py`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import tricky

from jan_core.host import Host
from jan_core.loader import installed
from jan_core.schema import rust, typescript

CLIENTS = Path(__file__).resolve().parent.parent / "clients"
FIRST_PARTY = frozenset({"assistant", "conversational", "download", "llamacpp", "registry"})


def files(document: dict[str, Any]) -> dict[Path, str]:
    """The generated files and what must be in them."""
    return {
        CLIENTS / "typescript" / "src" / "contract.ts": typescript(document),
        CLIENTS / "rust" / "src" / "contract.rs": rust(document),
        CLIENTS / "typescript" / "test" / "tricky.ts": typescript(tricky.DOCUMENT),
        CLIENTS / "rust" / "tests" / "tricky" / "contract.rs": rust(tricky.DOCUMENT),
    }


async def document() -> dict[str, Any]:
    """What `rpc.discover` answers in a house of the first-party extensions alone."""
    sources = [source for source in installed() if source.id in FIRST_PARTY]
    with tempfile.TemporaryDirectory() as folder:
        async with Host(Path(folder), sources=sources) as host:
            found: dict[str, Any] = await host.client().call("rpc.discover")
            return found


def stale() -> dict[Path, str]:
    """The files that are not as they must be."""
    wanted = files(asyncio.run(document()))
    return {path: text for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text}


def main() -> int:
    found = stale()
    if "--check" in sys.argv[1:]:
        for path in found:
            print(f"{path.relative_to(CLIENTS.parent)} is stale; run: python tools/contracts.py")
        return 1 if found else 0
    for path, text in found.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        print(f"wrote {path.relative_to(CLIENTS.parent)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
