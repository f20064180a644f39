"""Model FLOPs of a training step: the matrix products that the definitions ask for, forward and backward.

A product (m, k) x (k, n) is 2 m k n; its backward is two of that size, or one where the input has no gradient (features
and locations). Of a sample with L rows, K positions, G greyed patches, M masked tokens and C colour slots that count:

    encoder    layers * 6 * (4 L H^2 + 2 L H I + 2 L^2 H)       projections, feed-forward, attention inside the sample
    features   4 (K + G) F H, 6 where the patch encoder is trained; locations 4 * 5 K H, once a batch
    heads      6 (H^2 + 2 H) pooler and matching, 6 M (H^2 + H V) words, 6 n^2 H classes a class task, 6 C H targets colours
    contrast   two sequences more through the encoder, of 2 + K rows and of the own text's; U patches more, of turned levels
               and unturned; heads 12 H E, similarities with the S samples of a block 6 S E

Not counted: padding, recomputation, rows that no loss reads, norms, GELU, softmax, gathers, the optimizer. The patch encoder
is counted apart, from the shapes of its own products and convolutions; a store leaves nothing of it in the step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from kaleido_fast.kernels.geometry import num_positions
from kaleido_fast.kernels.plan_rules import token_budget
from kaleido_fast.kernels.source import unturned_positions
from kaleido_fast.model.counts import counted_samples
from kaleido_fast.model.embeddings import FRAME, LOCATION_SIZE
from kaleido_fast.model.kaleido_tasks import active_tasks, num_rows
from kaleido_fast.model.patch_encoders.build import build_patch_encoder
from kaleido_fast.model.patch_encoders.interface import FrozenEncoder
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings

MATCHING = 0.5  # share of samples with their own text


@dataclass(frozen=True, slots=True)
class Contrasting:
    """What contrast adds to a batch."""

    own_lengths: Sequence[int] | np.ndarray  # (B,) text tokens of the samples' own texts
    block: int  # samples that are compared with each other


@dataclass(frozen=True, slots=True)
class StepFlops:
    """Forward and backward of a batch."""

    encoder: float
    embeddings: float  # projections of features and locations
    heads: float
    patch_encoder: float  # 0 where features are stored

    @property
    def model(self) -> float:
        """Without the patch encoder: what model FLOP utilisation divides."""
        return self.encoder + self.embeddings + self.heads


def step_flops(
    model: ModelSettings, kaleido: KaleidoSettings, num_words: int, lengths: Sequence[int] | np.ndarray,
    loss_rows: Mapping[str, float], contrast: Contrasting | None = None,
) -> StepFlops:
    """FLOPs of a batch.

    Args:
        num_words: V, ids in use.
        lengths: (B,) text tokens of each sample.
        loss_rows: valid rows by loss (`PretrainStep.count`, or `expected_rows`).
        contrast: where that is trained too.
    """
    patches = build_patch_encoder(model, kaleido)
    trained = not isinstance(patches, FrozenEncoder)
    hidden, samples, positions = model.hidden, len(lengths), num_positions(kaleido.grids)
    packed = np.asarray(lengths, np.float64) + positions
    encoded = num_rows(kaleido)
    unturned = 0 if contrast is None else num_unturned(kaleido)
    if contrast is not None:
        packed = np.concatenate([packed, np.full(samples, FRAME + positions), np.asarray(contrast.own_lengths)])
    width = 4 * hidden**2 + 2 * hidden * model.intermediate
    encoder = 6 * model.layers * (width * packed.sum() + 2 * hidden * (packed**2).sum())
    features = (6 if trained else 4) * samples * (encoded + unturned) * patches.num_features * hidden
    heads = 6 * (samples * (hidden**2 + 2 * hidden) + loss_rows["amlm"] * (hidden**2 + hidden * num_words))
    for task in active_tasks(kaleido):
        outputs = (samples * task.grid**2 * task.num_classes if task.num_classes
                   else loss_rows[task.name] * patches.num_targets)
        heads += 6 * hidden * outputs
    if contrast is not None:
        heads += samples * model.itc_dim * (12 * hidden + 6 * contrast.block)
    computed = model.features == "computed"
    patch_encoder = samples * encoded * patch_flops(model, kaleido) if computed else 0.0
    if computed and unturned:
        patch_encoder += samples * unturned * patch_flops(model, kaleido, targets=False)
    embeddings = features + 4 * positions * LOCATION_SIZE * hidden
    return StepFlops(float(encoder), float(embeddings), float(heads), float(patch_encoder))


def num_unturned(kaleido: KaleidoSettings) -> int:
    """Patches of a sample that contrast encodes besides, unturned."""
    return len(unturned_positions(kaleido.grids, [task.rule for task in active_tasks(kaleido)]))


def patch_flops(model: ModelSettings, kaleido: KaleidoSettings, *, targets: bool = True) -> int:
    """FLOPs of one patch through the patch encoder: forward, and the weights' gradient where it is trained; 0 of "none".

    Args:
        targets: with what the colour tasks predict of it.
    """
    encoder = build_patch_encoder(model, kaleido)
    if not encoder.makes_features:
        return 0
    patch, counter = torch.zeros(1, 3, kaleido.patch_size, kaleido.patch_size), FlopCounterMode(display=False)
    with counter:
        features = encoder(patch)
        if targets:
            encoder.targets(patch, features)
        if features.requires_grad:
            features.sum().backward()
    return counter.get_total_flops()


def expected_rows(
    kaleido: KaleidoSettings, on_mismatched: Sequence[str], lengths: Sequence[int] | np.ndarray, matching: float = MATCHING
) -> dict[str, float]:
    """Valid rows by loss of (B,) `lengths`, without holes, where a share of `matching` samples has its own text."""
    words = np.maximum(np.asarray(lengths, np.int64) - 2, 0)
    masked = float(token_budget(words, kaleido.max_masked_tokens).sum())
    each = {"itm": float(len(words)), "amlm": masked}
    for task in active_tasks(kaleido):
        each[task.name] = float(len(words) * task.num_predictions)
    kinds, shares = (np.array([True, False]), np.array([True, True])), np.array([matching, 1 - matching])  # matched or not
    return {name: count * float(shares @ counted_samples(name, *kinds, on_mismatched)) for name, count in each.items()}
