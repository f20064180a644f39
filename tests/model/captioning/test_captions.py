"""Captions: with keys and values kept as without; beam search against all captions there are."""

import itertools

import pytest
import torch
from torch import Tensor

from kaleido_fast.model.captioning.beam import beam_search
from kaleido_fast.model.captioning.captions import CaptionWords, write_captions
from kaleido_fast.model.captioning.prefix_encoder import encode_words
from kaleido_fast.model.captioning.settings import CaptionSettings, Objective
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings

WORDS = CaptionWords(cls_id=1, sep_id=2, mask_id=3, ordinary_first=4, ordinary_last=29)
PHOTOGRAPHS = 3


@pytest.fixture(scope="module")
def model() -> KaleidoBertModel:
    torch.manual_seed(0)
    settings = ModelSettings(hidden=16, layers=2, heads=2, intermediate=32, initializer_range=0.6, max_positions=16)
    kaleido = KaleidoSettings(grids=(1, 2), patch_size=8, tasks=())
    made = KaleidoBertModel(settings, kaleido, VocabularySettings(30, 64), 16).double().eval()
    made.amlm.bias.data.normal_(std=0.5)
    return made


@pytest.fixture(scope="module")
def features(model: KaleidoBertModel) -> Tensor:
    return torch.randn(PHOTOGRAPHS, 5, model.patch_encoder.num_features, dtype=torch.float64)


def without_cache(model: KaleidoBertModel, features: Tensor, captions: Tensor, objective: Objective) -> Tensor:
    """(n, V) log probabilities of the word behind (n, t) captions, each with its own photograph, from one pass."""
    if objective == "masked":
        captions = torch.cat([captions, torch.full_like(captions[:, :1], WORDS.mask_id)], dim=1)
    lengths = torch.full((len(captions),), captions.shape[1], dtype=torch.int32)
    outputs = encode_words(model, captions.int(), lengths, lengths.tolist(), features).unflatten(0, captions.shape)
    return model.amlm.logits(outputs[:, -1], model.word_table).float().log_softmax(-1)


@pytest.mark.parametrize("objective", ["masked", "next"])
@pytest.mark.parametrize("beam", [1, 3])
def test_a_cache_changes_no_word(model: KaleidoBertModel, features: Tensor, objective: Objective, beam: int) -> None:
    settings = CaptionSettings(objective=objective, beam=beam, max_tokens=9)
    written = write_captions(model, features, WORDS, settings)
    captions = torch.empty(PHOTOGRAPHS * beam, 0, dtype=torch.int64)

    def following(words: Tensor, parents: Tensor) -> Tensor:
        nonlocal captions
        captions = torch.cat([captions[parents], words[:, None]], dim=1)
        with torch.no_grad():
            return without_cache(model, features.repeat_interleave(beam, 0), captions, objective)

    allowed = torch.zeros(30, dtype=torch.bool)
    allowed[WORDS.ordinary_first :] = True
    expected = beam_search(following, PHOTOGRAPHS, beams=beam, start=WORDS.cls_id, end=WORDS.sep_id, allowed=allowed, most=9,
                           penalty=0.6)
    assert written == expected
    assert len({tuple(caption) for caption in written}) > 1 and max(len(caption) for caption in written) > 2
    for caption in written:
        threes = list(zip(caption, caption[1:], caption[2:], strict=False))
        assert len(caption) <= 9 and len(set(threes)) == len(threes) and min(caption, default=4) >= WORDS.ordinary_first


def table_of_words(size: int, seed: int) -> Tensor:
    """(size, size) log probabilities of the word behind each."""
    return torch.randn(size, size, generator=torch.Generator().manual_seed(seed)).mul(2).log_softmax(-1)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.5])
def test_a_wide_beam_finds_the_best_of_all_captions(penalty: float) -> None:
    size, most, start, end, seeds = 5, 3, 0, 1, range(8)
    tables = [table_of_words(size, seed) for seed in seeds]
    allowed = torch.tensor([False, False, True, True, True])
    beams = 40  # 1 + 3 + 9 + 27 captions

    def following(words: Tensor, parents: Tensor) -> Tensor:
        return torch.cat([table[part] for table, part in zip(tables, words.split(beams), strict=True)])

    found = beam_search(following, len(tables), beams=beams, start=start, end=end, allowed=allowed, most=most, penalty=penalty)
    for table, best in zip(tables, found, strict=True):
        def worth(caption: tuple[int, ...], table: Tensor = table) -> float:
            steps = zip((start, *caption), (*caption, end), strict=True)
            return sum(float(table[a, b]) for a, b in steps) / (len(caption) + 1) ** penalty

        everything = [caption for n in range(most + 1) for caption in itertools.product((2, 3, 4), repeat=n)]
        assert tuple(best) == max(everything, key=worth)


def test_no_three_words_stand_twice() -> None:
    """A chain 2 3 2 3 … would go on for ever: the third of a 3-gram that is there is passed over."""
    table = torch.full((5, 5), -9.0)
    table[0, 2] = table[2, 3] = table[3, 2] = -0.1
    table[:, 1], table[:, 4] = -5.0, -4.0
    allowed = torch.tensor([False, False, True, True, True])
    found = beam_search(lambda words, parents: table[words], 1, beams=1, start=0, end=1, allowed=allowed, most=8, penalty=0.6)
    assert found == [[2, 3, 2, 3, 4, 4, 4]]


def test_all_words_at_once_end_at_the_first_sep(model: KaleidoBertModel, features: Tensor) -> None:
    written = write_captions(model, features, WORDS, CaptionSettings(style="at_once", max_tokens=9))
    assert len(written) == PHOTOGRAPHS and all(WORDS.sep_id not in caption and len(caption) <= 9 for caption in written)


def test_captions_longer_than_the_positions_are_refused(model: KaleidoBertModel, features: Tensor) -> None:
    with pytest.raises(ValueError, match="caption.max_tokens=15: the model has positions for 14 word pieces between"):
        write_captions(model, features, WORDS, CaptionSettings(max_tokens=15))
