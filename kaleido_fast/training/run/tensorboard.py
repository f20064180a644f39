"""RUN/tensorboard: the scalars of metrics.jsonl as TensorBoard's events. The one door to tensorboard (optional extra)."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"


class TensorBoard:
    """Writes lines of metrics.jsonl as scalars, each tag the path of its keys ("losses/itm", "validation/losses/itm").

    Args:
        folder: of the run.
        step: optimizer steps done; what an earlier process wrote of later ones is purged when the events are read.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / FOLDER), purge_step=step + 1 if (folder / FOLDER).exists() else None)

    def add(self, line: dict[str, Any]) -> None:
        """Write one line's scalars under its "step"."""
        for tag, value in _scalars({key: value for key, value in line.items() if key != "step"}):
            self._writer.add_scalar(tag, value, line["step"])
        self._writer.flush()  # a killed run keeps what metrics.jsonl keeps

    def close(self) -> None:
        self._writer.close()


def require_tensorboard() -> None:
    """Refuse run.tensorboard=true without the package (ValueError says how to install it)."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError("run.tensorboard=true needs the package tensorboard, which is not installed; "
                         "`pip install 'kaleido_fast[tensorboard]'` or `pip install tensorboard`, or set "
                         "run.tensorboard=false")


def _scalars(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{prefix}{key}/")
        elif not isinstance(value, str):  # the digest of the samples is no number
            yield f"{prefix}{key}", value
