"""The page of a download's history: one HTML document in which nothing is loaded and nothing runs.

`document` puts it together, `timeline` draws speed over time, `piece_map` who brought which piece, `words` says what
happened. All of it is text in, text out: the journal is read elsewhere.
"""

from .document import page

__all__ = ["page"]
