"""Hugging Face and Cortex in the contract suite."""

from __future__ import annotations

from .hubcase import HubCase, Shape, json_shape, shape

COMMIT = "f6b43ddd501e5c2a812972e0a6841c48707f05d1"
_UNKNOWN = json_shape({"error": "Invalid username or password."}, 401, X_Error_Code="RepoNotFound")

HUGGING_FACE = HubCase(
    name="huggingface",
    kind="huggingface",
    routes={
        "/api/models?search=rocket&cursor=cGFnZTI=": Shape(b"[]"),
        "/api/models?cursor=cGFnZTI=": shape("huggingface/list-2.json"),
        "/api/models": shape(
            "huggingface/list-1.json", Link='<{base}/api/models?filter=gguf&limit=2&cursor=cGFnZTI%3D>; rel="next"'
        ),
        "/api/models/acme/Rocket-8B-GGUF": shape("huggingface/detail.json"),
        f"/api/models/acme/Rocket-8B-GGUF/tree/{COMMIT}": shape("huggingface/tree.json"),
        "/api/models/acme/unknown": _UNKNOWN,
    },
    ids=["acme/rocket-8b-gguf", "acme/gated-rocket-gguf", "b-ro-2616f09c/bermodell-gguf-3e6c583d"],
    search=("rocket", ["acme/rocket-8b-gguf", "acme/gated-rocket-gguf"]),
    wanted="acme/Rocket-8B-GGUF",
    id="acme/rocket-8b-gguf",
    variants={
        "q4_k_m": [
            ("Rocket-8B-Q4_K_M.gguf", 4920734272, "98093a0a", "weights"),
            ("mmproj-Rocket-8B-F16.gguf", 624434368, "18600f3f", "projector"),
        ],
        "q8_0": [
            ("Rocket-8B-Q8_0-00001-of-00002.gguf", 4294967296, "bd56c0ed", "weights"),
            ("Rocket-8B-Q8_0-00002-of-00002.gguf", 4245413120, "bc4df5e9", "weights"),
            ("mmproj-Rocket-8B-F16.gguf", 624434368, "18600f3f", "projector"),
        ],
    },
    pin=f"/acme/Rocket-8B-GGUF/resolve/{COMMIT}/",
)

Q4, Q8 = "66f7ed7bd231c5a16b02092e14fb49086d7564cf", "d8721ced14620b5e0f63612517c8e6b0e3eb628b"

CORTEX = HubCase(
    name="cortexso",
    kind="cortexso",
    routes={
        "/api/models?author=cortexso&search=tiny": shape("cortexso/search.json"),
        "/api/models?author=cortexso": shape("cortexso/list.json"),
        "/api/models/cortexso/tinyllama": shape("cortexso/detail.json"),
        "/api/models/cortexso/tinyllama/refs": shape("cortexso/refs.json"),
        f"/api/models/cortexso/tinyllama/tree/{Q4}": shape("cortexso/tree-q4.json"),
        f"/api/models/cortexso/tinyllama/tree/{Q8}": shape("cortexso/tree-gguf.json"),
        "/api/models/cortexso/tinyllama/tree/0770a14f2fb7ecb5ee41f9f8c254f2045893b11d": shape(
            "cortexso/tree-onnx.json"
        ),
        "/cortexso/tinyllama/resolve/7c11d7683fe44ecc2bceca19d2ec31c362acfe67/metadata.yml": shape(
            "cortexso/metadata.yml"
        ),
        "/api/models/cortexso/unknown": _UNKNOWN,
    },
    ids=["cortexso/tinyllama", "cortexso/com-te-047d0c73", "cortexso/lonely"],
    search=("tiny", ["cortexso/tinyllama"]),
    wanted="cortexso/tinyllama",
    variants={
        "1b-gguf-q4-km": [("1b-gguf-q4-km-model.gguf", 668788096, "fc3d7cf1", "weights")],
        "1b-gguf": [("1b-gguf-model.gguf", 1170781568, "75aac10f", "weights")],
    },
    unknown="cortexso/unknown",
    pin="/cortexso/tinyllama/resolve/",
)

CASES = [HUGGING_FACE, CORTEX]
