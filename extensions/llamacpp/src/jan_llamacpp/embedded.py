"""The model that is part of this package. Where it is, and under which id; nothing is read here."""

from pathlib import Path

__all__ = ["EMBEDDED_ID", "EMBEDDED_MODEL"]

EMBEDDED_ID = "jan-tiny"
EMBEDDED_MODEL = Path(__file__).parent / "models" / "jan-tiny.gguf"
