"""Bytes on the disk: partial files, whole ones named by their content, and the names people see.

`store` knows the folders, `partial` one file that is being written, `linking` gives a blob a second name, `durable`
asks the operating system to mean it, `hashing` reads a whole file; `checkpoint` and `watermark` are the two threads
behind the writers. `recovery` makes good what a crash left, `removal` forgets a download: these two know jobs, the
others do not. Nothing here knows of networks.
"""
