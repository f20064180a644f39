"""Pictures and texts as users have them through a trained model, batch by batch: what the Python API is made of."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.data.catalogue.picture import Picture
from kaleido_fast.model.attention.packed import AUTO
from kaleido_fast.model.contrast import ContrastHeads
from kaleido_fast.model.pretrained import Pretrained
from kaleido_fast.options import Option, OptionError
from kaleido_fast.tasks.encoding import FeatureRows, PooledEncoder
from kaleido_fast.tasks.picture_features import PictureFeatures, listed_pictures
from kaleido_fast.tasks.text_rows import TextRows, text_rows

Errors = Literal["raise", "skip"]
Output = Callable[[PooledEncoder, np.ndarray], Tensor]  # rows of the pictures or texts of these numbers


class EncodedImages(NamedTuple):
    """What `errors="skip"` gives: the pictures that could be read, and what became of the others."""

    outputs: Tensor  # (m, E) or (m, H) fp32, a row for each picture that could be read, in their order
    kept: list[int]  # m numbers, which picture each row is of, from 0
    skipped: dict[int, str]  # by number the other pictures, and why


class BatchedModel:
    """A model, what its inputs go through, and how many of them at once."""

    def __init__(
        self, pretrained: Pretrained, device: torch.device, precision: str, batch_size: int, kept_features_mib: float = 256
    ) -> None:
        pretrained.model.attend_by(AUTO, device, precision)
        self.model = pretrained.model.to(device)  # the torch module
        self.tokenizer, self.preprocessing = pretrained.tokenizer, pretrained.preprocessing
        self.picture_features = PictureFeatures(self.model, self.preprocessing.max_side, kept_features_mib)
        self._precision, self._batch_size = precision, batch_size
        self._vocabulary = self.tokenizer.vocabulary() if self.tokenizer else None

    def _pairs(self, pictures: list[Picture], words: TextRows) -> Tensor:
        """(n, H) pooled outputs of each picture with its text."""
        if len(pictures) != len(words.lengths):
            raise ValueError(f"classify: {len(pictures)} images and {len(words.lengths)} texts are not pairs; give as many of "
                             "each")
        parts = [torch.zeros(0, self.model.settings.hidden)]
        for numbers, features, _ in self._features(pictures, "raise"):
            parts.append(self._encoder(features, words).pooled(numbers, numbers).cpu())
        return torch.cat(parts)

    def _encode(
        self, images: Picture | Sequence[Picture], errors: Errors, output: Output, width: int
    ) -> Tensor | EncodedImages:
        if errors not in get_args(Errors):
            raise ValueError(f"errors={errors!r}: unknown; use {' or '.join(get_args(Errors))}")
        encoded = self._images(listed_pictures(images), output, width, errors)
        return encoded.outputs if errors == "raise" else encoded

    def _images(self, pictures: list[Picture], output: Output, width: int, errors: Errors = "raise") -> EncodedImages:
        """`output`'s rows (m, width) of pictures alone."""
        parts = [torch.zeros(0, width)]
        kept: list[int] = []
        skipped: dict[int, str] = {}
        for numbers, features, unreadable in self._features(pictures, errors):
            skipped |= unreadable
            if len(numbers):
                parts.append(output(self._encoder(features, self._texts([])), numbers).cpu())
                kept += numbers.tolist()
        return EncodedImages(torch.cat(parts), kept, skipped)

    def _words(self, words: TextRows, output: Output, width: int) -> Tensor:
        """`output`'s rows (n, width) of texts alone."""
        none = FeatureRows(np.zeros(0, np.int64), torch.empty(0, 0, self.model.patch_encoder.num_features))
        encoder, numbers = self._encoder(none, words), np.arange(len(words.lengths))
        parts = [output(encoder, numbers[part]).cpu() for part in self._parts(len(numbers))]
        return torch.cat([torch.zeros(0, width), *parts])

    def _logits(self, pictures: list[Picture], words: TextRows, all_pairs: bool) -> Tensor:
        """As `score` by "itm" gives them."""
        num_texts, parts = len(words.lengths), [torch.zeros(0)]
        for numbers, features, _ in self._features(pictures, "raise"):
            encoder = self._encoder(features, words)
            samples, chosen = (np.repeat(numbers, num_texts), np.tile(np.arange(num_texts), len(numbers))) if all_pairs \
                else (numbers, numbers)
            for part in self._parts(len(samples)):
                parts.append(torch.from_numpy(encoder.score(samples[part], chosen[part])))
        scores = torch.cat(parts)
        return scores.view(len(pictures), num_texts) if all_pairs else scores

    def _contrast(self, what: str) -> ContrastHeads:
        """The heads that `what` needs."""
        if self.model.contrast is None:
            raise ValueError(f"{what}: this model was trained without contrast, so its pictures and texts alone cannot be "
                             "compared; use score for pairs, pooled_image and pooled_text for a classifier's inputs, or train "
                             "with model.itc_dim=128 train.task_weights.itc=2")
        return self.model.contrast

    def _encoder(self, features: FeatureRows, texts: TextRows) -> PooledEncoder:
        assert self._vocabulary is not None, "_texts has asked for it"
        return PooledEncoder(self.model, features, texts, precision=self._precision,
                             empty_text=(self._vocabulary.cls_id, self._vocabulary.sep_id))

    def _features(self, pictures: list[Picture], errors: Errors) -> Iterator[tuple[np.ndarray, FeatureRows, dict[int, str]]]:
        """Batch by batch: numbers (m,) of the pictures that could be read, their clean features, and the others by number."""
        if pictures and not self.model.patch_encoder.makes_features:
            raise OptionError("this model has no patch encoder, its features came from the authors' files; import it again "
                              "(`kaleido-fast import-tf`) with ", Option("resnet50"), ", or give features to its `model`")
        for part in self._parts(len(pictures)):
            places, features, unreadable = self.picture_features.of(pictures[part])
            unreadable = {part.start + place: why for place, why in unreadable.items()}
            if unreadable and errors == "raise":
                number, why = next(iter(unreadable.items()))
                raise ValueError(f"image {number}: {why}")
            yield part.start + places, FeatureRows(part.start + places, features), unreadable

    def _texts(self, texts: str | Sequence[str]) -> TextRows:
        if self.tokenizer is None or self._vocabulary is None:
            raise OptionError("this model has no vocabulary; import it again (`kaleido-fast import-tf`) with ", Option("vocab"),
                              ", or give token ids to its `model`")
        return text_rows(texts, self.tokenizer, self._vocabulary, self.preprocessing.max_tokens)

    def _parts(self, count: int) -> Iterator[slice]:
        return (slice(start, start + self._batch_size) for start in range(0, count, self._batch_size))
