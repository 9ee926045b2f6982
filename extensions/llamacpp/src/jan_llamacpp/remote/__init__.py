"""Remote engines: any endpoint that speaks OpenAI's chat completions, as one more engine of the house.

What a person configured (`remote.py`), where it is (`address.py`), its key (`keys.py`), the bytes to it and back
(`body.py`, `connection.py`, `retry.py`, `sse.py`, `wire.py`, `answer.py`) and the methods `remotes.*` (`methods.py`).
Whether a request may leave this machine at all is decided elsewhere (`routing.py`), and asked here once more.
"""
