"""A signed hub as a client sees it: metadata by TUF, collections in SQLite, nothing believed before it is verified."""
