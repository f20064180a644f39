"""The authors' TensorFlow checkpoint as a folder that `KaleidoBertModel.from_pretrained` reads (`kaleido-fast import-tf`).

Their features come from their own files, so the model has no patch encoder, unless a ResNet-50's weights are given: then
it reads pictures too, as far as those weights and our patches are what the authors' features were made with.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from kaleido_fast.authors.checkpoint import Contents, read_weights, sort_names, verify
from kaleido_fast.authors.config import settings_of_config, text_length
from kaleido_fast.authors.tensorflow.checkpoint import TfCheckpoint
from kaleido_fast.authors.weights import SCOPE, authors_table, check_variables, from_authors
from kaleido_fast.data.preprocessing import Preprocessing
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.manifest import VOCABULARY
from kaleido_fast.data.shards.tokenizer import Tokenizer
from kaleido_fast.files import read_json, require_free, written_beside
from kaleido_fast.model.check import check_model
from kaleido_fast.model.kaleido_bert import PATCH_ENCODER, KaleidoBertModel
from kaleido_fast.model.patch_encoder_weights import give_weights
from kaleido_fast.model.patch_encoders.resnet50 import Resnet50Encoder
from kaleido_fast.model.pretrained import load_exported
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.model.weights import save_weights
from kaleido_fast.options import Option, OptionError

CONFIG = "config.json"
MAX_SIDE = 1024  # pixels, of `prepare`


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What to import."""

    checkpoint: Path  # the prefix of its files
    out: Path  # must not exist or be empty
    config: Path | None = None  # theirs; config.json beside the checkpoint without it
    vocab: Path | None = None  # vocab.txt of the training
    scope: str | None = None  # what the variables' names begin with; found without it
    resnet50: Path | None = None  # torchvision's weights, to read pictures with
    allow_unexpected: bool = False  # leave variables that are not the model's


class _Settings(NamedTuple):
    model: ModelSettings
    kaleido: KaleidoSettings
    vocabulary: VocabularySettings


@dataclass(frozen=True, slots=True)
class Imported:
    """What was written and what was left."""

    options: ImportOptions
    contents: Contents
    settings: _Settings
    num_numbers: int
    step: int | None  # of the training, where the checkpoint has it

    def describe(self) -> str:
        """One line for what is there, and one for each part that is not."""
        contents, options = self.contents, self.options
        step = f", step {self.step:,}" if self.step is not None else ""
        lines = [f"{options.out}: {len(contents.weights)} variables, {self.num_numbers:,} numbers of "
                 f"{options.checkpoint}{step} ({contents.scope or 'no scope'})"]
        if contents.slots:
            counters = ", ".join(contents.counters) or "no counters"
            lines.append(f"left: {len(contents.slots)} slots of Adam with {counters}; the weights alone are taken")
        if contents.others:
            others = ", ".join(contents.others)
            lines.append(f"left: {len(contents.others)} variables that are not the model's: {others}")
        if options.vocab is None:
            lines.append("no vocabulary: it cannot read texts, only token ids; import again with the vocab.txt of its training")
        if options.resnet50 is None:
            lines.append(f"no patch encoder: it cannot read pictures, only features of width "
                         f"{self.settings.model.patch_features}; import again with ResNet-50's, resnet50-11ad3fa6.pth")
        return "\n".join(lines)


