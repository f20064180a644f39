"""A micro-batch of pre-training through the engine, its dropout keyed by (seed, step, micro-batch, worker)."""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.upload import Upload
from kaleido_fast.model.losses import StepResult
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.workers.group import Workers

STREAMS = 65536  # of a micro-batch: one for each worker


class KeyedStep:
    """One worker's.

    Args:
        engine: around a PretrainStep.
        seed: of the run.
    """

    def __init__(self, engine: Engine, seed: int, workers: Workers) -> None:
        self._engine, self._seed, self._rank = engine, seed, workers.rank
        self._upload = Upload(workers.device)

    def count(self, batch: Batch) -> dict[str, int]:
        """Valid rows of a micro-batch by loss."""
        return self._engine.module.count(batch)

    def forward(
        self, batch: Batch, num_rows: Mapping[str, float], num_step_rows: Mapping[str, float], step: int, micro: int
    ) -> StepResult:
        """The losses of a micro-batch; `step` optimizer steps are done, `micro` is its number in this one."""
        return self._engine(batch, num_rows, num_step_rows, self._dropout_key(step, micro))

    def _dropout_key(self, step: int, micro: int) -> Tensor:
        """(3,) int64: seed, step, stream; torch's own generator is keyed by the same, for the encoder's dropout."""
        key = np.array([self._seed, step, micro * STREAMS + self._rank], np.int64)
        digest = hashlib.sha256(key.tobytes()).digest()
        torch.manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        return self._upload({"key": key})["key"]
