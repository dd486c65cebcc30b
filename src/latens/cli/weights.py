"""Weights that are not in the package."""

from __future__ import annotations

import os

from latens.cli.messages import say
from latens.errors import ModelError
from latens.io import printable


def announce(model: str, weights_dir: str | None, quiet: bool) -> None:
    """Say which file will be fetched from where, if one will be.

    Raises:
        ModelError: ``weights_dir`` is no folder.
    """
    from latens.zoo.obtain import address, to_be_fetched

    if weights_dir is not None and not os.path.isdir(weights_dir):  # noqa: PTH112
        raise ModelError(f"--weights-dir {printable(weights_dir)}: no such folder")
    if to_be_fetched(model, weights_dir):
        from latens.zoo.download import cache_folder

        folder = printable(cache_folder() / "models")
        say(f"{model} is not in this package; fetching {address(model)} to {folder}", quiet)
