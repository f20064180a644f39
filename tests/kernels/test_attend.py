"""attend's reference: against plain attention in float64, as an operator, its dropout, and what is refused."""

import pytest
import torch
from torch import Tensor

from kaleido_fast.kernels import attend as module
from kaleido_fast.kernels.attend import attend
from kaleido_fast.kernels.philox import philox
from tests.kernels.attend_cases import KEY, Case, cumulative

LENGTHS, WORDS = (5, 1, 7), (2, 1, 7)
ENDS, LONGEST = cumulative(LENGTHS), max(LENGTHS)


def drawn(dtype: torch.dtype = torch.float64, spare: int = 2) -> Tensor:
    return torch.randn(sum(LENGTHS) + spare, 3 * 8, dtype=dtype, generator=torch.Generator().manual_seed(0)).requires_grad_()


def attended(qkv: Tensor, words: tuple[int, ...] | None = None, dropout: float = 0.0, layer: int = 0) -> Tensor:
    given = None if words is None else torch.tensor(words, dtype=torch.int32)
    return attend(qkv, ENDS, heads=2, longest=LONGEST, words=given, dropout=dropout, dropout_key=KEY, layer=layer)


@pytest.mark.parametrize("words", [None, WORDS])
def test_equals_torchs_attention(words: tuple[int, ...] | None) -> None:
    """Under the prefix mask a patch sees patches alone, a word all patches and the words up to its own."""
    qkv = drawn()
    out, first = attended(qkv, words), 0
    for number, length in enumerate(LENGTHS):
        query, key, value = qkv[first : first + length].view(length, 3, 2, 4).permute(1, 2, 0, 3)
        visible = torch.ones(length, length, dtype=torch.bool)
        if words is not None:
            visible[words[number] :, : words[number]] = False
            visible[: words[number], : words[number]] = torch.ones(words[number], words[number]).tril().bool()
        expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        torch.testing.assert_close(out[first : first + length], expected.transpose(0, 1).flatten(1))
        first += length
    assert not out[first:].any()


@pytest.mark.parametrize("words, dropout", [(None, 0.0), (WORDS, 0.3)])
def test_gradients(words: tuple[int, ...] | None, dropout: float) -> None:
    assert torch.autograd.gradcheck(lambda qkv: attended(qkv, words, dropout), drawn(), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operator_is_well_made(dtype: torch.dtype) -> None:
    words = torch.tensor(WORDS, dtype=torch.int32)
    torch.library.opcheck(module._attend_op, (drawn(dtype), ENDS, words, KEY, 2, LONGEST, 0.1, 1))
    torch.library.opcheck(module._attend_op, (drawn(dtype), ENDS, None, KEY, 2, LONGEST, 0.0, 0))


@pytest.mark.slow  # the C++ compiler takes seconds
def test_it_goes_into_a_compiled_graph() -> None:
    def squared(qkv: Tensor) -> Tensor:
        return attended(qkv * 2, dropout=0.1).square().sum()

    plain, compiled = drawn(torch.float32), drawn(torch.float32)
    squared(plain).backward(), torch.compile(squared, fullgraph=True)(compiled).backward()
    torch.testing.assert_close(plain.grad, compiled.grad)


def test_what_is_dropped_is_as_it_is_written() -> None:
    """Of values that are the unit vectors, the output shows each weight."""
    case = Case((3, 4), heads=2, width=4)
    qkv = torch.zeros(7, 3 * 8, dtype=torch.float64)
    qkv[3:, 16:] = torch.eye(4, dtype=torch.float64).repeat(1, 2)
    out = attend(qkv, cumulative(case.lengths), heads=2, longest=4, dropout=0.4, dropout_key=KEY, layer=5)[3:].view(4, 2, 4)
    for query in range(4):
        for head in range(2):
            place = ((3 + query) * 2 + head) * 512  # of a packed row
            seed = int(KEY[0])
            words = philox(seed & 2**32 - 1, seed >> 32, place >> 2, 6 * 65536, int(KEY[1]), int(KEY[2]))
            expected = [0 if int(word) < round(0.4 * 2**32) else 0.25 / 0.6 for word in words]
            assert out[query, head].tolist() == pytest.approx(expected)


def test_layers_and_steps_draw_apart_and_the_rate_holds() -> None:
    qkv, ends = torch.zeros(300, 3 * 4, dtype=torch.float64), cumulative((300,))
    qkv[:, 8:] = 1
    first, second, later = (
        attend(qkv, ends, heads=1, longest=300, dropout=0.25, dropout_key=KEY + torch.tensor([0, step, 0]), layer=layer)[:, 0]
        for step, layer in ((0, 0), (0, 1), (1, 0)))
    assert not torch.equal(first, second) and not torch.equal(first, later)
    assert all(abs(float(out.mean()) - 1) < 0.01 for out in (first, second, later))  # 90,000 draws: four sigma is 0.008


@pytest.mark.parametrize("change, message", [
    ({"heads": 5}, r"attend: qkv \(15, 24\) torch.float64 must be \(N, 3 \* 5 \* D\) floating, for heads=5"),
    ({"longest": 513}, "attend: a sequence of 513 rows, at most 512; cut the text, or use another attention"),
    ({"cumulative": ENDS.long()}, r"attend: cumulative \(4,\) torch.int64 must be int32"),
    ({"words": ENDS}, r"attend: words \(4,\) torch.int32 must be int32, cumulative \(B \+ 1,\) and words \(B,\)"),
    ({"dropout": 1.0}, r"attend: dropout=1.0 must be in \[0, 1\)"),
    ({"dropout": 0.5, "dropout_key": None}, "attend: dropout=0.5 needs a dropout_key"),
    ({"longest": 6}, r"attend: cumulative must rise from 0 by at most longest=6, to at most N=15; found \[0, 5, 6, 13\]"),
    ({"words": torch.tensor([6, 1, 7], dtype=torch.int32)}, r"attend: words \[6, 1, 7\] must be at most the lengths"),
])
def test_what_is_refused(change: dict, message: str) -> None:
    given = {"cumulative": ENDS, "heads": 2, "longest": LONGEST, "dropout_key": KEY} | change
    with pytest.raises(ValueError, match=message):
        attend(drawn(), **given)
