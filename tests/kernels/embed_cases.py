"""Random inputs for `embed`, for tests of the reference and of the kernels, and what kernels may be off by."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kaleido_fast.kernels.embed_inputs import Inputs

LEAVES = ("rows", "constant", "word", "position", "segment", "norm_weight", "norm_bias")
KEY = torch.tensor([2**40 + 5, 3, 65537])
UNREAD = 10**6  # an id without a row, behind a sample's length


def case(
    lengths: Sequence[int], grids: Sequence[int] = (1, 2), *, width: int = 9, hidden: int = 6,
    own_constants: bool = False, dtype: torch.dtype = torch.float64,
) -> Inputs:
    """Random inputs: repeated ids, rows read twice, never and blank; norms far from 1 and 0; longer tables."""
    generator = torch.Generator().manual_seed(len(lengths) * 100 + hidden)
    batch, num_patches = len(lengths), sum(n * n for n in grids)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator, dtype=torch.int32)

    counts = torch.tensor(lengths, dtype=torch.int32)
    tokens = integers(0, 5, batch, width).masked_fill(torch.arange(width) >= counts[:, None], UNREAD)
    rows = max(1, batch * num_patches)
    return Inputs(
        tokens=tokens, lengths=counts, rows=numbers(rows, hidden), source=integers(-1, rows, batch, num_patches),
        constant=numbers(*([batch] if own_constants else []), num_patches, hidden), word=numbers(11, hidden),
        position=numbers(width + 2, hidden), segment=numbers(hidden), norm_weight=numbers(1 + len(grids), hidden),
        norm_bias=numbers(1 + len(grids), hidden),
    )


def packed_rows(inputs: Inputs) -> int:
    return int(inputs.lengths.sum()) + inputs.source.numel()


BF16 = torch.bfloat16
KERNEL_CASES = {  # lengths, grids, hidden, a sample's own constants, dtype, rows' dtype, spare rows, dropout
    "one sample, two tokens": ([2], (1, 2), 8, False, torch.float32, torch.float32, 0, 0.1),
    "one sample, all tokens, own constants": ([9], (2, 1), 40, True, torch.float32, torch.float32, 0, 0.4),
    "ragged, spare rows, autocast's dtypes": ([9, 1, 4, 2, 7], (1, 2), 24, False, torch.float32, BF16, 70, 0.1),
    "no text in some, no dropout": ([0, 3, 0, 0, 2, 0], (1, 2), 72, False, torch.float32, torch.float32, 3, 0.0),
    "text alone": ([9, 0, 4], (), 16, False, torch.float32, torch.float32, 5, 0.3),
    "no text at all": ([0, 0], (1, 2), 16, False, torch.float32, torch.float32, 2, 0.3),
    "four levels, bf16": ([2, 3, 2], (1, 3, 2, 1), 32, False, BF16, BF16, 0, 0.1),
    "bf16, no dropout": ([3, 1], (1, 2), 16, False, BF16, BF16, 1, 0.0),
    "two blocks of samples, bf16": ([2, 1, 3] * 12, (1,), 8, True, BF16, BF16, 1, 0.25),
    "base width, fp16": ([2, 3, 1], (1,), 768, False, torch.float16, torch.float16, 0, 0.1),
    "beyond 1,024": ([2, 1], (1,), 1032, True, torch.float32, torch.float32, 1, 0.5),
}


def kernel_case(name: str) -> tuple[Inputs, int, tuple[int, ...], float]:
    """Inputs without gradient, N, grids, dropout."""
    lengths, grids, hidden, own, dtype, rows_dtype, spare, dropout = KERNEL_CASES[name]
    width = max(2, *lengths)
    made = case(lengths, grids, width=width, hidden=hidden, own_constants=own, dtype=dtype)
    inputs = Inputs(*(x.detach() for x in made))
    return inputs._replace(rows=inputs.rows.to(rows_dtype)), packed_rows(inputs) + spare, grids, dropout


def with_strays(inputs: Inputs) -> tuple[Inputs, Inputs]:
    """Ids and sources without a row, at and far from both ends of their tables; and what they should read as."""
    words, rows = len(inputs.word), len(inputs.rows)
    tokens, source = inputs.tokens.clone(), inputs.source.clone()
    tokens[0, :4], tokens[1:, 0] = torch.tensor([words, -1, 2**31 - 1, -(2**31)]), words
    source[0, :5], source[-1, 0] = torch.tensor([rows, -2, 2**31 - 1, -(2**31), -1]), rows
    zero = torch.where((tokens >= 0) & (tokens < words), tokens, words)  # one more word, of zeros
    blank = torch.where(source < rows, source, -1).clamp(min=-1)
    longer = torch.cat([inputs.word, torch.zeros_like(inputs.word[:1])])
    return inputs._replace(tokens=tokens, source=source), inputs._replace(tokens=zero, source=blank, word=longer)


def doubled(inputs: Inputs) -> Inputs:
    return Inputs(*(x.double() if x.is_floating_point() else x for x in inputs))


def rounding(dtype: torch.dtype) -> float:
    """What one conversion may be off by, relative: an ulp, for the interpreter truncates where a GPU rounds."""
    return 0 if dtype == torch.float32 else torch.finfo(dtype).eps


def assert_near(found: Tensor, truth: Tensor, bound: Tensor | float, name: str = "") -> None:
    """Within `bound`, and fp32's own 1e-5 of the largest magnitude."""
    largest = truth.abs().max() if truth.numel() else 0
    assert ((found.double() - truth).abs() <= bound + 1e-5 * largest).all(), name
