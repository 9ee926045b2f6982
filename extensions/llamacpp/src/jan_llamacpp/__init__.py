"""Local inference: llama.cpp in worker processes, engine builds, and the embedded model jan-tiny."""
