"""Kaleido-BERT, the plain way: padded embeddings, encoder and heads (SPEC 3 and 7).

Shapes: B samples, T tokens, K positions, L = T + K, H hidden, V vocabulary, F patch features.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kaleido_fast.data.batches.own_texts import OwnTexts
from kaleido_fast.kernels.cut import cut_reference
from kaleido_fast.kernels.geometry import num_positions, positions_of_grid
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.model.kaleido_tasks import active_tasks
from kaleido_fast.model.patch_encoders.build import build_patch_encoder
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.model.task_table import KaleidoTask
from kaleido_fast.reference.contrast import Compared, ReferenceContrast
from kaleido_fast.reference.embeddings import Embeddings
from kaleido_fast.reference.encoder import Gelu, ReferenceEncoder, RoundedLayerNorm


class Features(NamedTuple):
    """The encoded rows of a batch, clean but for the turn and the greys (SPEC 2 'Rows')."""

    rows: Tensor  # (B, K + G, F)
    targets: Tensor  # (B, K + G, num_targets), what the colour tasks predict
    locations: Tensor | None = None  # (B, K, 5) where they are the samples' own
    unturned: Tensor | None = None  # (B, U, F) of the turned levels as they stand in the photograph, for contrast


class Outputs(NamedTuple):
    """What the model makes of a batch; text places at and past a sample's length mean nothing."""

    real: Tensor  # (B, L) bool, False where the text is padding
    embeddings: Tensor  # (B, L, H), the encoder's input
    sequence: Tensor  # (B, L, H), its output
    pooled: Tensor  # (B, H)
    logits: dict[str, Tensor]  # itm (B, 2), amlm (B, T, V), class tasks (B, classes), colour tasks (B, slots, num_targets)
    alone: list[tuple[Tensor, Tensor, Tensor]]  # under contrast, `real`, `embeddings` and `sequence` of photographs, of texts
    compared: Compared | None  # of these


class ReferenceWordHead(nn.Module):
    """Dense, GELU, LayerNorm, a decoder tied to the word table, bias."""

    def __init__(self, settings: ModelSettings, num_words: int) -> None:
        super().__init__()
        self.dense = nn.Linear(settings.hidden, settings.hidden)
        self.activation = Gelu(settings.activation)
        self.norm = RoundedLayerNorm(settings.hidden, eps=settings.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(num_words))

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        """(B, T, H) and the word table, which may be padded -> (B, T, V)."""
        hidden = self.norm(self.activation(self.dense(x)))
        return nn.functional.linear(hidden, words[: len(self.bias)], self.bias)


