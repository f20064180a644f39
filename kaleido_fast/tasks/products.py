"""The products of a split as evaluation sees them: classes, texts, photographs."""

from dataclasses import dataclass

import numpy as np


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
        """(m,) int64 samples that stand for (m,) `products`; `photos` (n,) names one photograph for each product."""
        return self.first_sample[products] + photos[products]


def build_products(
    category: np.ndarray, subcategory: np.ndarray, first_sample: np.ndarray, num_photos: np.ndarray,
    tokens: np.ndarray, lengths: np.ndarray,
) -> Products:
    """Number the texts: products whose `tokens` are the same share one. Arguments as the fields of Products."""
    _, first, text = np.unique(tokens, axis=0, return_index=True, return_inverse=True)
    return Products(
        category.astype(np.int64), subcategory.astype(np.int64), first_sample.astype(np.int64),
        num_photos.astype(np.int64), tokens, lengths, text.reshape(-1).astype(np.int64), first.astype(np.int64),
    )
