"""Greets people by name, and counts them."""
