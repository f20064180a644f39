"""Category and sub-category: cross entropy of a linear map on the pooled output (SPEC 9 and 11).

In training a sample shows its photograph alone, its text alone or both, a third each; in validation it shows all three. The
classes are those of the training split; a validation sample of another counts as wrong.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.upload import Upload
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import Split
from kaleido_fast.finetune.classes_measure import classes_measure
from kaleido_fast.finetune.downstream import Downstream, has_words
from kaleido_fast.finetune.inputs import INPUTS, GivenEncoder, drawn_inputs, with_words
from kaleido_fast.finetune.settings import FinetuneConfig
from kaleido_fast.kernels.plan_rules import IGNORED
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.losses import StepResult, loss_scales
from kaleido_fast.model.settings import FineTuned
from kaleido_fast.training.build import build_model
from kaleido_fast.training.workers.group import own_device
from kaleido_fast.training.workers.stream_blocks import StreamBlocks

Kind = Literal["category", "subcategory"]
PLURAL = {"category": "categories", "subcategory": "sub-categories"}
NAMED = 5  # labels in a message


def names_of(manifest: Manifest, kind: Kind) -> tuple[str, ...]:
    """Names of all classes of the shards, by number."""
    return manifest.categories if kind == "category" else manifest.subcategories


class ClassesStep(nn.Module):
    """Forward and loss of one micro-batch.

    Args:
        model: with a classifier.
        numbers: (classes of the shards,) int64 the classifier's number of each; IGNORED where it has none.
        empty_text: ids of [CLS] and [SEP].
    """

    def __init__(
        self, model: KaleidoBertModel, kind: Kind, numbers: np.ndarray, empty_text: tuple[int, int], seed: int,
        weights: Mapping[str, float],
    ) -> None:
        super().__init__()
        self.model, self.kind, self.numbers, self.seed, self.weights = model, kind, numbers, seed, dict(weights)
        self._encoder = GivenEncoder(model, empty_text)
        self._upload: Upload | None = None

    def forward(
        self, batch: Batch, num_rows: Mapping[str, int], num_step_rows: Mapping[str, float], dropout_key: Tensor | None
    ) -> StepResult:
        """The loss of a batch; arguments as PretrainStep takes them."""
        shown = [self._shown(batch, given, dropout_key) for given in self._given(batch)]
        loss_sum = torch.stack([loss for loss, _ in shown]).sum()
        by_input = torch.stack([correct for _, correct in shown]).sum(0)
        correct = {self.kind: by_input.sum()} | dict(zip(self._names(), by_input, strict=True))
        scale = loss_scales({self.kind: num_step_rows[self.kind]}, self.weights, 0.0)[self.kind]
        return StepResult(loss_sum * scale, {self.kind: loss_sum.detach()}, correct)

    def count(self, batch: Batch) -> dict[str, int]:
        """Samples that are shown, and how many of them show what, from what the host knows."""
        given = np.concatenate([given[batch.host.present] for given in self._given(batch)])
        by_input = np.bincount(given, minlength=len(INPUTS)).tolist()
        return {self.kind: len(given)} | dict(zip(self._names(), by_input, strict=True))

    def _names(self) -> list[str]:
        return [f"{self.kind}_{name}" for name in INPUTS]

    def _given(self, batch: Batch) -> list[np.ndarray]:
        """(B,) numbers of INPUTS, for each time that the batch is shown."""
        if self.training:
            return [drawn_inputs(batch, self.seed)]
        return [with_words(np.full(len(batch.host.lengths), number), batch) for number in range(len(INPUTS))]

    def _shown(self, batch: Batch, given: np.ndarray, dropout_key: Tensor | None) -> tuple[Tensor, Tensor]:
        """Summed cross entropy () and (3,) right answers by input."""
        assert self.model.classifier is not None and batch.host.rows is not None
        if self._upload is None:
            self._upload = Upload(batch.lengths.device)
        labels = np.where(batch.host.present, self.numbers[batch.host.rows[self.kind]], IGNORED)
        pooled, arrays = self._encoder.pooled(batch, given, dropout_key, self._upload, {"labels": labels, "given": given})
        logits = self.model.classifier(pooled).float()
        labels_device = torch.where(arrays["counts"], arrays["labels"], IGNORED)
        loss = cross_entropy(logits, labels_device, ignore_index=IGNORED, reduction="sum")
        right = logits.detach().argmax(-1) == labels_device
        by_input = torch.stack([(right & (arrays["given"] == number)).sum() for number in range(len(INPUTS))])
        return loss, by_input


def labels_of(kind: Kind, split: Split) -> tuple[str, ...]:
    """Names of the classes that the products of a training split have, in the order of the shards."""
    names = names_of(split.manifest, kind)
    return tuple(names[number] for number in np.unique(split.products[kind]).tolist())


def classes_task(kind: Kind) -> Downstream:
    """The row of category or of subcategory."""

    def build(config: FinetuneConfig, manifest: Manifest, resumed: bool, blocks: StreamBlocks) -> ClassesStep:
        labels = labels_of(kind, Split.open(config.data.shards, "train"))
        model = build_model(config, manifest, resumed, FineTuned(kind, labels))
        place = {label: number for number, label in enumerate(labels)}
        numbers = np.array([place.get(name, IGNORED) for name in names_of(manifest, kind)], np.int64)
        vocabulary, train = manifest.vocabulary, config.train
        step = ClassesStep(model, kind, numbers, (vocabulary.cls_id, vocabulary.sep_id), train.seed, train.task_weights)
        return step.to(own_device(config.run.device))

    def check(config: FinetuneConfig, split: Split, validation: Split) -> str:
        labels = labels_of(kind, split)
        if len(labels) < 2:
            raise ValueError(f"finetune.task={kind}: all products of split 'train' of {split.folder} have the one {kind} "
                             f"'{labels[0]}', so there is nothing to tell apart; give a catalogue of two or more")
        if has_words(split):
            return ""
        return f"{split.folder}: no product of split 'train' has a text; the photograph alone is shown"

    return Downstream(kind, build, check, chosen_by=lambda report: float(report["accuracy"][kind]), shown=(kind,),
                      measures={kind: classes_measure(kind)})

