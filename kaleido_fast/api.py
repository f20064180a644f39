"""The Python API: a trained model by pictures and texts as users have them; `from kaleido_fast import KaleidoBert`.

It stands above all floors but the command line, beside it: the model itself (model/) imports with torch alone and cannot
know of JPEG files and vocabularies, so this class joins model, preprocessing (data/) and the scores of evaluation
(tasks/encoding.py). The package's front door imports it when it is first asked for. DALI is not needed:
data/catalogue/picture.py makes the same squares as DALI on a CPU, bit for bit, so that a catalogue's photograph gives
evaluation's numbers (pooled outputs within 1e-4; what DALI makes on a GPU differs by 1 of 255 here and there).
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kaleido_fast.config import load_run_config
from kaleido_fast.data.catalogue.picture import Picture, picture_square
from kaleido_fast.data.preprocessing import PREPROCESSING
from kaleido_fast.data.shards.token_rows import token_rows
from kaleido_fast.devices import exact_device
from kaleido_fast.kernels.plan import clean_plan
from kaleido_fast.model.attention import AUTO
from kaleido_fast.model.pretrained import Pretrained, is_exported, load_exported
from kaleido_fast.options import Option, OptionError, typed_path
from kaleido_fast.tasks.encoding import FeatureRows, PooledEncoder
from kaleido_fast.training.export import load_run
from kaleido_fast.training.run.folder import RunFolder


class _TokenRows(NamedTuple):
    tokens: np.ndarray  # (n, T) int32
    lengths: np.ndarray  # (n,) int32


class KaleidoBert:
    """A trained Kaleido-BERT: match scores and pooled outputs, in batches, without gradients; results on the CPU.

    A picture is a path, a PIL image, or an upright uint8 array (H, W, 3) or (H, W); it is made upright, locked onto the
    product and resized as the photographs of the training were. A text is cut to the model's `max_tokens`. One picture
    or text stands for a list of one.
    """

    def __init__(self, pretrained: Pretrained, device: torch.device, precision: str, batch_size: int) -> None:
        pretrained.model.attend_by(AUTO, device, precision)
        self.model = pretrained.model.to(device)  # the torch module
        self.tokenizer, self.preprocessing = pretrained.tokenizer, pretrained.preprocessing
        self._precision, self._batch_size = precision, batch_size
        self._vocabulary = self.tokenizer.vocabulary() if self.tokenizer else None

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, step: int | None = None, shards: str | Path | None = None, device: str = "cpu",
        precision: str = "fp32", batch_size: int = 64,
    ) -> "KaleidoBert":
        """Load a folder that `kaleido-fast export` or `import-tf` wrote, or a run's.

        An imported model may have no vocabulary or no patch encoder: `model` then takes token ids and features, and what
        needs texts or pictures says what is missing.

        Args:
            step: of a run's checkpoint; the newest by default.
            shards: of a run, which needs their vocabulary: the folder where they lie now; where they were by default.
            precision: "fp32", or "bf16" for bf16 matrix products.
            batch_size: pictures, texts or pairs at once.
        Raises:
            ValueError: neither of the two; a part is missing, damaged or of another model; a run's shards are gone; an unknown
                precision or device.
        """
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision={precision}: unknown; use fp32 or bf16")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        place = _device(device)
        return cls(_load(typed_path(folder), step, shards), place, precision, batch_size)

    @torch.no_grad()
    def score(
        self, images: Picture | Sequence[Picture], texts: str | Sequence[str], *, all_pairs: bool = False
    ) -> Tensor:
        """How well pictures and texts match: the logit of a match over that of a mismatch, whose sigmoid is the
        probability of a match; what evaluation ranks by.

        Args:
            all_pairs: every picture with every text, instead of the first with the first and so on.
        Returns:
            (n,) fp32, one a pair; with `all_pairs` (images, texts).
        Raises:
            ValueError: a picture that cannot be read; without `all_pairs`, not as many texts as pictures.
        """
        pictures, words = _pictures(images), self._texts(texts)
        num_texts = len(words.lengths)
        if not all_pairs and len(pictures) != num_texts:
            raise ValueError(f"score: {len(pictures)} images and {num_texts} texts are not pairs; give as many of each, "
                             "or all_pairs=True for every image with every text")
        parts = [torch.zeros(0)]
        for start, features in self._features(pictures):
            numbers = np.arange(start, min(start + self._batch_size, len(pictures)))
            encoder = self._encoder(features, words)
            samples, chosen = (np.repeat(numbers, num_texts), np.tile(np.arange(num_texts), len(numbers))) if all_pairs \
                else (numbers, numbers)
            for part in self._parts(len(samples)):
                parts.append(torch.from_numpy(encoder.score(samples[part], chosen[part])))
        scores = torch.cat(parts)
        return scores.view(len(pictures), num_texts) if all_pairs else scores

    @torch.no_grad()
    def encode_image(self, images: Picture | Sequence[Picture]) -> Tensor:
        """(n, H) fp32 pooled outputs of pictures alone (with the text [CLS] [SEP]).

        Raises:
            ValueError: a picture that cannot be read.
        """
        pictures = _pictures(images)
        parts = [torch.zeros(0, self.model.settings.hidden)]
        for start, features in self._features(pictures):
            numbers = np.arange(start, min(start + self._batch_size, len(pictures)))
            parts.append(self._encoder(features, self._texts([])).pooled(numbers, None).cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def encode_text(self, texts: str | Sequence[str]) -> Tensor:
        """(n, H) fp32 pooled outputs of texts alone (no patches)."""
        words = self._texts(texts)
        none = FeatureRows(np.zeros(0, np.int64), torch.empty(0, 0, self.model.patch_encoder.num_features))
        encoder = self._encoder(none, words)
        numbers = np.arange(len(words.lengths))
        parts = [encoder.pooled(None, numbers[part]).cpu() for part in self._parts(len(numbers))]
        return torch.cat([torch.zeros(0, self.model.settings.hidden), *parts])

    def _encoder(self, features: FeatureRows, texts: _TokenRows) -> PooledEncoder:
        assert self._vocabulary is not None, "_texts has asked for it"
        return PooledEncoder(self.model, features, texts, precision=self._precision,
                             empty_text=(self._vocabulary.cls_id, self._vocabulary.sep_id))

    def _features(self, pictures: list[Picture]) -> Iterator[tuple[int, FeatureRows]]:
        """Batch by batch: the first picture's number, and the clean features of all."""
        if pictures and not self.model.patch_encoder.makes_features:
            raise OptionError("this model has no patch encoder, its features came from the authors' files; import it again "
                              "(`kaleido-fast import-tf`) with ", Option("resnet50"), ", or give features to its `model`")
        device, grids = next(self.model.parameters()).device, self.model.kaleido.grids
        for start in range(0, len(pictures), self._batch_size):
            squares = np.stack([self._square(start + index, picture)
                                for index, picture in enumerate(pictures[start : start + self._batch_size])])
            plan = clean_plan(torch.zeros(len(squares), 1, dtype=torch.int32, device=device), grids)
            features = self.model.features(torch.from_numpy(squares).to(device), plan)
            yield start, FeatureRows(np.arange(start, start + len(squares)), features.float().cpu())

    def _square(self, number: int, picture: Picture) -> np.ndarray:
        try:
            return picture_square(picture, self.preprocessing.max_side, self.model.image_size)
        except ValueError as error:
            raise ValueError(f"image {number}: {error}") from None

    def _texts(self, texts: str | Sequence[str]) -> _TokenRows:
        """Token ids [CLS] words [SEP], then [PAD], cut to T."""
        if self.tokenizer is None or self._vocabulary is None:
            raise OptionError("this model has no vocabulary; import it again (`kaleido-fast import-tf`) with ", Option("vocab"),
                              ", or give token ids to its `model`")
        texts = [texts] if isinstance(texts, str) else _listed(texts, "texts: expected a str or a list of them")
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"text {row}: expected a str, found {type(text).__name__}")
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise ValueError(f"text {row}: holds half of a surrogate pair; decode it with errors='replace'")
        encoded = [self.tokenizer.encode(text) for text in texts]
        num_words = np.array([len(ids) for ids in encoded], np.int64)
        words = np.zeros((len(texts), max(num_words, default=0)), np.int32)
        for row, ids in zip(words, encoded, strict=True):
            row[: len(ids)] = ids
        return _TokenRows(*token_rows(words, num_words, self._vocabulary, self.preprocessing.max_tokens))

    def _parts(self, count: int) -> Iterator[slice]:
        return (slice(start, start + self._batch_size) for start in range(0, count, self._batch_size))


