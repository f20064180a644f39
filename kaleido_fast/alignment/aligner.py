"""From a captioner to the patches of each word of a sample's text (SPEC 5).

generated  captions by beam search; a generated word that occurs in the text links all its occurrences there to its map's
           region, the union where it was generated more than once
forced     attention over the text itself; each word has its own map

A word's map is the mean of its pieces' maps.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.alignment.beam import Caption, beam_search
from kaleido_fast.alignment.captioner import Captioner, State
from kaleido_fast.alignment.regions import map_regions
from kaleido_fast.alignment.settings import AlignSettings
from kaleido_fast.alignment.text_words import Word, names_something, words_of
from kaleido_fast.data.shards.manifest import Vocabulary
from kaleido_fast.data.shards.token_rows import token_rows


class WordPatches(NamedTuple):
    """What a word of a text is aligned with."""

    word: Word
    mask: int  # bit p for position p, as a signed 64-bit number
    strongest: int  # the position it looks at most
    too_wide: bool  # whether it looks at too much of the square to be aligned
    heat: np.ndarray  # (side, side) fp32, where it looks


class SampleAlignment(NamedTuple):
    """The aligned words of a sample."""

    words: list[WordPatches]
    caption: str  # generated; empty in forced mode

    def masks(self, width: int) -> np.ndarray:
        """(width,) int64 mask of each token of the text, without special ones."""
        out = np.zeros(width, np.int64)
        for entry in self.words:
            out[entry.word.first : entry.word.last] = entry.mask
        return out


class WordMap(NamedTuple):
    """A word, and the map of where it looks."""

    word: Word
    heat: Tensor  # (L,)


class Aligner:
    """Aligns batches of samples.

    Args:
        words: the vocabulary's, by id.
        max_tokens: T, of the texts that are read and the captions that are generated.
    """

    def __init__(
        self, captioner: Captioner, settings: AlignSettings, vocabulary: Vocabulary, words: Sequence[str], *,
        image_size: int, max_tokens: int, grids: Sequence[int],
    ) -> None:
        self._captioner, self._settings, self._vocabulary, self._words = captioner, settings, vocabulary, words
        self._image_size, self._max_tokens, self._grids = image_size, max_tokens, grids
        self._stop_words = frozenset(settings.stop_words)

    @torch.no_grad()
    def align(self, images: Tensor, tokens: np.ndarray, num_tokens: np.ndarray) -> list[SampleAlignment]:
        """Align each sample's words.

        Args:
            images: (B, S, S, 3) uint8 locked squares.
            tokens: (B, W) ids without special ones, num_tokens (B,) of them are the text's.
        """
        texts = [words_of(row[:count].tolist(), self._words) for row, count in zip(tokens, num_tokens, strict=True)]
        texts = [[word for word in text if names_something(word.text, self._stop_words)] for text in texts]
        if self._settings.mode == "forced":
            word_maps, captions = self._forced(images, tokens, num_tokens, texts), [""] * len(texts)
        else:
            generated = self.captions(images)
            generated_words = [words_of(caption.words.tolist(), self._words) for caption in generated]
            captions = [" ".join(word.text for word in words) for words in generated_words]
            word_maps = [maps_of_words(words, caption.attention)
                         for words, caption in zip(generated_words, generated, strict=True)]
        return self._link(texts, word_maps, captions)

    def captions(self, images: Tensor) -> list[Caption]:
        """The best caption of each picture."""
        captioner, vocabulary = self._captioner, self._vocabulary
        memory = captioner.look(images)

        def step(state: State, words: Tensor) -> tuple[Tensor, Tensor, State]:
            output, attention, state = captioner.step(memory, state, words)
            return captioner.scores(output).float().log_softmax(-1), attention, state

        return beam_search(step, captioner.start(memory), start_id=vocabulary.cls_id, end_id=vocabulary.sep_id,
                           beam=self._settings.beam, max_words=self._max_tokens - 2)

    def _forced(
        self, images: Tensor, tokens: np.ndarray, num_tokens: np.ndarray, texts: list[list[Word]]
    ) -> list[list[WordMap]]:
        rows, lengths = token_rows(tokens, num_tokens, self._vocabulary, self._max_tokens)
        longest = int(lengths.max())
        _, heats, _ = self._captioner.read(images, torch.from_numpy(rows[:, :longest]).to(images.device))
        return [
            maps_of_words([word._replace(last=min(word.last, count - 2)) for word in text if word.first < count - 2], maps)
            for text, maps, count in zip(texts, heats, lengths.tolist(), strict=True)
        ]

    def _link(
        self, texts: list[list[Word]], word_maps: list[list[WordMap]], captions: list[str]
    ) -> list[SampleAlignment]:
        """The text's words under the masks of the words that have a map."""
        forced = self._settings.mode == "forced"
        wanted = [{word.text for word in text} for text in texts]
        of_text = [[entry for entry in entries if entry.word.text in names]
                for entries, names in zip(word_maps, wanted, strict=True)]
        side = self._captioner.network.side
        heats = [entry.heat for entries in of_text for entry in entries]
        if not heats:
            return [SampleAlignment([], caption) for caption in captions]
        maps = torch.stack(heats).view(-1, side, side)
        settings = self._settings
        masks, strongest, too_wide = map_regions(
            maps, self._image_size, region_share=settings.region_share, covered_share=settings.covered_share,
            most_covered=settings.most_covered, smoothing=settings.smoothing, grids=self._grids)
        flat = iter(zip(masks.tolist(), strongest.tolist(), too_wide.tolist(), maps.cpu().numpy(), strict=True))
        out = []
        for text, entries, caption in zip(texts, of_text, captions, strict=True):
            aligned = [WordPatches(entry.word, *next(flat)) for entry in entries]
            out.append(SampleAlignment(aligned if forced else _every_occurrence(text, aligned), caption))
        return out


def maps_of_words(words: list[Word], attention: Tensor) -> list[WordMap]:
    """Words of a text or caption under (n, L) attention, one row a piece."""
    return [WordMap(word, attention[word.first : word.last].mean(dim=0)) for word in words]


def _every_occurrence(text: list[Word], generated: list[WordPatches]) -> list[WordPatches]:
    """The text's words that were generated, each under the union of its masks; the rest is its first one's."""
    by_text: dict[str, WordPatches] = {}
    for entry in generated:
        before = by_text.get(entry.word.text)
        by_text[entry.word.text] = entry if before is None else before._replace(
            mask=before.mask | entry.mask, too_wide=before.too_wide and entry.too_wide)
    return [by_text[word.text]._replace(word=word) for word in text if word.text in by_text]
