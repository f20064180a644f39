"""The products of a split as evaluation sees them: classes, texts, photographs."""

from dataclasses import dataclass

import numpy as np

from kaleido_fast.data.shards.split import REPAIR, Split
from kaleido_fast.data.shards.token_rows import token_rows

ROWS_AT_ONCE = 65536  # table rows hold untruncated texts: a part at a time keeps memory small


@dataclass(frozen=True, slots=True)
class Products:
    """Arrays over the n products of a split, in order of their rank; T text tokens with [CLS] and [SEP]."""

    category: np.ndarray  # (n,) int64
    subcategory: np.ndarray  # (n,) int64
    first_sample: np.ndarray  # (n,) int64 sample number of photograph 0
    num_photos: np.ndarray  # (n,) int64
    tokens: np.ndarray  # (n, T) int32, [CLS] ... [SEP], then [PAD]
    lengths: np.ndarray  # (n,) int32
    text: np.ndarray  # (n,) int64 number of the text; equal where the tokens, cut to T, are equal
    first_of_text: np.ndarray  # (texts,) int64 the first product with that text

    def __len__(self) -> int:
        return len(self.text)

    def samples(self, products: np.ndarray, photos: np.ndarray) -> np.ndarray:
        """(m,) int64 samples that stand for `products` (m,); `photos` (n,) names one of each product."""
        return self.first_sample[products] + photos[products]


def build_products(
    category: np.ndarray,
    subcategory: np.ndarray,
    first_sample: np.ndarray,
    num_photos: np.ndarray,
    tokens: np.ndarray,
    lengths: np.ndarray,
) -> Products:
    """Number the texts: products whose `tokens` are the same share one. Arguments: see Products."""
    _, first, text = np.unique(tokens, axis=0, return_index=True, return_inverse=True)
    return Products(
        category.astype(np.int64),
        subcategory.astype(np.int64),
        first_sample.astype(np.int64),
        num_photos.astype(np.int64),
        tokens,
        lengths,
        text.reshape(-1).astype(np.int64),
        first.astype(np.int64),
    )


def read_products(split: Split, max_tokens: int) -> Products:
    """The products of a split, with the text of their lowest photograph, cut to `max_tokens`.

    Raises:
        ValueError: a row of the table cannot be used.
    """
    table = split.products
    tokens = np.empty((len(table), max_tokens), np.int32)
    lengths = np.empty(len(table), np.int32)
    for start in range(0, len(table), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        rows = split.rows(table["first_sample"][part])
        if not split.plausible(rows).all():
            product = start + int(np.argmin(split.plausible(rows)))
            raise ValueError(f"{split.folder}: product {table['id'][product].decode()!r} of split '{split.name}': its "
                             f"row in the table holds numbers that cannot be; {REPAIR}")
        tokens[part], lengths[part] = token_rows(
            rows["tokens"], rows["num_tokens"], split.manifest.vocabulary, max_tokens)
    return build_products(
        table["category"], table["subcategory"], table["first_sample"], table["num_samples"], tokens, lengths
    )
