"""What a pre-training writes into its folder: lines of metrics.jsonl, checkpoints, summary.json."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kaleido_fast.training.checkpoint import save_checkpoint
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.lost import RunLost
from kaleido_fast.training.mining.mined_negatives import MinedNegatives
from kaleido_fast.training.progress import Progress
from kaleido_fast.training.run.ended import RUNNING
from kaleido_fast.training.run.folder import RunFolder
from kaleido_fast.training.run.summary import RunSummary
from kaleido_fast.training.run.tensorboard import TensorBoard
from kaleido_fast.training.workers.group import Workers


@dataclass(slots=True)
class RunRecords:
    """One worker's part; the first worker writes."""

    folder: RunFolder
    engine: Engine
    workers: Workers
    summary: RunSummary
    holes: dict[str, str]  # this worker's unreadable samples, and why
    keep: int  # checkpoints
    tensorboard: TensorBoard | None = None  # the first worker's, where it is asked for
    require_held: Callable[[], None] = lambda: None  # raises ValueError where another process has taken the folder over
    mining: MinedNegatives | None = None  # its lists go with every checkpoint

    def begin(self, progress: Progress) -> None:
        """Write the summary of a run that is running now."""
        self._write_summary(progress, {"how": RUNNING})

    def write(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl, and to TensorBoard's events."""
        self.require_held()
        if self.workers.is_first:
            self.folder.append_metrics(line)
            if self.tensorboard is not None:
                self.tensorboard.add(line)

    def save(self, progress: Progress) -> None:
        """Write a checkpoint and the summary beside it."""
        self.require_held()
        save_checkpoint(self.folder.checkpoints, self.engine, self.workers, progress.as_state(), self.keep,
                        negatives=None if self.mining is None else self.mining.lists)
        self._write_summary(progress, {"how": RUNNING})

    def end(self, progress: Progress, how: str, lost: RunLost | None = None) -> None:
        """Write the summary with how the run ended."""
        self.require_held()
        why = {} if lost is None else {"why": str(lost), **lost.details}
        self._write_summary(progress, {"how": how, **why})
        if self.tensorboard is not None:
            self.tensorboard.close()

    def _write_summary(self, progress: Progress, ended: dict[str, Any]) -> None:
        holes = self.workers.merged(self.holes)
        if self.workers.is_first:
            self.folder.write_summary(self.summary.describe(progress.as_state(), holes, ended))