def import_tf(options: ImportOptions) -> Imported:
    """Write the model of a checkpoint as a folder, beside, then renamed.

    Raises:
        ValueError: the checkpoint is damaged, incomplete, of another model or another shape than its config, the
            vocabulary is of another size, or `out` is not empty.
    """
    require_free(options.out)
    checkpoint = TfCheckpoint.open(options.checkpoint)
    config_file = options.config or checkpoint.prefix.with_name(CONFIG)
    contents = sort_names(checkpoint, options.scope)
    settings, max_tokens = _settings(config_file)
    tokenizer = Tokenizer.from_vocab(options.vocab) if options.vocab else None
    if tokenizer is not None:
        settings = _with_vocabulary(settings, tokenizer, options.vocab)
    contents = _match(checkpoint, contents, settings, options)
    verify(checkpoint, [*contents.slots, *contents.counters, *contents.others])
    model = KaleidoBertModel(*settings)
    state = from_authors(read_weights(checkpoint, contents.weights), model)
    num_numbers = sum(math.prod(checkpoint.variables[name].shape) for name in contents.weights.values())
    if options.resnet50:
        settings = _with_resnet50(settings, options.resnet50)
        model = KaleidoBertModel(*settings)
        state |= _encoder_weights(model)
    with written_beside(options.out, "import-tf") as folder:
        save_weights(folder, model, state)
        Preprocessing(max_tokens, MAX_SIDE).write(folder)
        if tokenizer is not None:
            (folder / VOCABULARY).write_text(tokenizer.text(), encoding="utf-8")
        load_exported(folder)  # what cannot be read is not handed on
    step = int(checkpoint["global_step"]) if "global_step" in contents.counters else None
    return Imported(options, contents, settings, num_numbers, step)


def _settings(file: Path) -> tuple[_Settings, int]:
    """The model's settings, checked, and the length of its texts."""
    config = read_json(file, "give the checkpoint's config.json, of the authors' keys, as ", Option("config"))
    try:
        max_tokens = text_length(config)
        settings = _Settings(*settings_of_config(config))
        check_model(settings.model, settings.kaleido, DataSettings(max_tokens=max_tokens))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return settings, max_tokens


def _with_vocabulary(settings: _Settings, tokenizer: Tokenizer, file: Path | None) -> _Settings:
    vocabulary, size = tokenizer.vocabulary(), settings.vocabulary.size
    if vocabulary.size != size:
        raise ValueError(f"{file}: {vocabulary.size:,} words, the checkpoint has {size:,}; give the vocab.txt that it was "
                         "trained with")
    return settings._replace(vocabulary=dataclasses.replace(settings.vocabulary, fingerprint=vocabulary.fingerprint))


def _match(checkpoint: TfCheckpoint, contents: Contents, settings: _Settings, options: ImportOptions) -> Contents:
    """Hold names and shapes against the settings; what the model does not have goes to the others where it may."""
    table, strict = authors_table(*settings), not options.allow_unexpected
    weights = {ours: name for ours, name in contents.weights.items() if strict or ours in table}
    others = contents.others + [name for ours, name in contents.weights.items() if ours not in weights]
    if others and strict:
        raise OptionError(f"{checkpoint.prefix}.index: {len(others)} variables outside of {contents.scope or 'the model'}: "
                          f"{', '.join(others)}; leave them with ", Option("allow_unexpected"))
    try:
        check_variables({ours: checkpoint.variables[name].shape for ours, name in weights.items()}, table)
    except ValueError as error:
        named = str(error).replace(SCOPE, contents.scope)
        raise ValueError(f"{checkpoint.prefix}.index: {named}; is config.json this checkpoint's?") from None
    return dataclasses.replace(contents, weights=weights, others=others)


def _with_resnet50(settings: _Settings, file: Path) -> _Settings:
    """The same model behind a patch encoder."""
    width = settings.model.patch_features
    if width != Resnet50Encoder.num_features:
        raise OptionError(Option("resnet50"), f": the checkpoint's features are {width} numbers wide, ResNet-50's "
                          f"{Resnet50Encoder.num_features}; leave it out")
    model = dataclasses.replace(
        settings.model, features="computed", patch_encoder=Resnet50Encoder.name, patch_encoder_weights=str(file),
        patch_features=0)
    return settings._replace(model=model)


def _encoder_weights(model: KaleidoBertModel) -> dict[str, Tensor]:
    give_weights(model.patch_encoder, model.settings.patch_encoder_weights)
    return {name: value for name, value in model.state_dict().items() if name.startswith(PATCH_ENCODER)}
