"""Where a run stands, in samples of the stream: what makes it go on elsewhere as if nothing had been."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

DIGEST_BITS = 40  # a sum of them over thousands of workers is exact in the float64 that workers exchange


@dataclass(slots=True)
class Progress:
    """What a checkpoint stores beside DeepSpeed's state.

    Length and schedule count in steps of the batch that the run began with, so a run that goes on with another batch
    (another number of workers) still ends at the same sample and its learning rate goes on without a jump.
    """

    step: int = 0  # optimizer steps done
    position: int = 0  # stream position of the next sample, over all workers
    total_steps: int | None = None  # of `batch` samples
    batch: int = 0  # samples a step when the run began
    holes: int = 0  # samples seen that could not be read
    shards: str = ""  # fingerprint of the shards and of a made alignment: at the same positions others would stand
    alignment: str = ""  # fingerprint of a made alignment alone, to say which of the two is another
    init: str = "random"  # what the weights started from, in words
    digest: int = 0  # of the samples since the last log line
    meter: dict[str, dict[str, float]] = field(default_factory=dict)  # sums of losses since the last log line
    chosen: dict[str, Any] = field(default_factory=dict)  # step and value of the best validation, where one is chosen

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "Progress":
        """From what `as_state` gave."""
        return cls(**state)

    def as_state(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @property
    def is_done(self) -> bool:
        return self.total_steps is not None and self.position >= self.total_steps * self.batch

    @property
    def schedule_step(self) -> float:
        """Steps done, were they all of the batch that the run began with."""
        return self.position / self.batch

    def last_step(self, samples_per_step: int) -> int | None:
        """The number of the run's last step, at this batch from here on."""
        if self.total_steps is None:
            return None
        return self.step + max(0, math.ceil((self.total_steps * self.batch - self.position) / samples_per_step))

    def set_last_step(self, last_step: int, samples_per_step: int) -> None:
        """The inverse of `last_step`, for a run in minutes that has measured its speed."""
        samples = self.position + (last_step - self.step) * samples_per_step
        self.total_steps = math.ceil(samples / self.batch)

    def advance(self, samples: int, digest: int, holes: int = 0) -> None:
        """Count one optimizer step."""
        self.holes += holes
        self.step += 1
        self.position += samples
        self.digest = (self.digest + digest) % (1 << DIGEST_BITS)

    def take_digest(self) -> str:
        """The digest since it was last taken, as 10 hex digits."""
        digest, self.digest = self.digest, 0
        return f"{digest:010x}"


def samples_digest(keys: np.ndarray) -> int:
    """Which samples, in whatever order: the sum of the sample keys (uint64) modulo 2^40."""
    return int(np.sum(keys & np.uint64((1 << DIGEST_BITS) - 1), dtype=np.uint64)) % (1 << DIGEST_BITS)
