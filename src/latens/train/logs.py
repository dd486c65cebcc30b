"""What a run writes down on its way: JSON lines, and events for TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from latens.errors import TrainingError
from latens.io import atomic_write, printable

__all__ = ["RunLog"]


class RunLog:
    """The log of a run: ``log.jsonl`` in its folder, one record a line, and on request ``tensorboard/`` beside it.

    Args:
        folder: of the run; made if there is none.
        step: where the run starts or goes on; what was logged of later steps is forgotten, as they come again.
        tensorboard: whether to write for TensorBoard, too.

    Raises:
        TrainingError: the folder cannot be written, or TensorBoard is not installed.
        OutputError: what was logged of later steps cannot be taken away.
    """

    def __init__(self, folder: Path, step: int, *, tensorboard: bool) -> None:
        self._path = folder / "log.jsonl"
        self._events: Any = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            before = self._path.read_text(errors="replace") if self._path.exists() else ""
            kept = "".join(line + "\n" for line in before.splitlines() if _is_of(line, step))
            self._path.touch()
            if kept != before:
                atomic_write(self._path, kept.encode(), force=True)
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


def _is_of(line: str, step: int) -> bool:
    """Whether a line of a log is a record of a step up to this one; of a run that was killed, one may be cut."""
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _scalars(record: dict[str, Any]) -> list[tuple[str, float]]:
    found = [(f"train/{k}", v) for k, v in record.items() if k != "step" and isinstance(v, (int, float))]
    for row in record.get("validation", []):
        found += [(f"validation/{k} at quality {row['quality']:.2f}", row[k]) for k in ("bpp", "db")]
    return found