def _pictures(images: Picture | Sequence[Picture]) -> list[Picture]:
    """The pictures as a list; one picture alone, a path or an array (H, W, 3) or (H, W), becomes a list of one."""
    if isinstance(images, str | Path | Image.Image) or (isinstance(images, np.ndarray) and images.ndim < 4):
        return [images]
    return _listed(images, "images: expected a path, a PIL image, a uint8 array or a list of them")


def _listed(values: Iterable[Any], expected: str) -> list[Any]:
    if isinstance(values, bytes) or not isinstance(values, Iterable):
        raise ValueError(f"{expected}, found {type(values).__name__}")
    return list(values)


def _load(folder: Path, step: int | None, shards: str | Path | None) -> Pretrained:
    """Of an exported folder, or of a run's."""
    if is_exported(folder):
        if step is not None:
            raise ValueError(f"{folder}: an exported model has one step alone; give step={step} with a run's folder")
        if shards is not None:
            raise ValueError(f"{folder}: an exported model has its vocabulary; give shards={shards} with a run's folder")
        return load_exported(folder, attention=AUTO)
    if RunFolder(folder).config_file.is_file():
        overrides = [] if shards is None else [f"data.shards={shards}"]
        return load_run(folder, load_run_config(folder, overrides, needs_shards=True).data, step, attention=AUTO)
    what = f"no {PREPROCESSING} and no config.yaml there" if folder.is_dir() else "no such folder"
    raise ValueError(f"{folder}: {what}; give a folder that `kaleido-fast export` wrote, or a run's")


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device={name}: unknown; use cpu, or cuda for a GPU") from None
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and not (device.index or 0) < count:  # cuda alone is one of those that are there
        raise ValueError(f"device={name}: not there, {count} CUDA devices were found; use cpu")
    return exact_device(device)