class ReferenceKaleidoBert(nn.Module):
    """The model of model.kaleido_bert.KaleidoBertModel; weights.py carries weights and gradients between the two."""

    def __init__(
        self, settings: ModelSettings, kaleido: KaleidoSettings, vocabulary: VocabularySettings, image_size: int = 240
    ) -> None:
        super().__init__()
        self.kaleido, self.tasks = kaleido, active_tasks(kaleido)
        self.patch_encoder = build_patch_encoder(settings, kaleido)
        self.embeddings = Embeddings(
            settings, kaleido, vocabulary.padded_size, self.patch_encoder.num_features, image_size)
        self.encoder = ReferenceEncoder(settings)
        self.pooler = nn.Linear(settings.hidden, settings.hidden)
        self.itm = nn.Linear(settings.hidden, 2)
        self.amlm = ReferenceWordHead(settings, vocabulary.size)
        self.kaleido_heads = nn.ModuleDict({task.name: self._head(task, settings.hidden) for task in self.tasks})
        self.contrast = ReferenceContrast(settings) if settings.itc_dim else None

    def features_and_targets(self, images: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        """Cut and encode the patches of (B, S, S, 3) uint8 `images`: (B, K + G, F) and (B, K + G, num_targets)."""
        kaleido = self.kaleido
        patches = cut_reference(
            images, plan.labels, plan.slots, grids=kaleido.grids, tasks=plan.tasks, patch_size=kaleido.patch_size,
            mean=kaleido.mean, std=kaleido.std, dtype=torch.float32)
        rows = self.patch_encoder(patches)
        targets = self.patch_encoder.targets(patches, rows)
        return rows.unflatten(0, (len(images), -1)), targets.unflatten(0, (len(images), -1))

    def features_with_unturned(self, images: Tensor, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
        """`features_and_targets`, and (B, U, F) of the turned levels' patches, cut from the photographs anew, unturned."""
        none = plan.labels[:, :0]
        clean = cut_reference(images, none, none, grids=self.kaleido.grids, tasks=(), patch_size=self.kaleido.patch_size,
                              mean=self.kaleido.mean, std=self.kaleido.std, dtype=torch.float32)
        rows = self.patch_encoder(clean).unflatten(0, (len(images), -1))
        return *self.features_and_targets(images, plan), rows[:, turned_positions(self.kaleido.grids, plan)]

    def forward(self, plan: Plan, lengths: Tensor, features: Features, own_texts: OwnTexts | None = None) -> Outputs:
        """The whole model on a batch of drawn plans.

        Args:
            lengths: (B,) text tokens, [CLS] and [SEP] included.
            own_texts: where photographs and texts are to be compared.
        """
        shows = shown(features.rows, plan.source)
        real, embeddings, sequence = self._encoded(plan.masked_tokens, lengths, shows, features.locations)
        pooled = torch.tanh(self.pooler(sequence[:, 0]))
        alone = [] if own_texts is None else self._alone(plan, features, own_texts)
        compared = None
        if alone and self.contrast is not None:
            compared = self.contrast(*(sequence[:, 0] for _, _, sequence in alone))
        return Outputs(real, embeddings, sequence, pooled, self._logits(sequence, pooled, plan), alone, compared)

    def _encoded(
        self, tokens: Tensor, lengths: Tensor, shows: Tensor | None, locations: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What is real (B, L), the encoder's input and its output (B, L, H); no patch is real where none is shown."""
        count = num_positions(self.kaleido.grids)
        text = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        real = torch.cat([text, text.new_full((len(text), count), shows is not None)], dim=1)
        if shows is None:
            shows = torch.zeros(len(text), count, self.patch_encoder.num_features, device=tokens.device)
        embeddings = self.embeddings(tokens, shows, locations)
        return real, embeddings, self.encoder(embeddings, real)

    def _alone(self, plan: Plan, features: Features, own: OwnTexts) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Photographs alone, [CLS] [SEP] and their patches as they are, then own texts alone, as `_encoded` has them."""
        assert features.unturned is not None, "contrast needs the turned patches unturned"
        clean = features.rows[:, : num_positions(self.kaleido.grids)].clone()
        clean[:, turned_positions(self.kaleido.grids, plan)] = features.unturned
        frame = own.tokens.clone()
        frame[:, 1] = own.tokens[torch.arange(len(frame), device=frame.device), own.lengths.long() - 1]
        return [self._encoded(frame, torch.full_like(own.lengths, 2), clean, features.locations),
                self._encoded(own.tokens, own.lengths, None)]

    def _logits(self, sequence: Tensor, pooled: Tensor, plan: Plan) -> dict[str, Tensor]:
        num_tokens = plan.masked_tokens.shape[1]
        text, patches = sequence[:, :num_tokens], sequence[:, num_tokens:]
        logits = {"itm": self.itm(pooled), "amlm": self.amlm(text, self.embeddings.text.word.weight)}
        for task in self.tasks:
            level = patches[:, positions_of_grid(self.kaleido.grids, task.grid)]
            seen = level.flatten(1) if task.num_classes else at_slots(level, plan.part(task.rule).slots)
            logits[task.name] = self.kaleido_heads[task.name](seen)
        return logits

    def _head(self, task: KaleidoTask, hidden: int) -> nn.Linear:
        if task.num_classes:
            return nn.Linear(task.grid**2 * hidden, task.num_classes)
        return nn.Linear(hidden, self.patch_encoder.num_targets, bias=False)


def shown(rows: Tensor, source: Tensor) -> Tensor:
    """(B, K, F): what each position shows of (B, K + G, F) `rows`, numbered through the batch; zeros where source is -1."""
    return rows.flatten(0, 1)[source.clamp(min=0)] * (source >= 0)[:, :, None]


def turned_positions(grids: Sequence[int], plan: Plan) -> list[int]:
    """The positions of the levels that a plan turns, level by level."""
    turned = [positions_of_grid(grids, task.grid) for task in plan.tasks if task.effect == "turn"]
    return [position for level in turned for position in range(level.start, level.stop)]


def at_slots(level: Tensor, slots: Tensor) -> Tensor:
    """(B, slots, H) of a level's (B, n*n, H); slots of -1 (a hole) read slot 0 and count nowhere."""
    samples = torch.arange(len(level), device=level.device)[:, None]
    return level[samples, slots.clamp(min=0)]
