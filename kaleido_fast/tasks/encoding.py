"""Products through the model, clean: nothing masked, turned or moved (SPEC 6, clean plan; SPEC 9)."""

import contextlib
from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.kernels.geometry import num_positions
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.progress_bar import ProgressBar


class FeatureRows:
    """Clean patch features of some photographs.

    Args:
        samples: (U,) int64 numbers that the photographs go by, ascending, each once.
        features: (U, K, F) fp32.
    """

    def __init__(self, samples: np.ndarray, features: Tensor) -> None:
        self._samples, self._features = samples, features

    def of(self, samples: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features (U', K, F) of the different photographs among `samples` (B,); (B, K) int32 rows read."""
        different, which = np.unique(samples, return_inverse=True)
        places = np.searchsorted(self._samples, different)
        encoded = self._samples[np.minimum(places, len(self._samples) - 1)] == different
        assert encoded.all(), f"photographs that were not encoded: {different[~encoded][:5].tolist()}"
        positions = self._features.shape[1]
        source = which.reshape(-1, 1) * positions + np.arange(positions)
        return self._features[torch.from_numpy(places)], torch.from_numpy(source.astype(np.int32))


class PatchRows(FeatureRows):
    """Clean patch features of photographs, each decoded and encoded, or read from a store, once; on the host in fp32.

    Args:
        samples: (U,) int64 sample numbers, ascending, each once.
        batches: those samples in that order; rows of sample -1 fill up the last batch.
    """

    @torch.no_grad()
    def __init__(self, model: KaleidoBertModel, samples: np.ndarray, batches: Iterable[Batch]) -> None:
        self.broken: list[int] = []  # samples that could not be read: grey pictures, or zeros from a store
        positions, width = num_positions(model.kaleido.grids), model.patch_encoder.num_features
        super().__init__(samples, torch.empty(len(samples), positions, width))
        with ProgressBar(len(samples), "photographs", "photo") as bar:
            for batch in batches:
                start, count = bar.n, int((batch.host.samples >= 0).sum())
                assert (batch.host.samples[:count] == samples[start : start + count]).all()
                self._features[start : start + count] = batch.clean_features(model, model.kaleido.grids, count).cpu()
                self.broken += batch.host.samples[:count][~batch.host.present[:count]].tolist()
                bar.update(count)


class TokenTable(Protocol):
    """Token ids and lengths, by the number of the text; `Products` are."""

    @property
    def tokens(self) -> np.ndarray:
        """(n, T) int32, [CLS] ... [SEP], then [PAD]."""

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int32."""


class PooledEncoder:
    """Pooled outputs of products: of a photograph, a text, or both.

    Args:
        model: in eval mode, on its device.
        rows: features of every photograph that will be asked for.
        products: whose texts are read.
        empty_text: ids of [CLS] and [SEP], what stands for the text where there is none.
        precision: "fp32", or "bf16" for bf16 matrix products.
    """

    def __init__(
        self,
        model: KaleidoBertModel,
        rows: FeatureRows,
        products: TokenTable,
        *,
        empty_text: tuple[int, int],
        precision: str,
    ) -> None:
        self.model, self.products = model, products
        self._rows, self._empty_text, self._bf16 = rows, empty_text, precision == "bf16"
        self._device = next(model.parameters()).device

    @torch.inference_mode()
    def pooled(self, samples: np.ndarray | None, products: np.ndarray | None) -> Tensor:
        """(B, H) fp32 pooled outputs; without `samples` no positions, without `products` no words."""
        if products is None:
            assert samples is not None
            lengths = np.full(len(samples), 2, np.int32)
            tokens = self._to_device(np.tile(np.array(self._empty_text, np.int32), (len(samples), 1)))
            lengths_device = self._to_device(lengths)
        else:
            tokens, lengths_device, lengths = self._words(products)
        if samples is None:
            width = self.model.patch_encoder.num_features
            rows, source, levels = (
                torch.empty(0, 0, width, device=self._device),
                torch.empty(len(lengths), 0, dtype=torch.int32, device=self._device),
                (),
            )
        else:
            (rows, source), levels = self._photographs(samples), None
        with self._autocast():
            encoded = self.model.encode(tokens, lengths_device, tuple(lengths.tolist()), rows, source, levels=levels)
        return encoded.pooled.float()

    @torch.inference_mode()
    def embed_photographs(self, samples: np.ndarray) -> Tensor:
        """(B, E) fp32 of length 1, of a model with contrast."""
        rows, source = self._photographs(samples)
        with self._autocast():
            return self.model.embed_photographs(rows, self._empty_text, source)

    @torch.inference_mode()
    def embed_texts(self, products: np.ndarray) -> Tensor:
        """(B, E) fp32 of length 1, of a model with contrast."""
        tokens, lengths, lengths_host = self._words(products)
        with self._autocast():
            return self.model.embed_texts(tokens, lengths, lengths_host.tolist())

    @torch.inference_mode()
    def score(self, samples: np.ndarray, products: np.ndarray) -> np.ndarray:
        """(n,) fp32 scores of image-text pairs: the logit of a match over that of a mismatch.

        It ranks like the probability of a match and does not saturate, so that it makes no ties.
        """
        logits = self.model.itm_logits(self.pooled(samples, products))
        return (logits[:, 1] - logits[:, 0]).cpu().numpy()

    def _photographs(self, samples: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features (U, K, F) and the (B, K) int32 rows read, on the device."""
        rows, source = self._rows.of(samples)
        return rows.to(self._device), source.to(self._device)

    def _words(self, products: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray]:
        """Tokens (B, T') and lengths (B,) on the device, and the lengths on the host."""
        lengths = self.products.lengths[products]
        return self._to_device(self.products.tokens[products, : lengths.max()]), self._to_device(lengths), lengths

    def _to_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16)
