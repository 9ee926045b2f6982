"""An example extension."""
