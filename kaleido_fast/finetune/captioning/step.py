"""Captioning as a downstream task: cross entropy of hidden or of next words under the prefix mask (SPEC 11)."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.upload import Upload
from kaleido_fast.data.shards.manifest import Manifest, Vocabulary
from kaleido_fast.data.shards.split import Split
from kaleido_fast.finetune.captioning.masks import CaptionTargets, counted_texts, masked_targets, next_targets
from kaleido_fast.finetune.captioning.measure import CAPTIONS
from kaleido_fast.finetune.downstream import Downstream, host_words
from kaleido_fast.finetune.settings import FinetuneConfig
from kaleido_fast.kernels.philox import TOKEN
from kaleido_fast.kernels.plan_rules import IGNORED
from kaleido_fast.model.captioning.prefix_encoder import encode_words
from kaleido_fast.model.captioning.settings import CaptionSettings
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.losses import StepResult, loss_scales
from kaleido_fast.model.settings import FineTuned
from kaleido_fast.training.build import build_model
from kaleido_fast.training.workers.group import own_device
from kaleido_fast.training.workers.stream_blocks import StreamBlocks

NAME = "captioning"


class CaptionStep(nn.Module):
    """Forward and loss of one micro-batch; a sample whose text has no word counts nowhere.

    Args:
        max_tokens: T, at which texts are cut.
    """

    def __init__(
        self, model: KaleidoBertModel, vocabulary: Vocabulary, settings: CaptionSettings, max_tokens: int, seed: int,
        weights: Mapping[str, float],
    ) -> None:
        super().__init__()
        self.model, self._vocabulary, self._settings = model, vocabulary, settings
        self._max_tokens, self._seed, self._weights = max_tokens, seed, dict(weights)
        self._upload: Upload | None = None

    def count(self, batch: Batch) -> dict[str, int]:
        """Words that are predicted, from what the host knows."""
        return {NAME: int((self._targets(batch).labels != IGNORED).sum())}

    def forward(
        self, batch: Batch, num_rows: Mapping[str, int], num_step_rows: Mapping[str, float], dropout_key: Tensor | None
    ) -> StepResult:
        """The loss of a batch; arguments as PretrainStep takes them."""
        if self._upload is None:
            self._upload = Upload(batch.lengths.device)
        model, targets, lengths = self.model, self._targets(batch), batch.host.lengths
        inside = np.arange(targets.labels.shape[1]) < lengths[:, None]
        labels = targets.labels[inside]  # of all words, end to end
        predicting = np.flatnonzero(labels != IGNORED)
        arrays = self._upload({"tokens": targets.tokens, "rows": predicting, "labels": labels[predicting]})
        features = batch.clean_features(model, model.kaleido.grids, len(lengths))
        outputs = encode_words(model, arrays["tokens"], batch.lengths, lengths.tolist(), features, dropout_key)
        logits = model.amlm.logits(outputs.index_select(0, arrays["rows"]), model.word_table).float()
        loss = cross_entropy(logits, arrays["labels"], reduction="sum", label_smoothing=self._settings.label_smoothing)
        correct = (logits.detach().argmax(-1) == arrays["labels"]).sum()
        scale = loss_scales({NAME: num_step_rows[NAME]}, self._weights, 0.0)[NAME]
        return StepResult(loss * scale, {NAME: loss.detach()}, {NAME: correct})

    def _targets(self, batch: Batch) -> CaptionTargets:
        host, vocabulary = batch.host, self._vocabulary
        assert host.rows is not None
        tokens, lengths = self._host_tokens(batch), host.lengths
        is_cut = host.rows["num_tokens"] > self._max_tokens - 2
        if self._settings.objective == "next":
            targets = next_targets(tokens, lengths, is_cut)
        else:
            words = host_words(batch, self._seed, TOKEN, np.arange(tokens.shape[1]))
            targets = masked_targets(tokens, lengths, is_cut, words, self._settings.masked, mask_id=vocabulary.mask_id,
                                     ordinary=(vocabulary.ordinary_first, vocabulary.ordinary_last))
        counts = counted_texts(lengths, host.present)[:, None]
        return CaptionTargets(targets.tokens, np.where(counts, targets.labels, IGNORED))

    def _host_tokens(self, batch: Batch) -> np.ndarray:
        """(B, T) int32 of the batch, put together again from the table's rows: the device is not asked."""
        rows, lengths, vocabulary = batch.host.rows, batch.host.lengths, self._vocabulary
        assert rows is not None
        width = batch.tokens.shape[1]
        tokens = np.full((len(lengths), width), vocabulary.pad_id, np.int32)
        part = rows["tokens"][:, : width - 1]
        tokens[:, 1 : 1 + part.shape[1]] = part
        places, last = np.arange(width), (lengths - 1)[:, None]
        tokens = np.where(places < last, tokens, np.where(places == last, vocabulary.sep_id, vocabulary.pad_id))
        tokens[:, 0] = vocabulary.cls_id
        return tokens.astype(np.int32)


def _build(config: FinetuneConfig, manifest: Manifest, resumed: bool, blocks: StreamBlocks) -> CaptionStep:
    vocabulary, train = manifest.vocabulary, config.train
    words = ("cls_id", "sep_id", "mask_id", "ordinary_first", "ordinary_last")
    longest = min(config.caption.max_tokens, config.data.max_tokens - 2)  # as far as positions are trained
    kept = {"caption": dataclasses.asdict(config.caption) | {"max_tokens": longest},
            "words": {name: getattr(vocabulary, name) for name in words}}
    model = build_model(config, manifest, resumed, FineTuned(NAME, settings=kept))
    step = CaptionStep(model, vocabulary, config.caption, config.data.max_tokens, train.seed, train.task_weights)
    return step.to(own_device(config.run.device))


def _check(config: FinetuneConfig, split: Split, validation: Split) -> str:
    for part in (split, validation):
        if not any(part.rows(np.array([int(first)]))["num_tokens"][0] for first in part.products["first_sample"]):
            raise ValueError(f"finetune.task={NAME}: no product of split '{part.name}' of {part.folder} has a text; prepare "
                             "the catalogue with the fields that describe its products")
    return ""


CAPTIONING_TASK = Downstream(NAME, _build, _check, chosen_by=lambda report: -float(report["losses"][NAME]), shown=(NAME,),
                  measures={NAME: CAPTIONS})
