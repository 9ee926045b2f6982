"""A Kinto collection in the contract suite, unsigned. `test_hubs_kinto.py` has the signed ones."""

from __future__ import annotations

from .hubcase import HubCase, shape

COLLECTION = "/v1/buckets/main/collections/models"

KINTO = HubCase(
    name="kinto",
    kind="kinto",
    routes={
        f'{COLLECTION}/changeset?_expected=0&_since="1790000000300"': shape("kinto/since.json"),
        f"{COLLECTION}/changeset?_expected=0": shape("kinto/changeset.json"),
    },
    url=COLLECTION,
    ids=["acme/comet", "acme/rocket"],
    search=("comet", ["acme/comet"]),
    wanted="acme/rocket",
    variants={
        "q4_k_m": [
            ("rocket-00001-of-00002.gguf", 1000, "8b07ef6a", "weights"),
            ("rocket-00002-of-00002.gguf", 900, "0f591b55", "weights"),
            ("mmproj-rocket.gguf", 90, "a0409c7e", "projector"),
        ]
    },
    pin="/resolve/",
)

CASES = [KINTO]
