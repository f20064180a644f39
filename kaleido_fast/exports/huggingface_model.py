"""What transformers' Auto classes load from an exported folder; one_file.py puts it behind the sources that it needs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_outputs import ModelOutput
from transformers.utils import cached_file

from kaleido_fast.data.catalogue.picture import Picture, picture_square
from kaleido_fast.exports.towers import KaleidoTowers

PATCH_ENCODER: Any = None  # its class, which the last line of an exported file names


class KaleidoConfig(PretrainedConfig):
    """Sizes of the towers, and what the patch encoder is built with."""

    model_type = "kaleido_fast"

    def __init__(self, sizes: dict[str, Any] | None = None, patch_encoder: dict[str, Any] | None = None, **others: Any) -> None:
        self.sizes, self.patch_encoder = sizes or {}, patch_encoder or {}
        super().__init__(**others)


@dataclass
class KaleidoOutput(ModelOutput):
    """What is there depends on what was given."""

    image_embeds: Tensor | None = None  # (B, E) of length 1
    text_embeds: Tensor | None = None  # (B, E) of length 1
    logits_per_image: Tensor | None = None  # (images, texts) cosines / temperature
    pooler_output: Tensor | None = None  # (B, H) of the pairs, where there are as many texts as photographs
    itm_logits: Tensor | None = None  # (B, 2) of the pairs: mismatch, match


class KaleidoModel(PreTrainedModel):
    """Embeddings of photographs and texts, and the match of pairs."""

    config_class = KaleidoConfig
    base_model_prefix = "kaleido"
    main_input_name = "input_ids"

    def __init__(self, config: KaleidoConfig) -> None:
        super().__init__(config)
        self.towers = KaleidoTowers(config.sizes, PATCH_ENCODER(**config.patch_encoder))
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        """Weights come from the folder alone."""

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 locked squares -> (B, E) of length 1."""
        return self.towers.photographs(pixel_values)

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, E) of length 1."""
        return self.towers.texts(input_ids, torch.ones_like(input_ids) if attention_mask is None else attention_mask)

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, pixel_values: Tensor | None = None,
        **_: Any,
    ) -> KaleidoOutput:
        """Whatever can be computed of a text, a photograph or both."""
        out = KaleidoOutput()
        if pixel_values is not None:
            out.image_embeds = photographs = self.get_image_features(pixel_values)
        if input_ids is not None:
            out.text_embeds = texts = self.get_text_features(input_ids, attention_mask)
        if input_ids is not None and pixel_values is not None:
            out.logits_per_image = photographs @ texts.T * self.towers.contrast.log_scale.clamp(0, 4.60517).exp()
            if len(input_ids) == len(pixel_values):
                mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
                out.pooler_output, out.itm_logits = self.towers.pairs(input_ids, mask, pixel_values)
        return out


class KaleidoProcessor:
    """Texts to ids, pictures to locked squares, as the photographs of the training were made."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_tokens: int, max_side: int, image_size: int) -> None:
        self.tokenizer, self.max_tokens, self.max_side, self.image_size = tokenizer, max_tokens, max_side, image_size

    @classmethod
    def from_pretrained(cls, folder: str | Path, **_: Any) -> "KaleidoProcessor":
        """Of an exported folder."""
        files = (cached_file(folder, name) for name in ("preprocessing.json", "config.json"))  # raises where one is missing
        values, config = (json.loads(Path(str(file)).read_text(encoding="utf-8")) for file in files)
        return cls(PreTrainedTokenizerFast.from_pretrained(folder), values["max_tokens"], values["max_side"],
                   config["sizes"]["image_size"])

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoProcessor") -> None:
        """Nothing: the folder's config.json names the class."""

    def __call__(
        self, text: str | Sequence[str] | None = None, images: Picture | Sequence[Picture] | None = None,
        return_tensors: str = "pt", **_: Any,
    ) -> BatchFeature:
        """input_ids, attention_mask (n, T) and pixel_values (m, S, S, 3) uint8, of what is given.

        Args:
            images: paths, PIL images, or upright uint8 arrays (H, W, 3); one or a list.
        Raises:
            ValueError: a picture that cannot be read.
        """
        values: dict[str, Any] = {}
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            encoded = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens)
            values |= {key: encoded[key] for key in ("input_ids", "attention_mask")}
        if images is not None:
            pictures = [images] if isinstance(images, Picture) else list(images)
            values["pixel_values"] = np.stack([picture_square(one, self.max_side, self.image_size) for one in pictures])
        return BatchFeature(values, tensor_type=return_tensors)
