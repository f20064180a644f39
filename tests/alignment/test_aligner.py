"""From attention to words, with a captioner whose attention is known."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.alignment.aligner import Aligner
from kaleido_fast.alignment.captioner import Memory, State
from kaleido_fast.alignment.settings import AlignSettings
from kaleido_fast.data.shards.manifest import Vocabulary

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "sleev", "##es", "with", "collar"]
RED, BLUE, SLEEV, ES, WITH, COLLAR = range(5, 11)
VOCABULARY = Vocabulary(len(WORDS), 64, 0, 1, 2, 3, 4, 5, 10, "f")
SIDE, SIZE = 5, 60


class Scripted:
    """Says a given caption for each picture; word t looks at place places[b][t]."""

    def __init__(self, captions: list[list[int]], places: list[list[int]]) -> None:
        self.captions, self.places = captions, places
        self.network = SimpleNamespace(side=SIDE)

    def look(self, images: Tensor) -> Memory:
        return Memory(torch.zeros(len(images), SIDE**2, 1), torch.zeros(len(images), SIDE**2, 1))

    def start(self, memory: Memory) -> State:
        rows = torch.arange(len(memory.features)).view(-1, 1, 1).float()
        return State(torch.zeros(len(rows), 1, 1), rows, rows, rows)

    def step(self, memory: Memory, state: State, words: Tensor) -> tuple[Tensor, Tensor, State]:
        shape = words.shape
        told, attention = torch.full((*shape, len(WORDS)), -50.0), torch.zeros(*shape, SIDE**2)
        for b, r in np.ndindex(*shape):
            t, row = int(state.hidden[b, r, 0]), int(state.cell[b, r, 0])
            said = [*self.captions[row], 3]
            told[b, r, said[min(t, len(said) - 1)]] = 0.0
            attention[b, r, self.places[row][min(t, len(self.places[row]) - 1)]] = 1.0
        return told, attention, State(state.hidden + 1, *state[1:])

    def scores(self, told: Tensor) -> Tensor:
        return told

    def read(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attention = torch.zeros(len(images), tokens.shape[1] - 1, SIDE**2)
        for row, places in enumerate(self.places):
            for t, place in enumerate(places[: tokens.shape[1] - 1]):
                attention[row, t, place] = 1.0
        return torch.empty(0), attention, attention


def patch(place: int) -> int:
    """The mask of one place of 5 x 5 where a small covered share is asked for: level 5's patch of that slot alone."""
    return 1 << (30 + place)


def run(captioner: Scripted, mode: str, texts: list[list[int]], max_tokens: int = 12, most_covered: float = 0.5) -> list:
    settings = AlignSettings(mode=mode, beam=2, region_share=0.6, covered_share=0.45, most_covered=most_covered, smoothing=0.0,
                             stop_words=("with",))
    aligner = Aligner(captioner, settings, VOCABULARY, WORDS, image_size=SIZE, max_tokens=max_tokens, grids=(1, 2, 3, 4, 5))
    tokens = np.zeros((len(texts), 9), np.int64)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = text
    images = torch.zeros(len(texts), SIZE, SIZE, 3, dtype=torch.uint8)
    return aligner.align(images, tokens, np.array([len(text) for text in texts]))


def test_generated_words_link_all_their_occurrences() -> None:
    """"red sleeves with red" is said of two pictures: `red` of the texts gets both its maps, in every place it stands."""
    captioner = Scripted([[RED, SLEEV, ES, WITH, RED], [BLUE]], [[6, 12, 12, 11, 8], [16]])
    first, second = run(captioner, "generated", [[BLUE, RED, SLEEV, ES, WITH, RED], [RED, COLLAR]])
    assert first.caption == "red sleeves with red" and second.caption == "blue"
    red, sleeves = patch(6) | patch(8), patch(12)
    assert first.masks(9).tolist() == [0, red, sleeves, sleeves, 0, red, 0, 0, 0]
    assert [entry.strongest for entry in first.words] == [36, 42, 36], "of the first map, that of the word said first"
    assert second.masks(9).tolist() == [0] * 9


def test_a_word_that_looks_everywhere_is_aligned_with_nothing() -> None:
    """A region that is too wide by what is asked for here; what it looks at most stays."""
    for mode in ("generated", "forced"):
        (found,) = run(Scripted([[RED, BLUE, RED]], [[6, 7, 8]]), mode, [[RED, BLUE, RED]], most_covered=0.01)
        assert not found.masks(9).any() and all(entry.too_wide for entry in found.words)
        assert [entry.strongest for entry in found.words] == ([36, 37, 36] if mode == "generated" else [36, 37, 38])


def test_forced_words_have_their_own_maps() -> None:
    """Pieces share the mean of their maps; stop words have none."""
    captioner = Scripted([[]] * 2, [[6, 8, 18, 18, 11, 16], [7, 13]])
    first, second = run(captioner, "forced", [[BLUE, RED, SLEEV, ES, WITH, RED], [RED, COLLAR]])
    assert first.masks(9).tolist() == [patch(6), patch(8), patch(18), patch(18), 0, patch(16), 0, 0, 0]
    assert second.masks(9).tolist() == [patch(7), patch(13)] + [0] * 7
    assert first.caption == ""


def test_a_text_that_is_cut_is_aligned_as_far_as_it_was_read() -> None:
    """T = 5: three words are read; the piece behind the cut goes with its word."""
    captioner = Scripted([[]], [[6, 8, 18, 11, 11, 11]])
    (found,) = run(captioner, "forced", [[BLUE, RED, SLEEV, ES, RED]], max_tokens=5)
    assert found.masks(9).tolist() == [patch(6), patch(8), patch(18), 0, 0, 0, 0, 0, 0]


def test_no_text_no_alignment() -> None:
    for mode in ("generated", "forced"):
        (found,) = run(Scripted([[RED]], [[0, 0]]), mode, [[]])
        assert not found.words and not found.masks(9).any()
