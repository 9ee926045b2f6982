"""The worker: one process that runs one model with llama.cpp, and nothing else.

`boot.py` is what the host starts; the two sides share `protocol.py` with the `options`, `request` and `reply` it
carries, and `frames`. Everything else here runs in the child only: it imports neither the host nor any other extension,
and the host imports nothing more of it but `boot`'s path.
"""
