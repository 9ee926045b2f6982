"""Experiments on what is featured: who takes part, what they saw, what came of it. Nothing here leaves the machine."""
