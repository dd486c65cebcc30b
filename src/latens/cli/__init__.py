"""The command line: parses arguments and prints, nothing else."""

from latens.cli.app import main

__all__ = ["main"]
