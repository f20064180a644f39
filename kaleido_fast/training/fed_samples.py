"""The samples that a training is fed: which they were, and how many of them could not be read."""

from dataclasses import dataclass, field

import numpy as np

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.shards.split import REPAIR, Split
from kaleido_fast.training.lost import RunLost
from kaleido_fast.training.progress import Progress, samples_digest


@dataclass(slots=True)
class FedSamples:
    """Samples of one split."""

    split: Split
    shards: str  # named in messages
    max_holes: float = 1.0  # share of the samples seen that may be unreadable
    holes: dict[str, str] = field(default_factory=dict)  # this worker's unreadable samples, and why; the loader fills it

    def keys(self, batch: Batch) -> np.ndarray:
        """(B,) uint64 keys of a batch's samples."""
        return self.split.rows(batch.host.samples)["key"]

    def numbers(self, batches: list[Batch]) -> np.ndarray:
        """(n,) int64 numbers of the samples in their split, without what fills a batch."""
        samples = np.concatenate([batch.host.samples for batch in batches])
        return samples[samples >= 0]

    def digest(self, batch: Batch) -> int:
        """Which samples a batch holds, in whatever order."""
        return samples_digest(self.keys(batch))

    def require_readable(self, progress: Progress) -> None:
        """Raise RunLost (on all workers alike) where more could not be read than data.max_holes allows."""
        holes, limit = progress.holes, self.max_holes
        if holes <= limit * max(progress.position, self.split.num_samples):
            return
        examples = "".join(f"; {name}: {reason}" for name, reason in list(self.holes.items())[:1])
        raise RunLost(f"{self.shards}: {holes} of {progress.position} samples seen could not be read, more than "
                      f"data.max_holes={limit:g} allows{examples}; {REPAIR}, or raise data.max_holes and resume")
