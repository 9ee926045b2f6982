"""Hubs that are one document in the contract suite: Jan's catalogue in its three forms, LM Studio's, OpenAI's list."""

from __future__ import annotations

from dataclasses import replace

from .hubcase import HubCase, shape

COMMIT = "7fa9aec5a43864625dbc57cda11935e6c9a836cd"
_PROJECTOR = ("mmproj-F16.gguf", 624434368, "d8219ba0", "projector")

JAN_2 = HubCase(
    name="jan-v2",
    kind="jan-catalogue",
    routes={
        "/catalogue.json": shape("jan-catalogue/v2.json"),
        "/api/models/acme/Rocket-8B-GGUF": shape("jan-catalogue/detail.json"),
    },
    url="/catalogue.json",
    options={"huggingface": "{base}"},
    ids=["acme/rocket-8b-gguf", "b-r-hre-fab875d3/comet-1b"],
    search=("rocket", ["acme/rocket-8b-gguf"]),
    wanted="acme/rocket-8b-gguf",
    variants={
        "q4_k_m": [("Rocket-8B-Q4_K_M.gguf", 4920734272, "98093a0a", "weights"), _PROJECTOR],
        "q8_0": [("Rocket-8B-Q8_0.gguf", 8540771328, "b83a2f48", "weights"), _PROJECTOR],
    },
    pin=f"/acme/Rocket-8B-GGUF/resolve/{COMMIT}/",
)

JAN_1 = replace(
    JAN_2,
    name="jan-v1",
    routes={**JAN_2.routes, "/catalogue.json": shape("jan-catalogue/v1.json")},
    variants={
        "q4_k_m": [("Rocket-8B-Q4_K_M.gguf", 4920734272, "98093a0a", "weights")],
        "q8_0": [("Rocket-8B-Q8_0.gguf", 8540771328, "b83a2f48", "weights")],
    },
)

JAN_LATEST = replace(
    JAN_2,
    name="jan-latest",
    routes={**JAN_2.routes, "/catalogue.json": shape("jan-catalogue/latest.json")},
    ids=["acme/rocket-8b-gguf"],
    search=("8b", ["acme/rocket-8b-gguf"]),
)

JAN_ALONE = replace(
    JAN_2,
    name="jan-alone",
    options={"huggingface": "none"},
    variants={
        "q4_k_m": [("Rocket-8B-Q4_K_M.gguf", 0, "", "weights"), ("mmproj-F16.gguf", 0, "", "projector")],
        "q8_0": [("Rocket-8B-Q8_0.gguf", 0, "", "weights"), ("mmproj-F16.gguf", 0, "", "projector")],
        "iq2_xxs": [("Rocket-8B-IQ2_XXS.gguf", 0, "", "weights"), ("mmproj-F16.gguf", 0, "", "projector")],
    },
    pin="",
)

LM_STUDIO = HubCase(
    name="lmstudio",
    kind="lmstudio",
    routes={"/catalog.json": shape("lmstudio/catalog.json")},
    url="/catalog.json",
    ids=["acme/rocket-8b-gguf", "b/comet-gguf"],
    search=("instruct rocket", ["acme/rocket-8b-gguf"]),
    wanted="acme/rocket-8b-gguf",
    variants={
        "q5_k_m": [("Rocket-8B-Q5_K_M.gguf", 5732987456, "d76d355d", "weights")],
        "q4_k_m": [("Rocket-8B-Q4_K_M.gguf", 4920734272, "98093a0a", "weights")],
        "q6_k": [("Rocket-8B-Q6_K.gguf", 6596006464, "0bb54855", "weights")],
    },
)

OPENAI = HubCase(
    name="openai",
    kind="openai",
    routes={"/v1/models": shape("openai/models.json")},
    url="/v1",
    ids=["rocket-8b-instruct", "acme/comet-1b:latest", "rocket-embed"],
    search=("rocket", ["rocket-8b-instruct", "rocket-embed"]),
    wanted="acme/comet-1b:latest",
)

CASES = [JAN_2, JAN_1, JAN_LATEST, JAN_ALONE, LM_STUDIO, OPENAI]
