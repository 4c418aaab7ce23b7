"""Exit statuses: what a script can tell a run's end by."""

ALL_DONE = 0
NOTHING_DONE = 1
USAGE = 2
SOME_FAILED = 3
SIGNAL_BASE = 128
"""A run stopped by signal N ends with 128 + N: 130 for Ctrl-C, 143 for SIGTERM."""
