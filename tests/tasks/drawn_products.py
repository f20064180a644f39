"""Products of drawn texts, for the tests of what is made of them."""

import numpy as np

from kaleido_fast.tasks.products import Products, build_products

NUMBER, WIDTH = 20, 12  # products, and tokens of a text at the most


def drawn_products(num_subcategories: int = 1, equal: tuple[int, int] | None = None) -> Products:
    """NUMBER products of two photographs each, in `num_subcategories` in turn; the two in `equal` have one text."""
    random = np.random.default_rng(5)
    lengths = random.integers(3, 11, NUMBER).astype(np.int32)
    tokens = np.zeros((NUMBER, WIDTH), np.int32)
    for row, length in enumerate(lengths):
        tokens[row, :length] = random.integers(5, 90, length)
    if equal is not None:
        tokens[equal[0]], lengths[equal[0]] = tokens[equal[1]], lengths[equal[1]]
    ones, numbers = np.ones(NUMBER, np.int64), np.arange(NUMBER)
    return build_products(ones, numbers % num_subcategories, 2 * numbers, 2 * ones, tokens, lengths)
