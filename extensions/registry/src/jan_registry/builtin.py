"""The list that is part of the program: shown when there is no other.

Kept short, and only what is known for sure: the files' sizes and hashes are left empty rather than copied from
somewhere.
"""

from __future__ import annotations

from jan_core.types import DownloadFile, ModelRecord

__all__ = ["builtin_models"]

_HUB = "https://huggingface.co"


def builtin_models() -> list[ModelRecord]:
    """The embedded model, and small open models that answer on any machine of the last ten years."""
    return [
        ModelRecord(
            id="jan-tiny",
            name="Jan Tiny",
            description="Embedded: there without a download, to try things out. Far too small for real answers.",
            publisher="jan",
            license="Apache-2.0",
            tags=["embedded", "tiny", "english"],
            featured=True,
            source="registry",
            verification="builtin",
            extra={"embedded": True},
        ),
        _model(
            "smollm2-135m-instruct",
            "SmolLM2 135M Instruct",
            "HuggingFaceTB",
            "Apache-2.0",
            135_000_000,
            8192,
            "bartowski/SmolLM2-135M-Instruct-GGUF",
            "SmolLM2-135M-Instruct-Q4_K_M.gguf",
            "The smallest that still chats, in English. About 0.1 GB.",
            ["tiny", "english"],
        ),
        _model(
            "smollm2-360m-instruct",
            "SmolLM2 360M Instruct",
            "HuggingFaceTB",
            "Apache-2.0",
            360_000_000,
            8192,
            "HuggingFaceTB/SmolLM2-360M-Instruct-GGUF",
            "smollm2-360m-instruct-q8_0.gguf",
            "Small and quick, in English. About 0.4 GB.",
            ["tiny", "english"],
        ),
        _model(
            "qwen2.5-0.5b-instruct",
            "Qwen2.5 0.5B Instruct",
            "Qwen",
            "Apache-2.0",
            490_000_000,
            32768,
            "Qwen/Qwen2.5-0.5B-Instruct-GGUF",
            "qwen2.5-0.5b-instruct-q4_k_m.gguf",
            "Small, and speaks many languages. About 0.5 GB.",
            ["small", "multilingual"],
        ),
        _model(
            "llama-3.2-1b-instruct",
            "Llama 3.2 1B Instruct",
            "Meta",
            "llama3.2",
            1_240_000_000,
            131072,
            "bartowski/Llama-3.2-1B-Instruct-GGUF",
            "Llama-3.2-1B-Instruct-Q4_K_M.gguf",
            "A good first model for a laptop. About 0.8 GB. Meta's own licence.",
            ["small", "multilingual"],
        ),
        _model(
            "qwen2.5-1.5b-instruct",
            "Qwen2.5 1.5B Instruct",
            "Qwen",
            "Apache-2.0",
            1_540_000_000,
            32768,
            "Qwen/Qwen2.5-1.5B-Instruct-GGUF",
            "qwen2.5-1.5b-instruct-q4_k_m.gguf",
            "Better answers in many languages, where there are 2 GB of memory. About 1.1 GB.",
            ["small", "multilingual"],
        ),
    ]


def _model(
    id: str,
    name: str,
    publisher: str,
    license: str,
    parameters: int,
    context: int,
    repository: str,
    file: str,
    description: str,
    tags: list[str],
) -> ModelRecord:
    return ModelRecord(
        id=id,
        name=name,
        description=description,
        publisher=publisher,
        license=license,
        parameters=parameters,
        context_length=context,
        tags=[*tags, "gguf"],
        files=[DownloadFile(name=file, url=f"{_HUB}/{repository}/resolve/main/{file}")],
        featured=True,
        source="registry",
        verification="builtin",
        extra={"repository": f"{_HUB}/{repository}"},
    )
