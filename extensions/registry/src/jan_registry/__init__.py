"""The model list: what can be had, from where, and how far that can be trusted.

`plugin` is the extension, `catalogue` the read path (memory, SQLite, built in; never the network), `refresh` the one
place that uses the network. Nothing here downloads a model, and nothing is asked of anybody until a person names a
source.
"""
