"""Micro-batches that steps are timed on: drawn, with texts of given lengths, and uploaded once.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.bench.flops import num_unturned
from kaleido_fast.bench.step_shape import Shape
from kaleido_fast.data.batches.batch import Batch, HostBatch
from kaleido_fast.data.batches.own_texts import OwnTexts, own_text_arrays
from kaleido_fast.data.batches.patches import Pixels, ReadyRows, StoreRows
from kaleido_fast.data.shards.manifest import Vocabulary
from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.store.row_format import pack_rows
from kaleido_fast.model.kaleido_tasks import num_rows, stored_rows
from kaleido_fast.model.patch_encoders.build import build_patch_encoder

LEAST, MIDDLE, SPREAD = 6, 55, 17  # tokens: the shortest, the mean and the deviation of a catalogue's titles with descriptions
CATALOGUE = f"drawn: normal about {MIDDLE} tokens, deviation {SPREAD}, {LEAST} at least"
ROW_DRAWS = 64  # distinct feature rows; a batch repeats them


@dataclass(frozen=True, slots=True)
class CatalogueTexts:
    """What a step's time knows of a catalogue's texts."""

    source: str  # where they are from
    words: Vocabulary
    tokens: np.ndarray  # (n,) tokens of each sample's text, uncut, without [CLS] and [SEP]

    @classmethod
    def of(cls, split: Split) -> "CatalogueTexts":
        """Those of a split of shards."""
        tokens = split.rows(np.arange(split.num_samples))["num_tokens"].astype(np.int64)
        return cls(f"of {split.num_samples:,} samples of a catalogue", split.manifest.vocabulary, tokens)

    def lengths(self, count: int, width: int, seed: int = 0) -> np.ndarray:
        """(count,) int32 of drawn samples, cut to T."""
        some = np.random.default_rng(seed).choice(self.tokens, count)
        return np.minimum(some + 2, width).astype(np.int32)


def drawn_lengths(shape: Shape, count: int, between: tuple[int, int] | None = None, seed: int = 0) -> np.ndarray:
    """(count,) int32 tokens of texts, [CLS] and [SEP] included, cut to T.

    Args:
        between: shortest and longest, all lengths alike often; None: a catalogue's.
    Raises:
        ValueError: `between` is not two lengths that fit.
    """
    draw, width = np.random.default_rng(seed), shape.data.max_tokens
    if between is None:
        lengths = np.maximum(np.rint(draw.normal(MIDDLE, SPREAD, count)), LEAST)
        return np.minimum(lengths, width).astype(np.int32)
    low, high = between
    if not 3 <= low <= high <= width:
        raise ValueError(f"bench: texts of {low} to {high} tokens must lie in 3..data.max_tokens={width}")
    return draw.integers(low, high + 1, count).astype(np.int32)


def noise_batches(shape: Shape, words: Vocabulary, lengths: np.ndarray) -> list[Batch]:
    """Micro-batches of the shape's size with these (n,) `lengths`, n a multiple of it."""
    return [noise_batch(shape, words, part, seed) for seed, part in enumerate(lengths.reshape(-1, shape.train.micro_batch))]


def noise_batch(shape: Shape, words: Vocabulary, lengths: np.ndarray, seed: int = 0) -> Batch:
    """Photographs of noise with texts of random words, half of them mismatched, no holes, no alignment; own texts for contrast.

    Under `model.features=stored` the rows of a store of `data.store_dtype`, or features where there is no patch encoder.
    """
    draw, count, width = np.random.default_rng(seed), len(lengths), shape.data.max_tokens
    tokens = _random_texts(draw, words, lengths, width)
    products, match = np.arange(count, dtype=np.int64), draw.random(count) < 0.5
    texts, present = np.where(match, products, (products + 1) % count), np.ones(count, bool)

    up = functools.partial(_to, shape)
    side = shape.data.image_size
    patches = _features(shape, draw, count) if shape.model.features == "stored" else \
        Pixels(up(draw.integers(0, 256, (count, side, side, 3), dtype=np.uint8)))
    return Batch(
        patches=patches, tokens=up(tokens), lengths=up(lengths.astype(np.int32)),
        alignment=up(np.zeros(tokens.shape, np.int64)), keys=up(draw.integers(-(2**62), 2**62, count)),
        image_products=up(products), match=up(match), present=up(present),
        epochs=up(np.zeros(count, np.int64)),
        own_texts=_own_texts(shape, words, tokens, lengths, match, seed) if shape.train.contrasts else None,
        host=HostBatch(products, products, texts, lengths.astype(np.int32), match, present))


def _random_texts(draw: np.random.Generator, words: Vocabulary, lengths: np.ndarray, width: int) -> np.ndarray:
    """(n, T) int32 of (n,) `lengths`: random words between [CLS] and [SEP]."""
    tokens = draw.integers(words.ordinary_first, words.ordinary_last + 1, (len(lengths), width), dtype=np.int32)
    tokens[:, 0], tokens[np.arange(len(lengths)), lengths - 1] = words.cls_id, words.sep_id
    tokens[np.arange(width) >= lengths[:, None]] = words.pad_id
    return tokens


def _own_texts(
    shape: Shape, words: Vocabulary, tokens: np.ndarray, lengths: np.ndarray, match: np.ndarray, seed: int
) -> OwnTexts:
    """A matched sample's is the batch's; a mismatched one's has other words and its neighbour's length."""
    own_lengths = np.where(match, lengths, np.roll(lengths, 1)).astype(np.int32)
    others = _random_texts(np.random.default_rng((seed, 1)), words, own_lengths, tokens.shape[1])
    arrays = own_text_arrays(np.where(match[:, None], tokens, others), own_lengths)
    return OwnTexts.of({name: _to(shape, values) for name, values in arrays.items()}, own_lengths)


def _features(shape: Shape, draw: np.random.Generator, count: int) -> StoreRows | ReadyRows:
    stored = stored_rows(shape.kaleido)
    encoder = build_patch_encoder(shape.model, shape.kaleido)
    some = draw.standard_normal((ROW_DRAWS, encoder.num_features), dtype=np.float32)
    if not encoder.makes_features:
        ready = some[draw.integers(0, ROW_DRAWS, (count, num_rows(shape.kaleido)))]
        unturned = some[:1].repeat(count * num_unturned(shape.kaleido), axis=0).reshape(count, -1, some.shape[1])
        return ReadyRows(_to(shape, ready), unturned=_to(shape, unturned) if shape.train.contrasts else None)
    packed = pack_rows(some, shape.data.store_dtype)[draw.integers(0, ROW_DRAWS, (count, stored.num_rows))]
    return StoreRows(_to(shape, packed), shape.data.store_dtype, stored)


def _to(shape: Shape, values: np.ndarray) -> Tensor:
    """On the shape's device."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(shape.device)
