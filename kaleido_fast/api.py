"""The Python API: a trained model by pictures and texts as users have them; `from kaleido_fast import KaleidoBert`.

It stands above all floors but the command line, beside it: the model itself (model/) imports with torch alone and cannot
know of JPEG files and vocabularies, so this class joins model, preprocessing (data/) and the scores of evaluation
(tasks/encoding.py). The package's front door imports it when it is first asked for. DALI is not needed:
data/catalogue/picture.py makes the same squares as DALI on a CPU, bit for bit, so that a catalogue's photograph gives
evaluation's numbers (pooled outputs within 1e-4; what DALI makes on a GPU differs by 1 of 255 here and there).
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args, overload

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.config import load_run_config
from kaleido_fast.data.catalogue.picture import Picture
from kaleido_fast.data.preprocessing import PREPROCESSING
from kaleido_fast.devices import exact_device
from kaleido_fast.model.attention.packed import AUTO
from kaleido_fast.model.contrast import ContrastHeads
from kaleido_fast.model.pretrained import Pretrained, is_exported, load_exported
from kaleido_fast.options import Option, OptionError, typed_path
from kaleido_fast.tasks.encoding import FeatureRows, PooledEncoder
from kaleido_fast.tasks.picture_features import PictureFeatures, listed_pictures
from kaleido_fast.tasks.text_rows import TextRows, text_rows
from kaleido_fast.training.export import load_run
from kaleido_fast.training.run.folder import RunFolder

RankedBy = Literal["itm", "itc", "both"]
Errors = Literal["raise", "skip"]
_Output = Callable[[PooledEncoder, np.ndarray], Tensor]  # rows of the pictures or texts of these numbers


class EncodedImages(NamedTuple):
    """What `errors="skip"` gives: the pictures that could be read, and what became of the others."""

    outputs: Tensor  # (m, E) or (m, H) fp32, a row for each picture that could be read, in their order
    kept: list[int]  # m numbers, which picture each row is of, from 0
    skipped: dict[int, str]  # by number the other pictures, and why


class KaleidoBert:
    """A trained Kaleido-BERT: match scores, embeddings and pooled outputs, in batches, without gradients; results on the CPU.

    A picture is a path, a PIL image, or an upright uint8 array (H, W, 3) or (H, W); it is made upright, locked onto the
    product and resized as the photographs of the training were. A text is cut to the model's `max_tokens`. One picture
    or text stands for a list of one.

    What can be compared: `encode_image` with `encode_text`, by a product of rows, where the model was trained with contrast.
    Pooled outputs are what a classifier learns from; of a picture and a text they have no common scale.
    """

    def __init__(
        self, pretrained: Pretrained, device: torch.device, precision: str, batch_size: int, kept_features_mib: float = 256
    ) -> None:
        pretrained.model.attend_by(AUTO, device, precision)
        self.model = pretrained.model.to(device)  # the torch module
        self.tokenizer, self.preprocessing = pretrained.tokenizer, pretrained.preprocessing
        self.picture_features = PictureFeatures(self.model, self.preprocessing.max_side, kept_features_mib)
        self._precision, self._batch_size = precision, batch_size
        self._vocabulary = self.tokenizer.vocabulary() if self.tokenizer else None

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, step: int | None = None, shards: str | Path | None = None, device: str = "cpu",
        precision: str = "fp32", batch_size: int = 64, kept_features_mib: float = 256,
    ) -> "KaleidoBert":
        """Load a folder that `kaleido-fast export` or `import-tf` wrote, or a run's.

        An imported model may have no vocabulary or no patch encoder: `model` then takes token ids and features, and what
        needs texts or pictures says what is missing.

        Args:
            step: of a run's checkpoint; the newest by default.
            shards: of a run, which needs their vocabulary: the folder where they lie now; where they were by default.
            precision: "fp32", or "bf16" for bf16 matrix products.
            batch_size: pictures, texts or pairs at once.
            kept_features_mib: memory for the features of pictures that were seen last, which are not decoded and encoded
                again; 0 keeps none.
        Raises:
            ValueError: neither of the two; a part is missing, damaged or of another model; a run's shards are gone; an unknown
                precision or device.
        """
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision={precision}: unknown; use fp32 or bf16")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        if not kept_features_mib >= 0:
            raise ValueError(f"kept_features_mib={kept_features_mib} must be at least 0")
        place = _device(device)
        return cls(load_model(typed_path(folder), step, shards), place, precision, batch_size, kept_features_mib)

    @property
    def temperature(self) -> float:
        """What contrast divides similarities by.

        Raises:
            ValueError: the model was not trained with contrast.
        """
        return 1 / self._contrast("temperature").scale().item()

    @torch.no_grad()
    def score(
        self, images: Picture | Sequence[Picture], texts: str | Sequence[str], *, all_pairs: bool = False, by: RankedBy = "itm",
    ) -> Tensor:
        """How well pictures and texts match; higher is better.

        Args:
            all_pairs: every picture with every text, instead of the first with the first and so on.
            by: as evaluation ranks. "itm": the logit of a match over that of a mismatch, whose sigmoid is the probability of a
                match; a pass of the encoder a pair. "itc": the cosine of the embeddings, a pass a picture and a text. "both":
                the logit + cosine / temperature.
        Returns:
            (n,) fp32, one a pair; with `all_pairs` (images, texts).
        Raises:
            ValueError: a picture that cannot be read; without `all_pairs`, not as many texts as pictures; "itc" or "both" of a
                model that was not trained with contrast.
        """
        if by not in get_args(RankedBy):
            raise ValueError(f"score: by={by!r}: unknown; use {', '.join(get_args(RankedBy))}")
        pictures, words = listed_pictures(images), self._texts(texts)
        num_texts = len(words.lengths)
        if not all_pairs and len(pictures) != num_texts:
            raise ValueError(f"score: {len(pictures)} images and {num_texts} texts are not pairs; give as many of each, "
                             "or all_pairs=True for every image with every text")
        if by == "itm":
            return self._logits(pictures, words, all_pairs)
        scale = self._contrast(f"score(by={by!r})").scale().item()
        size = self.model.settings.itc_dim
        photographs = self._images(pictures, PooledEncoder.embed_photographs, size).outputs
        sentences = self._words(words, PooledEncoder.embed_texts, size)
        cosines = photographs @ sentences.T if all_pairs else (photographs * sentences).sum(dim=1)
        return cosines if by == "itc" else self._logits(pictures, words, all_pairs) + scale * cosines

    @overload
    def encode_image(self, images: Picture | Sequence[Picture], *, errors: Literal["raise"] = "raise") -> Tensor: ...

    @overload
    def encode_image(self, images: Picture | Sequence[Picture], *, errors: Literal["skip"]) -> EncodedImages: ...

    @torch.no_grad()
    def encode_image(self, images: Picture | Sequence[Picture], *, errors: Errors = "raise") -> Tensor | EncodedImages:
        """(n, E) fp32 embeddings of pictures alone, of length 1: `encode_image(a) @ encode_text(b).T` are cosines.

        Args:
            errors: "raise", or "skip" to leave out pictures that cannot be read, which gives EncodedImages.
        Raises:
            ValueError: a picture that cannot be read, unless they are skipped; a model that was not trained with contrast.
        """
        self._contrast("encode_image")
        return self._encode(images, errors, PooledEncoder.embed_photographs, self.model.settings.itc_dim)

    @torch.no_grad()
    def encode_text(self, texts: str | Sequence[str]) -> Tensor:
        """(n, E) fp32 embeddings of texts alone, of length 1, to be compared with those of `encode_image`.

        Raises:
            ValueError: a model that was not trained with contrast.
        """
        words = self._texts(texts)
        self._contrast("encode_text")
        return self._words(words, PooledEncoder.embed_texts, self.model.settings.itc_dim)

    @overload
    def pooled_image(self, images: Picture | Sequence[Picture], *, errors: Literal["raise"] = "raise") -> Tensor: ...

    @overload
    def pooled_image(self, images: Picture | Sequence[Picture], *, errors: Literal["skip"]) -> EncodedImages: ...

    @torch.no_grad()
    def pooled_image(self, images: Picture | Sequence[Picture], *, errors: Errors = "raise") -> Tensor | EncodedImages:
        """(n, H) fp32 pooled outputs of pictures alone (with the text [CLS] [SEP]), for a classifier to learn from; their
        products with `pooled_text` mean nothing.

        Args:
            errors: as `encode_image` takes it.
        Raises:
            ValueError: a picture that cannot be read, unless they are skipped.
        """
        return self._encode(images, errors, lambda encoder, numbers: encoder.pooled(numbers, None), self.model.settings.hidden)

    @torch.no_grad()
    def pooled_text(self, texts: str | Sequence[str]) -> Tensor:
        """(n, H) fp32 pooled outputs of texts alone (no patches); see `pooled_image`."""
        words = self._texts(texts)
        return self._words(words, lambda encoder, numbers: encoder.pooled(None, numbers), self.model.settings.hidden)

    def _encode(
        self, images: Picture | Sequence[Picture], errors: Errors, output: _Output, width: int
    ) -> Tensor | EncodedImages:
        if errors not in get_args(Errors):
            raise ValueError(f"errors={errors!r}: unknown; use {' or '.join(get_args(Errors))}")
        encoded = self._images(listed_pictures(images), output, width, errors)
        return encoded.outputs if errors == "raise" else encoded

    def _images(self, pictures: list[Picture], output: _Output, width: int, errors: Errors = "raise") -> EncodedImages:
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

    def _words(self, words: TextRows, output: _Output, width: int) -> Tensor:
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


def load_model(folder: Path, step: int | None = None, shards: str | Path | None = None) -> Pretrained:
    """Of an exported folder, or of a run's; arguments and errors as `KaleidoBert.from_pretrained` has them."""
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
