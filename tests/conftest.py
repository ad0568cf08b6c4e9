"""Puts this directory on the import path, where `factories` lives, and sets what all tests share."""

import os

from hypothesis import settings

# Before grpc is imported: what it does in a forked child now and then never ends, and the program is never run. Only
# tests serve gRPC in a process that starts others.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

# A shared machine may stall any one example: time limits belong to the whole test.
settings.register_profile("tidegate", deadline=None)
settings.load_profile("tidegate")
