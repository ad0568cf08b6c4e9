"""Puts this directory on the import path, where `factories` lives, and sets what all property tests share."""

from hypothesis import settings

# A shared machine may stall any one example: time limits belong to the whole test.
settings.register_profile("tidegate", deadline=None)
settings.load_profile("tidegate")
