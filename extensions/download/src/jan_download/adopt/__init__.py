"""Files that this machine has already, because another program fetched them: found, and taken in.

Nothing here asks a network, writes where another program keeps its files, or believes a name: what is taken is hashed.
"""
