"""What of a sample is shown: its photograph alone, its text alone, or both (SPEC 9); and pooled outputs of such a batch.

From the photograph alone the text is [CLS] [SEP]; from the text alone the sequence has no positions.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.upload import Upload
from kaleido_fast.finetune.downstream import host_words
from kaleido_fast.kernels.philox import FINE_TUNING
from kaleido_fast.kernels.source import clean_source
from kaleido_fast.model.embeddings import FRAME
from kaleido_fast.model.kaleido_bert import KaleidoBertModel

INPUTS = ("image", "text", "both")  # by number
IMAGE, TEXT, BOTH = range(3)


def drawn_inputs(batch: Batch, seed: int) -> np.ndarray:
    """(B,) int64 numbers of INPUTS, a third each (SPEC 6, stream 5); a sample without a word shows its photograph alone."""
    word = host_words(batch, seed, FINE_TUNING, 0)[0]
    return with_words((word * len(INPUTS)) >> 32, batch)


def with_words(given: np.ndarray, batch: Batch) -> np.ndarray:
    """`given`, but the photograph alone of samples whose text has no word."""
    return np.where(batch.host.lengths > FRAME, given, IMAGE)


class GivenEncoder:
    """Pooled outputs of a batch of which each sample shows what `given` says.

    Args:
        empty_text: ids of [CLS] and [SEP].
    """

    def __init__(self, model: KaleidoBertModel, empty_text: tuple[int, int]) -> None:
        self._model, self._empty_text = model, empty_text

    def pooled(
        self, batch: Batch, given: np.ndarray, dropout_key: Tensor | None, upload: Upload, arrays: Mapping[str, np.ndarray]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(n, H) pooled outputs, those with a photograph first, and the `arrays` (B, …) in their order, on the device.

        A kind that no sample shows is shown once all the same, so that all workers call the same modules: n may be B + 1, and
        where a row is that one too many, arrays["counts"] (n,) bool is False.
        """
        model, shown, read = self._model, _at_least_one(given != TEXT), _at_least_one(given == TEXT)
        order = np.concatenate([shown, read])
        counts = np.concatenate([given[shown] != TEXT, given[read] == TEXT])
        on_device = upload({name: values[order] for name, values in arrays.items()} | {
            "counts": counts, "shown": shown, "read": read, "empty": given[shown] == IMAGE})
        lengths = np.where(given[shown] == IMAGE, FRAME, batch.host.lengths[shown])
        parts = (self._with_photographs(batch, on_device["shown"], on_device["empty"], lengths, dropout_key),
                 self._texts(batch, on_device["read"], batch.host.lengths[read], dropout_key))
        packed = torch.cat([part for part, _ in parts])
        (_, first), (_, second) = parts
        cumulative = torch.cat([first, first[-1] + second[1:]])
        positions = int(model.embeddings.levels.numel())
        sequence = model.encoder(packed, cumulative, [*(lengths + positions).tolist(), *batch.host.lengths[read].tolist()])
        pooled = torch.tanh(model.pooler(sequence.index_select(0, cumulative[:-1])))
        return pooled, on_device

    def _with_photographs(
        self, batch: Batch, shown: Tensor, empty: Tensor, lengths: np.ndarray, dropout_key: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Packed embeddings and cumulative lengths of the samples `shown`, without their words where `empty`."""
        model, grids = self._model, self._model.kaleido.grids
        features = batch.clean_features(model, grids, len(batch.lengths)).index_select(0, shown)
        tokens = batch.tokens.index_select(0, shown)
        frame = torch.zeros_like(tokens)
        frame[:, 0], frame[:, 1] = self._empty_text
        tokens = torch.where(empty[:, None], frame, tokens)
        lengths_device = torch.where(empty, FRAME, batch.lengths.index_select(0, shown)).to(torch.int32)
        source = clean_source(len(shown), grids, 0, tokens.device).to(torch.int32)
        return model.embeddings(tokens, lengths_device, int(lengths.sum()) + source.numel(), features, source, dropout_key, ())

    def _texts(
        self, batch: Batch, read: Tensor, lengths: np.ndarray, dropout_key: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The same of the texts of `read`; their dropout is of a stream of its own, as contrast's is (SPEC 10)."""
        model, tokens = self._model, batch.tokens.index_select(0, read)
        features = model.embeddings.locations.new_empty(0, 0, model.patch_encoder.num_features)
        source = torch.empty(len(read), 0, dtype=torch.int32, device=tokens.device)
        key = None if dropout_key is None else dropout_key + model.embeddings.text_stream
        return model.embeddings(tokens, batch.lengths.index_select(0, read), int(lengths.sum()), features, source, key, (),
                                levels=())


def _at_least_one(chosen: np.ndarray) -> np.ndarray:
    """(n,) int64 numbers of the chosen samples; the first where none is."""
    numbers = np.flatnonzero(chosen)
    return numbers if len(numbers) else np.zeros(1, np.int64)
