"""Other people's hubs: each a small class that turns what it answers into records, all of them `unverified`."""
