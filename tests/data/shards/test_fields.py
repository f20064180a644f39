"""Fields of a text: where each lies among the tokens, by hand; names that are refused; ranges that cannot be."""

import numpy as np
import pytest

from kaleido_fast.data.shards.field_text import check_fields, joined
from kaleido_fast.data.shards.fields import field_ranges, plausible_ranges
from kaleido_fast.data.shards.tokenizer import SPECIAL, Tokenizer

WORDS = (*SPECIAL, ".", "red", "shoe", "with", "lace", "##s")


def _ranges(texts: list[str], width: int = 100) -> list[list[int]]:
    return field_ranges(texts, Tokenizer(WORDS).encode_with_offsets(joined(texts))[1], width).tolist()


def test_a_field_has_its_tokens_and_the_separator_is_nobodys() -> None:
    texts = ["Red shoe", "with laces", "red"]
    assert joined(texts) == "Red shoe. with laces. red"
    # red shoe . with lace ##s . red
    assert _ranges(texts) == [[0, 2], [3, 6], [7, 8]]


def test_empty_fields_have_no_tokens_and_no_separator() -> None:
    assert joined(["", "red", "", "shoe"]) == "red. shoe"
    assert _ranges(["", "red", "", "shoe"]) == [[0, 0], [0, 1], [0, 0], [2, 3]]


def test_a_dot_inside_a_field_is_the_fields() -> None:
    assert _ranges(["red. shoe.", "lace"]) == [[0, 4], [5, 6]]  # red . shoe . | . | lace


def test_what_is_cut_is_no_fields() -> None:
    assert _ranges(["red shoe", "with laces", "red"], width=4) == [[0, 2], [3, 4], [4, 4]]


@pytest.mark.parametrize(("ranges", "fits"), [
    ([[0, 2], [3, 5]], True), ([[0, 0], [0, 5]], True), ([[3, 5], [0, 0]], True), ([[0, 2], [0, 0]], True),
    ([[0, 2], [1, 5]], False), ([[3, 5], [0, 2]], False), ([[0, 2], [3, 6]], False), ([[-1, 2], [3, 5]], False),
    ([[2, 1], [3, 5]], False),
])
def test_ranges_that_can_be(ranges: list[list[int]], fits: bool) -> None:
    assert plausible_ranges(np.array([ranges], np.int16), np.array([5])).tolist() == [fits]


@pytest.mark.parametrize(("fields", "message"), [
    (["title"], "field title: expected NAME=COLUMN such as title=productDisplayName, a name of letters, digits and"),
    (["title="], "field title=: expected NAME=COLUMN"),
    (["my title=a"], "field my title=a: expected NAME=COLUMN"),
    (["a=x", "b=y", "a=z"], "field: two fields are called a; give each a name of its own"),
    ([f"f{number}=x" for number in range(17)], "field: 17 fields, a text has at most 16"),
])
def test_refused_fields(fields: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_fields(fields)
