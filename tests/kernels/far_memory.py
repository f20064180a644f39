"""Tensors whose rows lie further apart than 32 bits can say, in memory that is mapped but never touched between."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor


@contextmanager
def far_rows(rows: Tensor, stride: int) -> Iterator[Tensor]:
    """A copy of `rows` (M, F) whose rows start `stride` values apart."""
    with far_values(stride * (len(rows) - 1) + rows.shape[1], rows.dtype) as memory:
        far = memory.as_strided(rows.shape, (stride, 1))
        yield far.copy_(rows)


@contextmanager
def far_values(count: int, dtype: torch.dtype) -> Iterator[Tensor]:
    """(count,) zeros, a file full of holes: what is not written to takes no room."""
    with tempfile.TemporaryDirectory() as folder:
        yield torch.from_file(str(Path(folder) / "values"), shared=True, size=count, dtype=dtype)
