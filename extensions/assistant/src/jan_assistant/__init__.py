"""Assistants: who answers, with which instructions, model and parameters."""
