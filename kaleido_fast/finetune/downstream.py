"""The type of a row of DOWNSTREAM: all that loop, evaluation, command line and report know of one downstream task.

To add one: a file with its step, a file with its Measure (tasks/measure.py), a row in table.py, a config in configs/finetune/,
its lines in docs/finetuning.md, a test. Settings of its own are a section in a settings.py beside it, joined in config.py.

The step is a module as `training/loop.py` drives it, built around `build_model(config, manifest, resumed, finetuned)`:

    step.model                                  the KaleidoBertModel; it alone goes into checkpoints' weights and exports
    step.count(batch) -> {name: rows}           valid rows by loss and by what is counted, from what the host knows: no device
                                                is asked. The names are always the same; a hole counts nowhere
    step.forward(batch, num_rows, num_step_rows, dropout_key) -> StepResult
                                                `loss` is the sum over losses of weight x sum / num_step_rows (SPEC 7 'Loss');
                                                `loss_sums` and `correct` name sums whose rows `count` gave. dropout_key is
                                                None in validation, where the step is in eval mode and may show more

A batch has the sample's own, whole text unless `draw_text`; its clean features are `batch.clean_features(model, grids, B)`; on
the host lie `batch.host.rows` (of the shards' table: keys, classes, tokens) and `batch.host.epochs`, from which random words
are drawn (`host_words`, SPEC 6). What the device needs of them goes up in one piece by `data/batches/upload.py`.

What using the model needs (label names, settings of decoding) is a FineTuned, kept in model.json with checkpoint and export.
Validation draws the same as training at epoch 2^28 - 1; the checkpoint with most of `chosen_by` of its report is the one that
evaluate, export and from_pretrained take.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import Split
from kaleido_fast.finetune.settings import FinetuneConfig
from kaleido_fast.kernels.philox import draw
from kaleido_fast.tasks.measure import Measure
from kaleido_fast.training.workers.stream_blocks import StreamBlocks

LOOKED_AT = 4096  # products whose texts are read at once


@dataclass(frozen=True, slots=True)
class Downstream:
    """One downstream task.

    Args:
        name: of the task, as `finetune.task` has it.
        build: its step, from config, manifest, whether its weights will come from a checkpoint, and a worker's place in
            contrast's blocks.
        check: refuses (ValueError) a training and a validation split that it cannot learn from; what a user should know of
            them, or "".
        chosen_by: of a validation's report ({"losses", "accuracy"} by name), what is best where it is most.
        shown: names of the losses that the progress bar shows.
        measures: rows as `evaluate` and the report take them, of the fine-tuned model.
        contrasts: whether contrast may be trained with it; otherwise it is left out of the model.
        draw_text: whether mismatched texts are drawn.
        mined_at_start: whether negatives are mined before the first step, too.
    """

    name: str
    build: Callable[[FinetuneConfig, Manifest, bool, StreamBlocks], nn.Module]
    check: Callable[[FinetuneConfig, Split, Split], str]
    chosen_by: Callable[[Mapping[str, Any]], float]
    shown: tuple[str, ...]
    measures: Mapping[str, Measure]
    contrasts: bool = False
    draw_text: bool = False
    mined_at_start: bool = False


def has_words(split: Split) -> bool:
    """Whether any product of a split has a text with a word."""
    firsts = split.products["first_sample"]
    return any((split.rows(firsts[start : start + LOOKED_AT])["num_tokens"] > 0).any()
               for start in range(0, len(firsts), LOOKED_AT))


def host_words(batch: Batch, seed: int, stream: int, index: int | np.ndarray) -> np.ndarray:
    """(4, B) or (4, B, n) int64 words of the samples of a batch for an index, or (n,) of them: on the host (SPEC 6)."""
    host = batch.host
    assert host.rows is not None and host.epochs is not None, "of a batch from shards"
    keys, epochs = torch.from_numpy(np.ascontiguousarray(host.rows["key"]).view(np.int64)), torch.from_numpy(host.epochs)
    if isinstance(index, np.ndarray):
        return torch.stack(draw(seed, epochs[:, None], keys[:, None], stream, torch.from_numpy(index))).numpy()
    return torch.stack(draw(seed, epochs, keys, stream, index)).numpy()
