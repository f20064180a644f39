"""The model of an index: embeddings of texts, pictures and batches, ITM's scores of pairs, and the fingerprint by which an
index knows the model that made it."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.catalogue.picture import Picture, picture_square
from kaleido_fast.data.shards.manifest import VOCABULARY
from kaleido_fast.devices import exact_device
from kaleido_fast.files import cannot_write
from kaleido_fast.model.attention.packed import AUTO
from kaleido_fast.model.pretrained import Pretrained, load_exported
from kaleido_fast.model.weights import save_weights
from kaleido_fast.options import Option, OptionError
from kaleido_fast.tasks.encoding import FeatureRows, PooledEncoder
from kaleido_fast.tasks.picture_features import PictureFeatures
from kaleido_fast.tasks.text_rows import TextRows, text_rows
from kaleido_fast.training.stores.recipe import weights_fingerprint

TEXTS_AT_ONCE = 256
KEPT_MIB = 256  # of pictures' features
HOW = ("attention", "compile", "features", "patch_encoder_weights")  # do not change what weights compute


class Encoder:
    """Embeds what an index holds and what it is asked.

    Args:
        pretrained: a model with contrast, a vocabulary and a patch encoder.
        precision: "fp32", or "bf16" for bf16 matrix products.
        batch_size: pictures and pairs at once.
    Raises:
        ValueError: the model lacks one of the three.
    """

    def __init__(
        self, pretrained: Pretrained, device: torch.device, precision: str = "fp32", batch_size: int = 64
    ) -> None:
        _require_whole(pretrained)
        self.pretrained, self.device, self.batch_size = pretrained, exact_device(device), batch_size
        self._precision = precision
        self.fingerprint = model_fingerprint(pretrained)
        pretrained.model.attend_by(AUTO, self.device, precision)
        self.model = pretrained.model.to(self.device)
        self.pictures = PictureFeatures(self.model, pretrained.preprocessing.max_side, KEPT_MIB)
        assert pretrained.tokenizer is not None
        self._tokenizer, self.vocabulary = pretrained.tokenizer, pretrained.tokenizer.vocabulary()
        self._empty_text = self.vocabulary.cls_id, self.vocabulary.sep_id

    @classmethod
    def load(cls, folder: Path, device: torch.device, precision: str = "fp32", batch_size: int = 64) -> "Encoder":
        """The model in an exported folder; raises ValueError as `load_exported` and where it cannot search."""
        return cls(load_exported(folder, attention=AUTO), device, precision, batch_size)

    @property
    def size(self) -> int:
        """E, numbers of an embedding."""
        return self.model.settings.itc_dim

    @property
    def scale(self) -> float:
        """1 / temperature."""
        assert self.model.contrast is not None
        return float(self.model.contrast.scale().item())

    def write(self, folder: Path) -> None:
        """Write the model as `kaleido-fast export` does."""
        assert self.pretrained.tokenizer is not None
        try:
            save_weights(folder, self.model, {key: value.cpu() for key, value in self.model.state_dict().items()})
            (folder / VOCABULARY).write_text(self.pretrained.tokenizer.text(), encoding="utf-8")
            self.pretrained.preprocessing.write(folder)
        except OSError as error:
            raise cannot_write(folder, error, "make room or give another ", Option("out")) from error

    def known_words(self, text: str) -> int:
        """How many of the text's tokens the vocabulary has."""
        return sum(token != self.vocabulary.unk_id for token in self._tokenizer.encode(text))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(n, E) fp32 of length 1; zeros where a text is empty."""
        embeddings = np.zeros((len(texts), self.size), np.float32)
        rows = self._text_rows(texts)
        order = np.argsort(-rows.lengths, kind="stable")
        order = order[rows.lengths[order] > 2]  # without [CLS] and [SEP] alone
        encoder = self._encoder(_no_photographs(self.model.patch_encoder.num_features), rows)
        for start in range(0, len(order), TEXTS_AT_ONCE):
            part = order[start : start + TEXTS_AT_ONCE]
            embeddings[part] = encoder.embed_texts(part).cpu().numpy()
        return embeddings

    def pictures_of(self, pictures: Sequence[Picture]) -> tuple[np.ndarray, dict[int, str]]:
        """(m, E) fp32 of the pictures that can be read, in their order; why the others cannot, by their place."""
        readable = self.pictures.of(pictures)
        if not len(readable.places):
            return np.zeros((0, self.size), np.float32), readable.unreadable
        numbers = np.arange(len(readable.places))
        encoder = self._encoder(FeatureRows(numbers, readable.features), self._text_rows([]))
        return encoder.embed_photographs(numbers).cpu().numpy(), readable.unreadable

    @torch.inference_mode()
    def batch(self, batch: Batch, count: int) -> np.ndarray:
        """(count, E) fp32 of the first photographs of a loader's batch."""
        with self._autocast():
            features = batch.clean_features(self.model, self.model.kaleido.grids, count)
            return self.model.embed_photographs(features, self._empty_text).cpu().numpy()

    def squares(self, squares: np.ndarray) -> np.ndarray:
        """(n, E) fp32 of locked squares (n, S, S, 3) uint8."""
        numbers = np.arange(len(squares))
        encoder = self._encoder(FeatureRows(numbers, self.pictures.of_squares(squares)), self._text_rows([]))
        return encoder.embed_photographs(numbers).cpu().numpy()

    def square(self, picture: Picture) -> np.ndarray:
        """(S, S, 3) uint8: a picture as the model reads it. Raises ValueError: it cannot be read."""
        return picture_square(picture, self.pretrained.preprocessing.max_side, self.model.image_size)

    def matches(self, squares: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """(n,) fp32: the logit of a match over that of a mismatch of each square (n, S, S, 3) uint8 with each text."""
        scores = [np.zeros(0, np.float32)]
        for start in range(0, len(texts), self.batch_size):
            part = slice(start, start + self.batch_size)
            numbers = np.arange(len(texts[part]))
            encoder = self._encoder(FeatureRows(numbers, self.pictures.of_squares(squares[part])), self._text_rows(texts[part]))
            scores.append(encoder.score(numbers, numbers))
        return np.concatenate(scores)

    def _text_rows(self, texts: Sequence[str]) -> TextRows:
        return text_rows(texts, self._tokenizer, self.vocabulary, self.pretrained.preprocessing.max_tokens)

    def _encoder(self, features: FeatureRows, texts: TextRows) -> PooledEncoder:
        return PooledEncoder(self.model, features, texts, empty_text=self._empty_text, precision=self._precision)

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "bf16")


