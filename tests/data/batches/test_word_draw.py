"""Word pieces that contrast does not see, against a loop over them; what stays as it is."""

import dataclasses

import numpy as np
import pytest
import torch

from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import Loader
from kaleido_fast.data.batches.word_draw import WordDraw
from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.prepare import PrepareOptions, prepare
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import Split
from kaleido_fast.kernels.philox import draw

CPU = torch.device("cpu")
SEED, WORD = 3, 7  # the stream as the definitions have it
PLAIN = DataSettings(image_size=60, max_tokens=12)


@pytest.mark.parametrize("dropout", [0.3, 1.0])
def test_each_piece_falls_by_its_own_draw(dropout: float) -> None:
    rng = np.random.default_rng(0)
    words, counts = rng.integers(5, 99, (40, 9)), rng.integers(0, 10, 40)
    keys, epochs = rng.integers(0, 2**63, 40).astype(np.uint64), rng.integers(0, 5, 40)
    kept, left = WordDraw(dropout, SEED).kept(words, counts, keys, epochs)
    for row in range(40):
        drawn = [draw(SEED, int(epochs[row]), int(keys[row]), WORD, place) for place in range(counts[row])]
        stays = max(range(counts[row]), key=lambda place: int(drawn[place][1]), default=None)
        expected = [words[row, place] for place in range(counts[row])
                    if place == stays or int(drawn[place][0]) >= dropout * 2**32]
        assert kept[row, : left[row]].tolist() == expected, row
    assert left[counts > 0].min() >= 1 and (dropout < 1 or left.max() == 1)


def test_the_own_texts_alone_lose_pieces_and_are_known_by_what_they_were(make_catalogue, tmp_path) -> None:
    folder = make_catalogue(80)
    prepare(PrepareOptions(CsvCatalogue(folder / "styles.csv", folder / "images"), tmp_path / "s", vocab_size=200, processes=1))
    split = Split.open(tmp_path / "s", "train")

    def batch(settings: DataSettings):
        return next(Loader(FromPhotographs(split), settings, seed=1, micro_batch=32, device=CPU, own_texts=True))

    whole, dropped = batch(PLAIN), batch(dataclasses.replace(PLAIN, word_dropout=0.4))
    assert torch.equal(whole.tokens, dropped.tokens) and torch.equal(whole.own_texts.readings, dropped.own_texts.readings)
    assert (dropped.own_texts.lengths <= whole.own_texts.lengths).all()
    assert (dropped.own_texts.lengths < whole.own_texts.lengths).any()
    assert dropped.own_texts.lengths.tolist() == dropped.own_texts.lengths_host.tolist()
    vocabulary = split.manifest.vocabulary
    for tokens, length, before in zip(dropped.own_texts.tokens.tolist(), dropped.own_texts.lengths.tolist(),
                                      whole.own_texts.tokens.tolist(), strict=True):
        assert tokens[0] == vocabulary.cls_id and tokens[length - 1] == vocabulary.sep_id
        assert set(tokens[length:]) <= {vocabulary.pad_id}
        rest = iter(before[1:])
        assert all(token in rest for token in tokens[1 : length - 1])  # in their order
