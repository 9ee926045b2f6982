"""Downloads: one file at a time over HTTP(S), resumable across a crash, under its final name only when
checked.

`plugin` is the extension, `manager` decides what runs when, `transfer` moves the bytes of one job in a
thread of its own, `journal` remembers. Nothing here knows what a model is, and no socket is opened without
a job.
"""
