"""The phases of the roll-out, what is measured in them, and what that leads to. Nothing here leaves the machine."""
