"""The Python API: a trained model by pictures and texts as users have them; `from kaleido_fast import KaleidoBert`.

It stands above all floors but the command line, beside it: the model itself (model/) imports with torch alone and cannot
know of JPEG files and vocabularies, so this class joins model, preprocessing (data/) and the scores of evaluation
(tasks/encoding.py). The package's front door imports it when it is first asked for. DALI is not needed:
data/catalogue/picture.py makes the same squares as DALI on a CPU, bit for bit, so that a catalogue's photograph gives
evaluation's numbers (pooled outputs within 1e-4; what DALI makes on a GPU differs by 1 of 255 here and there).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args, overload

import torch
from torch import Tensor

from kaleido_fast.batched_model import BatchedModel, EncodedImages, Errors
from kaleido_fast.data.catalogue.picture import Picture
from kaleido_fast.finetune.captioning.text import as_text
from kaleido_fast.loading import device_named, load_model
from kaleido_fast.model.captioning.captions import CaptionWords, write_captions
from kaleido_fast.model.captioning.settings import CaptionSettings
from kaleido_fast.options import typed_path
from kaleido_fast.tasks.encoding import PooledEncoder
from kaleido_fast.tasks.picture_features import listed_pictures

RankedBy = Literal["itm", "itc", "both"]


class Classified(NamedTuple):
    """What a classifier says of n inputs."""

    labels: list[str]  # n most probable classes
    probabilities: Tensor  # (n, C) fp32
    names: tuple[str, ...]  # of the C classes


class Captions(NamedTuple):
    """What `errors="skip"` gives: captions of the pictures that could be read, and what became of the others."""

    captions: list[str]
    kept: list[int]  # which picture each caption is of, from 0
    skipped: dict[int, str]  # by number the other pictures, and why


class KaleidoBert(BatchedModel):
    """A trained Kaleido-BERT: match scores, embeddings and pooled outputs, in batches, without gradients; results on the CPU.

    A picture is a path, a PIL image, or an upright uint8 array (H, W, 3) or (H, W); it is made upright, locked onto the
    product and resized as the photographs of the training were. A text is cut to the model's `max_tokens`. One picture
    or text stands for a list of one.

    What can be compared: `encode_image` with `encode_text`, by a product of rows, where the model was trained with contrast.
    Pooled outputs are what a classifier learns from; of a picture and a text they have no common scale.
    """

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
        place = device_named(device)
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

    @torch.no_grad()
    def classify(
        self, images: Picture | Sequence[Picture] | None = None, texts: str | Sequence[str] | None = None
    ) -> Classified:
        """The classes of products, by a model that `kaleido-fast finetune` made with task=category or subcategory.

        Args:
            images, texts: one of the two, or both: then the first text is the first picture's, and so on.
        Raises:
            ValueError: a model without a classifier; neither is given; not as many texts as pictures; a picture that cannot be
                read.
        """
        classifier, finetuned, width = self.model.classifier, self.model.finetuned, self.model.settings.hidden
        if classifier is None or finetuned is None:
            raise ValueError("classify: this model has no classifier; make one with `kaleido-fast finetune CONFIG "
                             "task=category init.weights=MODEL`")
        if images is None and texts is None:
            raise ValueError("classify: neither images nor texts are given; give one or both")
        if texts is None:
            assert images is not None
            pooled = self._images(
                listed_pictures(images), lambda encoder, numbers: encoder.pooled(numbers, None), width).outputs
        elif images is None:
            pooled = self._words(self._texts(texts), lambda encoder, numbers: encoder.pooled(None, numbers), width)
        else:
            pooled = self._pairs(listed_pictures(images), self._texts(texts))
        logits = classifier(pooled.to(classifier.weight)).float().cpu()
        return Classified([finetuned.labels[number] for number in logits.argmax(-1).tolist()], logits.softmax(-1),
                          finetuned.labels)

    @overload
    def caption(self, images: Picture | Sequence[Picture], *, errors: Literal["raise"] = "raise") -> list[str]: ...

    @overload
    def caption(self, images: Picture | Sequence[Picture], *, errors: Literal["skip"]) -> Captions: ...

    @torch.no_grad()
    def caption(self, images: Picture | Sequence[Picture], *, errors: Errors = "raise") -> list[str] | Captions:
        """Captions of pictures, by a model that `kaleido-fast finetune` made with task=captioning (SPEC 11); decoded in fp32 as
        its `caption` settings say.

        Args:
            errors: "raise", or "skip" to leave out pictures that cannot be read, which gives Captions.
        Raises:
            ValueError: a model that writes no captions; a picture that cannot be read, unless they are skipped.
        """
        kept = {} if self.model.finetuned is None else self.model.finetuned.settings
        if "caption" not in kept or self.tokenizer is None:
            raise ValueError("caption: this model writes no captions; make one that does with `kaleido-fast finetune CONFIG "
                             "task=captioning init.weights=MODEL`")
        settings, words = CaptionSettings(**kept["caption"]), CaptionWords(**kept["words"])
        written = Captions([], [], {})
        device = next(self.model.parameters()).device
        for numbers, features, unreadable in self._features(listed_pictures(images), errors):
            written.skipped.update(unreadable)
            written.kept.extend(numbers.tolist())
            ids = write_captions(self.model, features.of(numbers)[0].to(device), words, settings) if len(numbers) else []
            written.captions.extend(as_text(caption, self.tokenizer.words) for caption in ids)
        return written.captions if errors == "raise" else written
