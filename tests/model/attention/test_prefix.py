"""Attention under the prefix mask: against a dense mask in float64, and what is refused."""

import pytest
import torch
from torch import Tensor

from kaleido_fast.model.attention.prefix import PrefixRows, prefix_attention, prefix_rows

LENGTHS, PATCHES = (4, 1, 7), 5
CPU = torch.device("cpu")


def dense(query_key_value: Tensor) -> Tensor:
    """Of rows as the prefix mask has them, by one mask over all rows."""
    samples, places = [], []  # place -1: a patch
    for sample in range(len(LENGTHS)):
        samples += [sample] * PATCHES
        places += [-1] * PATCHES
    for sample, length in enumerate(LENGTHS):
        samples += [sample] * length
        places += list(range(length))
    seen = torch.tensor([[samples[q] == samples[k] and places[k] <= places[q] for k in range(len(places))]
                         for q in range(len(places))])
    query, key, value = query_key_value.permute(1, 2, 0, 3)
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
    return (scores.masked_fill(~seen, float("-inf")).softmax(-1) @ value).transpose(0, 1)


def drawn() -> tuple[Tensor, PrefixRows]:
    torch.manual_seed(0)
    rows = prefix_rows(LENGTHS, PATCHES, CPU)
    return torch.randn(len(rows.keys), 3, 2, 6, dtype=torch.float64, requires_grad=True), rows


def test_equals_a_dense_mask_in_float64() -> None:
    given, rows = drawn()
    attended, expected = prefix_attention(given, rows, implementation="sdpa"), dense(given)
    torch.testing.assert_close(attended, expected, rtol=1e-12, atol=1e-12)
    incoming = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((out * incoming).sum(), given)[0] for out in (attended, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_patches_do_not_see_words_and_words_do_not_see_later_ones() -> None:
    given, rows = drawn()
    changed = given.detach().clone()
    changed[rows.num_rows + 2] += 1  # the third word of the first sample
    before, after = (prefix_attention(part, rows, implementation="sdpa") for part in (given.detach(), changed))
    moved = (before != after).flatten(1).any(1).nonzero().flatten() - rows.num_rows
    assert moved.tolist() == [2, 3]


def test_rows_come_from_the_packed_sequence() -> None:
    rows = prefix_rows((2, 1), 3, CPU)
    assert rows.from_packed.tolist() == [2, 3, 4, 6, 7, 8, 0, 1, 5]  # packed: 2 words, 3 patches, 1 word, 3 patches
    assert rows.keys.tolist() == [0, 1, 2, 6, 7, 3, 4, 5, 8]
    assert (rows.words_cumulative.tolist(), rows.keys_cumulative.tolist()) == ([0, 2, 3], [0, 5, 9])


def test_what_cannot_be_done_is_refused() -> None:
    given, rows = drawn()
    with pytest.raises(ValueError, match="attention=varlen needs a CUDA device, found cpu; set model.attention=auto"):
        prefix_attention(given, rows, implementation="varlen")
    with pytest.raises(ValueError, match="prefix mask: samples need a word and a patch each, found 0 words and 5 patches"):
        prefix_rows((3, 0), PATCHES, CPU)
