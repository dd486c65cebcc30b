"""The command line: parses arguments and prints, nothing else."""

import gc

# Imports make objects by the hundred thousand that all stay; to look through them 200 times takes 15 ms of a start.
gc.set_threshold(20_000, 10, 10)

from latens.cli.app import main  # noqa: E402

__all__ = ["main"]
