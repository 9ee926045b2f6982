"""Sign the list that the program is shipped with, and put it into the package.

    .venv/bin/python tools/package_registry.py               # from extensions/registry/catalogue, with new keys
    .venv/bin/python tools/package_registry.py --tree DIR    # what an operator has published: DIR is the signed tree

Without a tree the keys are made for this one run and thrown away: they only tie the package together, and nobody can
publish more with them. A distributor ships their own: `jan registry init`, `jan registry publish`, then this with
`--tree`; clients then trust that hub's root, and follow it to its present one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from jan_registry.publish.keys import Keys, generate
from jan_registry.publish.package import package
from jan_registry.publish.publishing import valid
from jan_registry.publish.roles import DELEGATED, OFFLINE, ONLINE, RoleKeys
from jan_registry.publish.tree import create, publish
from jan_registry.signed.bundle import shipped_root, verify_bundle

REGISTRY = Path(__file__).resolve().parent.parent / "extensions" / "registry"
CATALOGUE = REGISTRY / "catalogue"
PACKAGED = REGISTRY / "src" / "jan_registry" / "packaged"


def main() -> None:
    parser = argparse.ArgumentParser(description="Sign the list that the program is shipped with.")
    parser.add_argument("--tree", type=Path, help="a published tree to ship instead of our own catalogue")
    parser.add_argument("--output", type=Path, default=PACKAGED)
    given = parser.parse_args()
    if given.tree:
        paths = package(given.tree, given.output)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            sign(CATALOGUE, Path(scratch))
            paths = package(Path(scratch), given.output)
    verify_bundle(given.output, shipped_root(given.output))
    print("\n".join(paths))


def sign(catalogue: Path, tree: Path) -> None:
    """Publish the folder into `tree` with keys that nobody has afterwards."""
    signers = {role: generate() for role in (*OFFLINE, *DELEGATED, *ONLINE)}
    keys, now = Keys(signers.values()), time.time()
    create(tree, {role: RoleKeys([signer.public_key]) for role, signer in signers.items()}, keys, now=now)
    publish(tree, keys, valid(catalogue).collections(), now=now)


if __name__ == "__main__":
    main()
