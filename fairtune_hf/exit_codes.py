"""What a process tells whoever started it by its exit code, and how a worker knows that somebody did."""

DONE, FAILED, BAD_INPUT, INTERRUPTED, NO_READER = 0, 1, 2, 130, 141
DISK_FULL = 74  # of a worker that could not write: another would fare no better
PARENT = "FAIRTUNE_PARENT"  # in a worker's environment: the pid whose end is to be its own
