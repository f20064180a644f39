"""Retrieval: image-text matching against mined negatives, and contrast; nothing masked, turned or moved (SPEC 11)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import Split
from kaleido_fast.finetune.downstream import Downstream, has_words
from kaleido_fast.finetune.settings import FinetuneConfig
from kaleido_fast.kernels.plan import clean_plan
from kaleido_fast.kernels.plan_rules import IGNORED
from kaleido_fast.model.contrast import Embeddings
from kaleido_fast.model.embeddings import Alone
from kaleido_fast.model.losses import StepResult, loss_scales
from kaleido_fast.model.settings import FineTuned
from kaleido_fast.model.task_table import CONTRAST
from kaleido_fast.tasks.retrieval_measure import RETRIEVAL
from kaleido_fast.training.build import build_model, rules_for
from kaleido_fast.training.mining.single_sequences import SingleSequences
from kaleido_fast.training.step import PretrainStep, alone_of
from kaleido_fast.training.workers.group import own_device
from kaleido_fast.training.workers.stream_blocks import StreamBlocks

LOSSES = ("itm", CONTRAST)


class RetrievalStep(PretrainStep):
    """Forward and losses of one micro-batch: the step of pre-training without its plan, its words and its kaleido tasks."""

    def forward(  # type: ignore[override]
        self, batch: Batch | SingleSequences, num_rows: Mapping[str, int] | None = None,
        num_step_rows: Mapping[str, float] | None = None, dropout_key: Tensor | None = None,
    ) -> StepResult | Embeddings:
        """The losses of a batch, or the embeddings of single sequences; arguments as PretrainStep takes them."""
        if isinstance(batch, SingleSequences):
            return batch.embed(self.model)
        assert num_step_rows is not None
        model, clean = self.model, clean_plan(batch.tokens, self.model.kaleido.grids)
        features, _ = batch.patches.features_and_targets(model, clean)
        alone: Alone | None = alone_of(batch, features[:, :0]) if self.itc_block else None
        encoded = model.encode(batch.tokens, batch.lengths, batch.host.lengths, features, clean.source, dropout_key,
                               locations=batch.patches.locations, tasks=(), alone=alone)
        labels = torch.where(batch.present, batch.match.long(), IGNORED)
        logits = model.itm_logits(encoded.pooled).float()
        sums = {"itm": cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")}
        correct = {"itm": (logits.detach().argmax(-1) == labels).sum()}
        watched: dict[str, Tensor] = {}
        if (contrast := self._contrasted(encoded, batch)) is not None:
            sums[CONTRAST], correct[CONTRAST] = contrast.loss, contrast.found
            watched["temperature"] = contrast.temperature
        scales = loss_scales(num_step_rows, self.weights, 0.0)
        loss = torch.stack([value * scales[name] for name, value in sums.items()]).sum()
        return StepResult(loss, {name: value.detach() for name, value in sums.items()}, correct, watched)

    def count(self, batch: Batch) -> dict[str, int]:
        """Samples that are present, once a loss; and mismatched and mined texts, as in pre-training."""
        num_rows = super().count(batch)
        return {name: rows for name, rows in num_rows.items() if name in (*LOSSES, "mined", "mismatched")}


def _build(config: FinetuneConfig, manifest: Manifest, resumed: bool, blocks: StreamBlocks) -> RetrievalStep:
    train = config.train
    model = build_model(config, manifest, resumed, FineTuned("retrieval"))
    step = RetrievalStep(model, rules_for(config, manifest), train.seed, train.task_weights, (),
                         itc_block=train.itc_block if train.contrasts else 0)
    step.blocks = blocks
    return step.to(own_device(config.run.device))


def _check(config: FinetuneConfig, split: Split, validation: Split) -> str:
    if not has_words(split):
        raise ValueError(f"finetune.task=retrieval: no product of split 'train' of {split.folder} has a text, so there is "
                         "nothing to find photographs by; prepare a catalogue with texts")
    return ""


def _chosen_by(report: Mapping[str, Any]) -> float:
    """The mean share of right answers: of matching against texts of the sub-category, and of contrast's blocks."""
    shares = [float(report["accuracy"][name]) for name in LOSSES if name in report["accuracy"]]
    return sum(shares) / len(shares)


RETRIEVAL_TASK = Downstream(
    "retrieval", _build, _check, _chosen_by, shown=LOSSES, measures={"retrieval": RETRIEVAL}, contrasts=True, draw_text=True,
    mined_at_start=True)
