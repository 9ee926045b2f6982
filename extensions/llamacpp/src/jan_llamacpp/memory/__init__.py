"""What a model takes of this machine's memory, told from its header before anything is loaded."""
