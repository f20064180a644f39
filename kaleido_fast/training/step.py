"""The training step: forward, losses, clipped AdamW. It needs torch, triton and NumPy alone; engine.py hands it on."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, overload

import torch
from torch import Tensor, nn

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.kernels.plan import plan
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import PlanRules
from kaleido_fast.model.contrast import Embeddings, Pairs
from kaleido_fast.model.counts import RowCounter
from kaleido_fast.model.embeddings import Alone
from kaleido_fast.model.kaleido_bert import Encoded, KaleidoBertModel
from kaleido_fast.model.losses import Contrasted, LossInputs, StepResult, pretraining_losses
from kaleido_fast.model.parameter_roles import parameter_roles
from kaleido_fast.model.settings import ReferenceSettings
from kaleido_fast.training.mining.single_sequences import SingleSequences
from kaleido_fast.training.workers.stream_blocks import StreamBlocks


class PretrainStep(nn.Module):
    """Forward and losses of one micro-batch: plan, features, encoder, losses."""

    seed: Tensor  # () int64, of the plan

    def __init__(
        self, model: KaleidoBertModel, rules: PlanRules, seed: int, weights: Mapping[str, float],
        on_mismatched: Collection[str], reference: ReferenceSettings = ReferenceSettings(), itc_block: int = 0,
    ) -> None:
        """Losses with their `weights`; `itc_block` samples are contrasted with each other, 0 where contrast is off."""
        super().__init__()
        self.model, self.rules = model, rules
        self.weights, self.on_mismatched, self.reference = dict(weights), tuple(on_mismatched), reference
        self.itc_block, self.blocks = itc_block, StreamBlocks()
        self.counter = RowCounter(model.kaleido, rules, self.on_mismatched, bool(itc_block))
        self.register_buffer("seed", torch.tensor(seed), persistent=False)

    @overload
    def forward(
        self, batch: Batch, num_rows: Mapping[str, int], num_step_rows: Mapping[str, float], dropout_key: Tensor | None
    ) -> StepResult: ...

    @overload
    def forward(self, batch: SingleSequences) -> Embeddings: ...

    def forward(
        self, batch: Batch | SingleSequences, num_rows: Mapping[str, int] | None = None,
        num_step_rows: Mapping[str, float] | None = None, dropout_key: Tensor | None = None,
    ) -> StepResult | Embeddings:
        """The losses of a batch, or the embeddings of single sequences: weights that are sharded have no other door.

        Args:
            num_rows: valid rows of this micro-batch by loss, from `count`.
            num_step_rows: the same summed over the optimizer step's micro-batches and workers.
            dropout_key: (3,) int64 seed, step, stream; None without dropout.
        """
        if isinstance(batch, SingleSequences):
            return batch.embed(self.model)
        assert num_rows is not None and num_step_rows is not None
        drawn = self.plan_of(batch)
        alone: Alone | None = None
        if self.itc_block:
            features, targets, unturned = batch.patches.features_with_unturned(self.model, drawn)
            alone = alone_of(batch, unturned)
        else:
            features, targets = batch.patches.features_and_targets(self.model, drawn)
        encoded = self.model.encode(
            drawn.masked_tokens, batch.lengths, batch.host.lengths, features, drawn.source, dropout_key,
            locations=batch.patches.locations, tasks=drawn.tasks, alone=alone)
        inputs = LossInputs(drawn, targets, batch.match, batch.present, num_rows, num_step_rows)
        return pretraining_losses(self.model, encoded, inputs, self.weights, self.on_mismatched, self.reference,
                                  self._contrasted(encoded, batch))

    def _contrasted(self, encoded: Encoded, batch: Batch) -> Contrasted | None:
        """Contrast of the batch's photographs and texts; all workers call it in training."""
        if not self.itc_block:
            return None
        assert encoded.photographs is not None and encoded.texts is not None
        assert batch.own_texts is not None and self.model.contrast is not None
        embeddings, scale = self.model.contrast(encoded.photographs, encoded.texts)
        pairs = Pairs(batch.image_products, batch.own_texts.readings, batch.present)
        loss, found = self.blocks.loss(embeddings, scale, pairs, self.itc_block, across=self.training)
        return Contrasted(loss, found, 1 / scale.detach()[0])

    def count(self, batch: Batch) -> dict[str, int]:
        """Valid rows of a micro-batch by loss, from what the host knows; and its mismatched and its mined texts."""
        host = batch.host
        num_rows = self.counter.count(lengths=host.lengths, match=host.match, present=host.present,
                                      image_products=host.image_products, num_masked=host.num_masked)
        if host.mined is not None:
            num_rows |= {"mined": int((host.mined & host.present).sum()), "mismatched": int((~host.match & host.present).sum())}
        return num_rows

    def plan_of(self, batch: Batch) -> Plan:
        """The plan that came with the batch, or the one drawn for it."""
        if batch.plan is not None:
            return batch.plan
        return plan(batch.plan_inputs, self.seed, self.rules)


def alone_of(batch: Batch, unturned: Tensor) -> Alone:
    """What contrast encodes of a batch, with the features of its unturned patches (B, U, F).

    Raises:
        ValueError: the batch came without own texts.
    """
    own = batch.own_texts
    if own is None:
        raise ValueError("step: contrast needs the samples' own texts; ask the loader for them")
    return Alone(own.tokens, own.lengths, own.lengths_host.tolist(), unturned)


class ClippedAdamW(torch.optim.AdamW):
    """torch's fused AdamW that clips by the global norm and skips a step that is not finite, both on the device.

    g <- g / max(|g| / max_norm, 1); where |g| is not finite nothing moves, the step count neither. Nothing waits for
    the device: the fused kernel takes the divisor as grad_scale and the verdict as found_inf.

    Args:
        max_norm: limit of the global norm; 0: skip only, no clipping; None: neither (from stage 1 on, where each
            worker holds a part of the gradient, both are DeepSpeed's).
    """

    def __init__(self, params: Iterable[Any], *, max_norm: float | None, **options: Any) -> None:
        super().__init__(params, fused=True, **options)
        self.max_norm = max_norm
        self.grad_norm: Tensor = torch.zeros(())

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        self.measure()
        return super().step(closure)

    def measure(self) -> None:
        """Take the norm, and from it what the fused kernel divides by and whether it moves anything."""
        if self.max_norm is None:
            return
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        self.grad_norm = torch.nn.utils.get_total_norm(grads)
        self.found_inf = (~torch.isfinite(self.grad_norm)).float()
        divisor = self.grad_norm / self.max_norm if self.max_norm > 0 else torch.ones_like(self.grad_norm)
        self.grad_scale = torch.clamp(divisor, min=1.0).float()


def parameter_groups(module: nn.Module, weight_decay: float, *, vectors_decay: bool = False) -> list[dict[str, Any]]:
    """Two groups for the optimizer: weight decay on matrices, none on biases and norms (SPEC 8).

    Args:
        vectors_decay: other vectors (the text's segment row) decay too, as in the authors' code.
    """
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for parameter, role in parameter_roles(module):
        if parameter.requires_grad:
            spared = role != "weight" or (parameter.dim() < 2 and not vectors_decay)
            groups[spared].append(parameter)
    return [{"params": groups[0], "weight_decay": weight_decay}, {"params": groups[1], "weight_decay": 0.0}]
