"""Conversations: threads and messages in SQLite, and one assistant turn."""
