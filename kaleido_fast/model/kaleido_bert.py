"""Kaleido-BERT: patch encoder, embeddings, packed encoder, heads (SPEC 7)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kaleido_fast.kernels.cut import cut
from kaleido_fast.kernels.geometry import offset_of_grid
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.tasks import TaskRule
from kaleido_fast.model.attention.packed import AUTO, PRECISIONS, PickedAttention, pick_attention
from kaleido_fast.model.contrast import ContrastHeads
from kaleido_fast.model.embeddings import FRAME, Alone, KaleidoEmbeddings
from kaleido_fast.model.encoder import Encoder
from kaleido_fast.model.heads import LevelHead, WordHead, compact, level_rows, patch_rows
from kaleido_fast.model.kaleido_tasks import active_tasks
from kaleido_fast.model.parameter_roles import parameter_roles
from kaleido_fast.model.patch_encoders.build import build_patch_encoder
from kaleido_fast.model.settings import Attention, FineTuned, KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.model.task_table import KaleidoTask

# What the names of their tensors begin with.
PATCH_ENCODER, CONTRAST_HEADS, CLASSIFIER = "patch_encoder.", "contrast.", "classifier."


class Encoded(NamedTuple):
    """What the encoder makes of a batch."""

    sequence: Tensor  # (N, H) packed: each sample's text tokens, then its patches
    cumulative: Tensor  # (B + 1,) int32
    lengths: Tensor  # (B,) int32 text tokens
    pooled: Tensor  # (B, H) tanh of a dense layer on [CLS]
    photographs: Tensor | None = None  # (B, H) first output row of each photograph alone, where they were encoded too
    texts: Tensor | None = None  # (B, H) of each text alone


class KaleidoBertModel(nn.Module):
    """The whole model; a pre-trained patch encoder's weights are in the state dict, as buffers.

    Under `model.attention=auto` it attends by "sdpa", which every device has, until `attend_by` says otherwise.
    """

    def __init__(
        self, settings: ModelSettings, kaleido: KaleidoSettings, vocabulary: VocabularySettings, image_size: int = 240,
        finetuned: FineTuned | None = None,
    ) -> None:
        super().__init__()
        self.finetuned = finetuned  # what for; None of a pre-trained model
        settings = replace(settings, attention="sdpa") if settings.attention == AUTO else settings
        self.settings, self.kaleido, self.vocabulary, self.image_size = settings, kaleido, vocabulary, image_size
        self.tasks = active_tasks(kaleido)
        self.patch_encoder = build_patch_encoder(settings, kaleido)
        self.embeddings = KaleidoEmbeddings(
            settings, kaleido, vocabulary.padded_size, self.patch_encoder.num_features, image_size)
        self.encoder = Encoder(settings)
        self.pooler = nn.Linear(settings.hidden, settings.hidden)
        self.itm = nn.Linear(settings.hidden, 2)
        self.amlm = WordHead(settings, vocabulary.size)
        self.kaleido_heads = nn.ModuleDict({
            task.name: LevelHead(task, settings.hidden) if task.num_classes
            else nn.Linear(settings.hidden, self.patch_encoder.num_targets, bias=False)
            for task in self.tasks
        })
        self.contrast = ContrastHeads(settings.hidden, settings.itc_dim) if settings.itc_dim else None
        labels = finetuned.labels if finetuned else ()
        self.classifier = nn.Linear(settings.hidden, len(labels)) if labels else None  # of the pooled output (SPEC 9)
        self._initialise()

    def attend_by(self, asked: Attention, device: torch.device, precision: str, dropout: float = 0.0) -> PickedAttention:
        """From now on attention is computed by the implementation `asked`: how, not what is computed.

        Args:
            asked: as `model.attention` has it; "auto" is resolved for what follows.
            precision: "fp32" or "bf16", of the matrix products.
            dropout: rate on the attention probabilities; 0 outside training.
        Raises:
            ValueError: `asked` cannot run.
        """
        settings = self.settings
        picked = pick_attention(
            asked, device, PRECISIONS[precision], settings.heads, settings.hidden // settings.heads, dropout)
        self.settings = replace(settings, attention=picked.name)
        self.encoder.follow(self.settings)
        return picked

    def features(self, images: Tensor, plan: Plan) -> Tensor:
        """(B, K + G, F) features of every row to encode, clean but for turns and greys (SPEC 2 'Rows').

        With gradient where the patch encoder is trained.

        Args:
            images: (B, S, S, 3) uint8.
        """
        patches = self.patches(images, plan.labels, plan.slots, plan.tasks)
        return self.patch_encoder(patches).unflatten(0, (len(images), -1))

    def features_and_targets(self, images: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        """`features` under a plan and, of the same rows, (B, K + G, num_targets) what the colour tasks predict, without
        gradient."""
        patches = self.patches(images, plan.labels, plan.slots, plan.tasks)
        features = self.patch_encoder(patches)
        targets = self.patch_encoder.targets(patches, features)
        by_sample = (len(images), -1)
        return features.unflatten(0, by_sample), targets.unflatten(0, by_sample)

    def features_with_unturned(self, images: Tensor, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
        """`features_and_targets` and, from the same call of the patch encoder, (B, U, F) features of the turned levels'
        patches as they stand in the photograph (SPEC 10)."""
        kaleido, empty = self.kaleido, plan.labels[:, :0]
        patches = self.patches(images, plan.labels, plan.slots, plan.tasks)
        turned = [task.grid for task in plan.tasks if task.effect == "turn"]
        unturned = cut(images, empty, empty, grids=turned, tasks=(), patch_size=kaleido.patch_size, mean=kaleido.mean,
                       std=kaleido.std) if turned else patches[:0]
        features, apart = self.patch_encoder(torch.cat([patches, unturned])).split([len(patches), len(unturned)])
        targets = self.patch_encoder.targets(patches, features)
        num_unturned = len(unturned) // len(images)
        rows = (len(images), -1)
        return (features.unflatten(0, rows), targets.unflatten(0, rows),
                apart.unflatten(0, (len(images), num_unturned)))

    def patches(self, images: Tensor, labels: Tensor, slots: Tensor, tasks: Sequence[TaskRule]) -> Tensor:
        """(B * (K + G), 3, P, P) of (B, S, S, 3) uint8, as `cut` has them."""
        kaleido = self.kaleido
        return cut(images, labels, slots, grids=kaleido.grids, tasks=tasks, patch_size=kaleido.patch_size,
                   mean=kaleido.mean, std=kaleido.std)

    def encode(
        self, tokens: Tensor, lengths: Tensor, lengths_host: Iterable[int], features: Tensor, source: Tensor,
        dropout_key: Tensor | None = None, levels: Sequence[int] | None = None, locations: Tensor | None = None,
        tasks: Sequence[TaskRule] | None = None, alone: Alone | None = None,
    ) -> Encoded:
        """Run the packed encoder.

        Args:
            tokens: (B, T) int32; lengths: (B,) int32 text tokens; lengths_host: the same on the host.
            features: (R, K + G, F); source: (B, K) int32 row of each position among R * (K + G), -1 blank.
            dropout_key: (3,) int64, see `embed`.
            levels: indices of the levels shown (`source` has their positions only); () for text alone.
            locations: (B, K, 5) the samples' own, of all levels; None: those of the grids.
            tasks: of the plan that the features were made under; None: the model's own.
            alone: what is encoded beside them for contrast, in the same call.
        """
        totals = [int(length) + source.shape[1] for length in lengths_host]
        tasks = [task.rule for task in self.tasks] if tasks is None else tasks
        x, cumulative = self.embeddings(
            tokens, lengths, sum(totals), features, source, dropout_key, tasks, levels, locations, alone)
        if alone is not None:
            totals += [FRAME + source.shape[1]] * len(totals) + [int(length) for length in alone.lengths_host]
        sequence = self.encoder(x, cumulative, totals)
        first, *others = sequence.index_select(0, cumulative[:-1]).split(len(lengths))
        return Encoded(sequence, cumulative[: len(lengths) + 1], lengths, torch.tanh(self.pooler(first)), *others)

    def embed_photographs(self, features: Tensor, empty_text: tuple[int, int], source: Tensor | None = None) -> Tensor:
        """(B, E) fp32 of length 1: photographs alone; their products with `embed_texts` are similarities (SPEC 10).

        Args:
            features: (R, K, F) clean features of R photographs.
            empty_text: ids of [CLS] and [SEP].
            source: (B, K) int32 as `encode` takes it; None: each photograph once.
        Raises:
            ValueError: the model has no contrast.
        """
        heads, device = self._contrast_heads(), features.device
        if source is None:
            source = torch.arange(features[..., 0].numel(), dtype=torch.int32, device=device).view(features.shape[:2])
        tokens = torch.tensor(empty_text, dtype=torch.int32, device=device).expand(len(source), FRAME)
        lengths = torch.full_like(source[:, 0], FRAME)
        encoded = self.encode(tokens.contiguous(), lengths, [FRAME] * len(source), features, source)
        return heads.of_photographs(_first_rows(encoded))

    def embed_texts(self, tokens: Tensor, lengths: Tensor, lengths_host: Sequence[int]) -> Tensor:
        """(B, E) fp32 of length 1: texts alone; arguments as `encode` takes them.

        Raises:
            ValueError: the model has no contrast.
        """
        heads = self._contrast_heads()
        features = self.embeddings.locations.new_empty(0, 0, self.patch_encoder.num_features)
        source = lengths.new_empty(len(lengths), 0, dtype=torch.int32)
        return heads.of_texts(_first_rows(self.encode(tokens, lengths, lengths_host, features, source, levels=())))

    def _contrast_heads(self) -> ContrastHeads:
        if self.contrast is None:
            raise ValueError("this model has no contrast (model.itc_dim=0), so its photographs and texts cannot be compared; "
                             "train one with model.itc_dim=128 train.task_weights.itc=2")
        return self.contrast

    @property
    def word_table(self) -> Tensor:
        """(V, H): the words' embeddings, by which AMLM decodes."""
        return self.embeddings.word.weight

    def itm_logits(self, pooled: Tensor) -> Tensor:
        """(B, 2): mismatch, match."""
        return self.itm(pooled)

    def read_by_heads(
        self, encoded: Encoded, plan: Plan, counted: Mapping[str, Tensor], num_rows: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """The encoder's outputs that AMLM's and the tasks' heads read, by loss, gathered at once.

        Of AMLM and a colour task (num_rows, H): the masked places of the samples in `counted` (B,), by sample, then place; of
        a class task (B, n*n, H): its level of every sample.
        """
        words = encoded.cumulative[:-1, None].long() + plan.masked_positions
        packed_rows = {"amlm": compact(words, _kept(plan.masked_positions, counted["amlm"]), num_rows["amlm"])}
        for task in self.tasks:
            if task.num_classes:
                packed_rows[task.name] = level_rows(encoded.cumulative, encoded.lengths, task, self.kaleido.grids)
                continue
            slots = plan.part(task.rule).slots.long()
            first = patch_rows(encoded.cumulative, encoded.lengths, offset_of_grid(self.kaleido.grids, task.grid), 1)
            packed_rows[task.name] = compact(first + slots, _kept(slots, counted[task.name]), num_rows[task.name])
        outputs = encoded.sequence.index_select(0, torch.cat([part.flatten() for part in packed_rows.values()]))
        parts = outputs.split([part.numel() for part in packed_rows.values()])
        return {name: part.view(*packed_rows[name].shape, part.shape[1]) for name, part in zip(packed_rows, parts, strict=True)}

    def amlm_loss(self, outputs: Tensor, plan: Plan, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Summed cross entropy () and right answers () of AMLM's `outputs` (M, H), from `read_by_heads`."""
        labels = compact(plan.masked_labels.long(), _kept(plan.masked_positions, counted), len(outputs))
        return self.amlm(outputs, self.word_table, labels)

    def color_targets(self, task: KaleidoTask, targets: Tensor, plan: Plan, counted: Tensor, num_rows: int) -> Tensor:
        """(num_rows, num_targets) of the same slots' clean patches, from (B, K + G, num_targets) `targets`."""
        slots = plan.part(task.rule).slots.long()
        offset = offset_of_grid(self.kaleido.grids, task.grid)
        first = torch.arange(len(targets), device=targets.device)[:, None] * targets.shape[1] + offset
        return targets.flatten(0, 1)[compact(first + slots, _kept(slots, counted), num_rows)]

    def _initialise(self) -> None:
        """Truncated normal cut at two sigma for matrices and tables, norms one, biases zero (SPEC 7)."""
        sigma = self.settings.initializer_range
        for parameter, role in parameter_roles(self):
            if role == "bias":
                nn.init.zeros_(parameter)
            elif role == "weight":
                nn.init.trunc_normal_(parameter, std=sigma, a=-2 * sigma, b=2 * sigma)


def _first_rows(encoded: Encoded) -> Tensor:
    """(B, H) the first output row of each sequence."""
    return encoded.sequence.index_select(0, encoded.cumulative[:-1])


def _kept(slots: Tensor, counted: Tensor) -> Tensor:
    return (slots >= 0) & counted[:, None]
