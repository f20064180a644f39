"""How much memory a worker's training steps take on a CPU: the peak of the process over what it held before the model.

The same steps run once before, so that what libraries keep once and for all, such as the code that oneDNN builds a shape, is
in the baseline.
"""

import ctypes
import gc

import numpy as np
import torch

from kaleido_fast.bench.batches import drawn_batch
from kaleido_fast.bench.shapes import Shape
from kaleido_fast.data.shards.manifest import ROWS_MULTIPLE, Vocabulary
from kaleido_fast.model.kaleido_bert import KaleidoBert
from kaleido_fast.model.kaleido_tasks import plan_rules
from kaleido_fast.model.settings import VocabularySettings
from kaleido_fast.process_memory import forget_peak, peak_resident_bytes, resident_bytes
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.frozen_state import leave_out_encoder
from kaleido_fast.training.step import PretrainStep
from kaleido_fast.training.workers.group import Workers

STEPS = 4
# Environment of a process whose tensors each have pages of their own that go back when it goes: glibc's malloc otherwise keeps
# a heap with gaps, so that what is held is not what is resident.
OWN_PAGES = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def plain_vocabulary(size: int) -> Vocabulary:
    """One of `size` ids, five of them special."""
    return Vocabulary(size, -(-size // ROWS_MULTIPLE) * ROWS_MULTIPLE, 0, 1, 2, 3, 4, 5, size - 1, "")


def grown_bytes(shape: Shape, words: Vocabulary, lengths: np.ndarray, workers: Workers) -> int:
    """Peak resident memory of this process over its memory before, training on (B,) `lengths` of text tokens."""
    _train(shape, words, lengths, workers)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    forget_peak()
    before = resident_bytes()
    _train(shape, words, lengths, workers)
    return peak_resident_bytes() - before


def _train(shape: Shape, words: Vocabulary, lengths: np.ndarray, workers: Workers) -> None:
    """Some optimizer steps under DeepSpeed."""
    batch, train = drawn_batch(shape, words, lengths), shape.train
    torch.manual_seed(0)
    model = KaleidoBert(shape.model, shape.kaleido, VocabularySettings(words.size, words.padded_size), shape.data.image_size)
    rules = plan_rules(shape.kaleido, mask_id=words.mask_id, ordinary_first=words.ordinary_first,
                       ordinary_last=words.ordinary_last)
    step = PretrainStep(model, rules, 0, train.task_weights, train.losses_on_mismatched)
    leave_out_encoder(step, model)
    engine = Engine(step, train, shape.run, workers.count)
    rows = step.count(batch)
    for number in range(STEPS):
        for _ in range(train.accumulation):
            result = engine(batch, rows, rows, torch.tensor([0, number, workers.rank]))
            engine.backward(result.loss)
            engine.step(1e-4)
    engine.destroy()
