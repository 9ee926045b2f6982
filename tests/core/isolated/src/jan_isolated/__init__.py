"""An extension for the tests of isolation: it does everything that must cost nobody but itself."""
