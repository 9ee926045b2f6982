"""Feature flags: what the operator signed, under what this machine's people have decided."""
