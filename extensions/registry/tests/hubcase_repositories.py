"""Hubs that are asked for one repository at a time in the contract suite: ModelScope, and registries of OCI's kind."""

from __future__ import annotations

from .hubcase import HubCase, shape

_COMMIT, _PROJECTOR_S = "aff024fe4ab0fece4091de044c58c9ae4233383a", "516b9783fca517eecbd1d064da2d165310b19759"
_PROJECTOR = ("mmproj-rocket-8b-f16.gguf", 624434368, "dbf8c87d", "projector")
_CONFIG = "sha256:79910c89b7a1ff6fc019c7ef45afd158ede28e371381f2151b784edecab9e68b"

MODELSCOPE = HubCase(
    name="modelscope",
    kind="modelscope",
    routes={
        "/openapi/v1/models?search=rocket": shape("modelscope/search.json"),
        "/openapi/v1/models?filter.library=gguf&page_number=1": shape("modelscope/list-1.json"),
        "/openapi/v1/models?filter.library=gguf&page_number=2": shape("modelscope/list-2.json"),
        "/openapi/v1/models/acme/Rocket-8B-GGUF": shape("modelscope/detail.json"),
        "/api/v1/models/acme/Rocket-8B-GGUF/repo/files?Revision=master&Recursive=true": shape("modelscope/files.json"),
    },
    ids=["acme/rocket-8b-gguf", "acme/comet-1b-gguf", "918c03c0/gguf-e05c16b8"],
    search=("rocket", ["acme/rocket-8b-gguf"]),
    wanted="acme/Rocket-8B-GGUF",
    id="acme/rocket-8b-gguf",
    variants={
        "q4_k_m": [("rocket-8b-q4_k_m.gguf", 4920734272, "44a725ab", "weights"), _PROJECTOR],
        "q8_0": [
            ("rocket-8b-q8_0-00001-of-00002.gguf", 4294967296, "2507a396", "weights"),
            ("rocket-8b-q8_0-00002-of-00002.gguf", 4245413120, "ac309f7c", "weights"),
            _PROJECTOR,
        ],
    },
    pin="/models/acme/Rocket-8B-GGUF/resolve/",
)

OLLAMA = HubCase(
    name="ollama",
    kind="oci",
    routes={
        "/recommendations": shape("oci/recommendations.json"),
        "/v2/library/rocket/manifests/8b": shape("oci/manifest.json"),
        f"/v2/library/rocket/blobs/{_CONFIG}": shape("oci/config.json"),
    },
    options={"namespace": "library", "recommendations": "{base}/recommendations"},
    ids=["rocket:8b", "comet-1b", "rocket:cloud"],
    wanted="rocket:8b",
    variants={
        "q4_k_m": [
            ("rocket-8b.gguf", 4920734272, "1cfe92d5", "weights"),
            ("mmproj-rocket-8b.gguf", 624434368, "03a1c93b", "projector"),
            ("adapter-rocket-8b.gguf", 52428800, "79c9327a", "adapter"),
        ]
    },
    pin="/v2/library/rocket/blobs/sha256:",
)

REGISTRY = HubCase(
    name="registry",
    kind="oci",
    routes={
        "/v2/_catalog?last=acme/rocket": shape("oci/catalog-2.json"),
        "/v2/_catalog": shape("oci/catalog-1.json", Link='</v2/_catalog?last=acme%2Frocket&n=2>; rel="next"'),
        "/v2/acme/rocket/manifests/latest": shape("oci/shards.json"),
    },
    ids=["acme/comet", "acme/rocket", "library/moon"],
    wanted="acme/rocket",
    id="acme/rocket:latest",
    variants={
        "q8_0": [
            ("rocket-Q8_0-00001-of-00002.gguf", 4294967296, "82440b4c", "weights"),
            ("rocket-Q8_0-00002-of-00002.gguf", 4245413120, "4571be7a", "weights"),
            ("mmproj.gguf", 624434368, "6853979e", "projector"),
        ]
    },
    pin="/v2/acme/rocket/blobs/sha256:",
)

CASES = [MODELSCOPE, OLLAMA, REGISTRY]
