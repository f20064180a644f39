"""What embed.py embeds: the tensors of a batch, and what is refused of them (SPEC 7).

Shapes: B samples, T tokens, K positions, L levels, H hidden width, R encoded rows, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kaleido_fast.kernels.geometry import num_positions

EPS = 1e-12  # of the norms
MAX_HIDDEN = 4096  # on a GPU: 32 values a thread


class Inputs(NamedTuple):
    """The tensors that a batch is embedded from; tables and rows may differ in dtype."""

    tokens: Tensor  # (B, T) int32
    lengths: Tensor  # (B,) int32
    rows: Tensor  # (R, H)
    source: Tensor  # (B, K) int32, -1: a row of zeros
    constant: Tensor  # (K, H), or (B, K, H)
    word: Tensor  # (V, H)
    position: Tensor  # (at least T, H)
    segment: Tensor  # (H,)
    norm_weight: Tensor  # (1 + L, H), the text's first
    norm_bias: Tensor  # (1 + L, H)

    @property
    def dtype(self) -> torch.dtype:
        """The widest of word, rows and constant: the result's, where nothing else is asked for."""
        return torch.promote_types(self.word.dtype, torch.promote_types(self.rows.dtype, self.constant.dtype))

    @property
    def compute_dtype(self) -> torch.dtype:
        """fp32, or float64 where one of them is."""
        return torch.promote_types(self.dtype, torch.float32)


def check_shapes(inputs: Inputs, num_packed: int, grids: Sequence[int]) -> None:
    """Refuse what the host can see without waiting for the device.

    Raises:
        ValueError: a shape or dtype does not go with the others, or N < B * K.
    """
    batch, num_patches, hidden = inputs.lengths.numel(), num_positions(grids), inputs.word.shape[-1]
    for name, shape in _shapes(inputs, grids).items():
        tensor: Tensor = getattr(inputs, name)
        integer = name in ("tokens", "lengths", "source")
        fits = tensor.dtype == torch.int32 if integer else tensor.is_floating_point()
        if not fits or tuple(tensor.shape) != shape:
            raise ValueError(
                f"embed: {name} {tuple(tensor.shape)} {tensor.dtype} must be {shape}"
                f" {'int32' if integer else 'floating'}, to go with B={batch} of lengths, H={hidden} of word"
                f" and grids {list(grids)}"
            )
    if inputs.tokens.shape[1] > inputs.position.shape[0]:
        raise ValueError(
            f"embed: tokens of width {inputs.tokens.shape[1]} must fit the {inputs.position.shape[0]} rows of"
            " position; cut the text or give position more rows"
        )
    if num_packed < batch * num_patches:
        raise ValueError(
            f"embed: num_packed={num_packed} must be at least sum(lengths) + B * K, and B * K alone is"
            f" {batch * num_patches}; count both"
        )


def _shapes(inputs: Inputs, grids: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The shape that each tensor must have, by name; what nothing else fixes is taken from the tensor itself."""
    batch, num_patches, hidden = inputs.lengths.numel(), num_positions(grids), inputs.word.shape[-1]
    norms = (1 + len(grids) if grids else len(inputs.norm_weight), hidden)
    constant = (num_patches, hidden)
    return {
        "tokens": (batch, inputs.tokens.shape[-1]), "lengths": (batch,), "rows": (len(inputs.rows), hidden),
        "source": (batch, num_patches), "constant": constant if inputs.constant.dim() == 2 else (batch, *constant),
        "word": (len(inputs.word), hidden), "position": (len(inputs.position), hidden), "segment": (hidden,),
        "norm_weight": norms, "norm_bias": norms,
    }


def check_values(inputs: Inputs, num_packed: int) -> None:
    """Refuse lengths and indices out of range; for tensors in the host's memory, where looking costs nothing.

    Raises:
        ValueError: a length is above T, N is below their sum, or an id or source has no row.
    """
    (batch, width), num_patches = inputs.tokens.shape, inputs.source.shape[1]
    _check_range("lengths", inputs.lengths, 0, width, "cut them with the tokens")
    needed = int(inputs.lengths.sum()) + batch * num_patches
    if num_packed < needed:
        raise ValueError(
            f"embed: num_packed={num_packed} must be at least sum(lengths) + B * K = {needed}; count both"
        )
    read = inputs.tokens[torch.arange(width) < inputs.lengths[:, None]]
    _check_range("tokens", read, 0, len(inputs.word) - 1, "take the vocabulary of the shards")
    _check_range("source", inputs.source, -1, len(inputs.rows) - 1, "take the plan of the rows' own batch")


def _check_range(name: str, values: Tensor, low: int, high: int, advice: str) -> None:
    if not values.numel():
        return
    least, most = int(values.min()), int(values.max())
    if least < low or most > high:
        raise ValueError(f"embed: {name} from {least} to {most} must lie in {low}..{high}; {advice}")
