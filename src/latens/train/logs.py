"""What a run writes down on its way: JSON lines, and events for TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from latens.errors import TrainingError
from latens.io import printable

__all__ = ["RunLog"]


class RunLog:
    """The log of a run: ``log.jsonl`` in its folder, one record a line, and on request ``tensorboard/`` beside it.

    Args:
        folder: of the run; made if there is none.
        step: where the run starts or goes on; what TensorBoard has of later steps is forgotten.
        tensorboard: whether to write for TensorBoard, too.

    Raises:
        TrainingError: the folder cannot be written, or TensorBoard is not installed.
    """

    def __init__(self, folder: Path, step: int, *, tensorboard: bool) -> None:
        self._path = folder / "log.jsonl"
        self._events: Any = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab+") as file:
                # A run that was killed may have left half a line.
                if file.tell() and self._path.read_bytes()[-1:] != b"\n":
                    file.write(b"\n")
        except OSError as error:
            raise TrainingError(f"{printable(folder)}: cannot be written ({error.strerror})") from error
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise TrainingError("TensorBoard is not installed: pip install 'latens[train]'") from error
            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def write(self, record: dict[str, Any]) -> None:
        """Append a record; its ``step`` says when.

        Raises:
            TrainingError: it cannot be written.
        """
        try:
            with self._path.open("a") as log:
                log.write(json.dumps(record) + "\n")
        except OSError as error:
            raise TrainingError(
                f"{printable(self._path.parent)}: cannot write the log ({error.strerror})"
            ) from error
        if self._events is not None:
            for name, value in _scalars(record):
                self._events.add_scalar(name, value, record["step"])
            self._events.flush()


def _scalars(record: dict[str, Any]) -> list[tuple[str, float]]:
    found = [(f"train/{k}", v) for k, v in record.items() if k != "step" and isinstance(v, (int, float))]
    for row in record.get("validation", []):
        found += [(f"validation/{k} at quality {row['quality']:.2f}", row[k]) for k in ("bpp", "db")]
    return found
