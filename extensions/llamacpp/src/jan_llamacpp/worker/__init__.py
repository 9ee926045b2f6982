"""The worker: one process that runs one model with llama.cpp, and nothing else.

`boot.py` is what the host starts; `protocol.py` is all the two sides share. Everything else here runs in the
child only: it imports neither the host nor any other extension, and the host imports nothing of it but
`protocol`, `frames` and `boot`'s path.
"""