def model_fingerprint(pretrained: Pretrained) -> str:
    """SHA-256 of all that decides an embedding: weights, settings (but how attention is computed), words, preprocessing."""
    model, tokenizer = pretrained.model, pretrained.tokenizer
    settings = {
        "model": {key: value for key, value in dataclasses.asdict(model.settings).items() if key not in HOW},
        "kaleido": dataclasses.asdict(model.kaleido),
        "image_size": model.image_size, "preprocessing": dataclasses.asdict(pretrained.preprocessing),
        "words": tokenizer.vocabulary().fingerprint if tokenizer else "",
    }
    return hashlib.sha256((weights_fingerprint(model) + json.dumps(settings, sort_keys=True)).encode()).hexdigest()


def batched(count: int, size: int) -> Iterator[slice]:
    """Parts of `count`, at most `size` each."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _no_photographs(width: int) -> FeatureRows:
    return FeatureRows(np.zeros(0, np.int64), torch.empty(0, 0, width))


def _require_whole(pretrained: Pretrained) -> None:
    model = pretrained.model
    if model.contrast is None:
        raise ValueError("this model was trained without contrast (model.itc_dim=0), so its photographs and texts cannot be "
                         "compared; train one with model.itc_dim=128 train.task_weights.itc=2")
    if pretrained.tokenizer is None:
        raise OptionError("this model has no vocabulary, so texts cannot be searched; import it again (`kaleido-fast "
                          "import-tf`) with ", Option("vocab"))
    if not model.patch_encoder.makes_features:
        raise OptionError("this model has no patch encoder, so photographs cannot be searched; import it again "
                          "(`kaleido-fast import-tf`) with ", Option("resnet50"))
