"""Hardware detection: what this machine is, without importing an engine or loading a driver library."""

from .detect import Detector, detect

__all__ = ["Detector", "detect"]
