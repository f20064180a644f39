"""A batch to compare on: drawn, or the first of given shards."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.data.batches.batch import Batch, HostBatch
from kaleido_fast.data.batches.own_texts import OwnTexts, own_text_arrays
from kaleido_fast.data.batches.patches import Patches, Pixels, ReadyRows
from kaleido_fast.data.shards.manifest import ROWS_MULTIPLE, Manifest, Vocabulary
from kaleido_fast.kernels.geometry import num_positions
from kaleido_fast.kernels.source import unturned_positions
from kaleido_fast.model.kaleido_tasks import plan_rules
from kaleido_fast.model.patch_encoders.build import patch_encoder_kind
from kaleido_fast.training.settings import StepConfig

BERT_WORDS, FIRST_ORDINARY = 30522, 999  # of BERT's uncased vocabulary
WORDS_A_COLUMN = 40  # as many as BERT-base has
BLOCKS = 15  # a drawn picture is a chequered board of so many fields a side
PRODUCTS = 12  # few, so that groups hold two photographs of one product
ALIGNED = 0.2  # share of tokens that go with some patches
MATCHING, PRESENT = 0.5, 0.9


def batch_of(config: StepConfig, device: torch.device) -> tuple[Batch, Manifest]:
    """A micro-batch on `device` and the manifest of its vocabulary.

    Raises:
        ValueError: data.shards is given and cannot be read.
    """
    if not config.data.shards:
        words = drawn_vocabulary(config.model.hidden)
        return drawn_batch(config, words, device), Manifest(words, (), (), {}, token_width=config.data.max_tokens)
    from kaleido_fast.data.batches.loader import Loader  # DALI
    from kaleido_fast.data.shards.split import Split
    from kaleido_fast.training.stores.open import open_source

    split = Split.open(config.data.shards, "train")
    loader = Loader(open_source(config, split), config.data, seed=config.train.seed, micro_batch=config.train.micro_batch,
                    device=device, own_texts=config.train.contrasts)
    return next(loader), split.manifest


def drawn_vocabulary(hidden: int) -> Vocabulary:
    """BERT's uncased one, as far as numbers go; a part of it for a model narrower than BERT-base."""
    return bert_vocabulary(max(2 * FIRST_ORDINARY, min(BERT_WORDS, WORDS_A_COLUMN * hidden)))


def bert_vocabulary(size: int = BERT_WORDS) -> Vocabulary:
    """The first `size` words of BERT's uncased vocabulary, as far as numbers go."""
    return Vocabulary(size=size, padded_size=-(-size // ROWS_MULTIPLE) * ROWS_MULTIPLE, pad_id=0, unk_id=100, cls_id=101,
                      sep_id=102, mask_id=103, ordinary_first=FIRST_ORDINARY, ordinary_last=size - 1, fingerprint="")


def drawn_batch(config: StepConfig, words: Vocabulary, device: torch.device) -> Batch:
    """`train.micro_batch` samples: texts of all lengths, holes, mismatches, some alignment; the same for the same seed.

    Features are drawn too where `model.patch_encoder` is "none".
    """
    rng = np.random.default_rng(config.train.seed)
    size, width, side = config.train.micro_batch, config.data.max_tokens, config.data.image_size
    lengths = rng.integers(3, width + 1, size).astype(np.int32)
    lengths[:2] = 3, width
    products = rng.integers(0, PRODUCTS, size)
    match = rng.random(size) < MATCHING
    host = HostBatch(
        samples=np.arange(size), image_products=products, lengths=lengths, match=match, present=rng.random(size) < PRESENT,
        text_products=np.where(match, products, (products + 1) % PRODUCTS))
    tokens = _drawn_texts(rng, words, lengths, width)
    bits = rng.integers(0, 2 ** num_positions(config.kaleido.grids), (size, width), dtype=np.uint64)
    fields = np.arange(side) * BLOCKS // side
    images = rng.integers(0, 256, (size, BLOCKS, BLOCKS, 3), dtype=np.uint8)[:, fields][:, :, fields]

    def up(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    patches: Patches
    if not patch_encoder_kind(config.model.patch_encoder).makes_features:
        rules = plan_rules(config.kaleido, mask_id=words.mask_id, ordinary_first=0, ordinary_last=0)
        ready, unturned = (up(rng.standard_normal((size, number, config.model.patch_features), dtype=np.float32))
                           for number in (rules.num_rows, len(unturned_positions(rules.grids, rules.tasks))))
        patches = ReadyRows(ready, unturned=unturned)
    else:
        patches = Pixels(up(images))
    return Batch(
        patches=patches, own_texts=_own_texts(config, words, host, tokens, up) if config.train.contrasts else None,
        tokens=up(tokens), lengths=up(lengths), keys=up(rng.integers(0, 2**63, size)),
        alignment=up(np.where(rng.random((size, width)) < ALIGNED, bits, 0).astype(np.int64)),
        image_products=up(products), match=up(match), present=up(host.present),
        epochs=torch.zeros(size, dtype=torch.int64, device=device), host=host)


def _drawn_texts(rng: np.random.Generator, words: Vocabulary, lengths: np.ndarray, width: int) -> np.ndarray:
    """(n, T) int32 of random words, [CLS] and [SEP] among (n,) `lengths`."""
    size = len(lengths)
    tokens = rng.integers(words.ordinary_first, words.ordinary_last + 1, (size, width), dtype=np.int32)
    tokens[:, 0], tokens[np.arange(size), lengths - 1] = words.cls_id, words.sep_id
    tokens[np.arange(width) >= lengths[:, None]] = words.pad_id
    return tokens


def _own_texts(
    config: StepConfig, words: Vocabulary, host: HostBatch, tokens: np.ndarray, up: Callable[[np.ndarray], Tensor]
) -> OwnTexts:
    """Of a drawn batch: a matched sample's is the batch's, and two samples of other products read alike."""
    rng, width = np.random.default_rng((config.train.seed, 1)), tokens.shape[1]
    lengths = np.where(host.match, host.lengths, rng.integers(3, width + 1, len(tokens))).astype(np.int32)
    own = np.where(host.match[:, None], tokens, _drawn_texts(rng, words, lengths, width))
    own[-1], lengths[-1] = own[0], lengths[0]
    return OwnTexts.of({name: up(values) for name, values in own_text_arrays(own, lengths).items()}, lengths)
