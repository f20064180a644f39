"""A trained model as its users take it: one folder with weights, settings, vocabulary and preprocessing.

    model.safetensors, model.json    as a checkpoint's weights/ holds them
    vocab.txt                        of the shards it was trained on
    preprocessing.json               what photographs and texts go through
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kaleido_fast.data.preprocessing import PREPROCESSING, Preprocessing
from kaleido_fast.data.shards.manifest import VOCABULARY
from kaleido_fast.data.shards.tokenizer import Tokenizer
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.settings import UNKNOWN
from kaleido_fast.model.weights import OTHER_WEIGHTS, load_weights
from kaleido_fast.options import Option


class Pretrained(NamedTuple):
    """A trained model and what its inputs go through."""

    model: KaleidoBertModel  # in evaluation mode, on the CPU
    tokenizer: Tokenizer | None  # None where an imported model came without its vocabulary
    preprocessing: Preprocessing


def is_exported(folder: Path) -> bool:
    """Whether `folder` holds a model as `load_exported` reads it."""
    return (folder / PREPROCESSING).is_file()


def load_exported(folder: Path, attention: str = "") -> Pretrained:
    """The model in a folder that `kaleido-fast export` or `import-tf` wrote.

    Args:
        attention: another implementation than the one trained with.
    Raises:
        ValueError: a part of it is missing, damaged or of another model.
    """
    return load_pretrained(folder, folder / VOCABULARY, Preprocessing.read(folder), attention)


def load_pretrained(
    weights: Path, vocabulary: Path, preprocessing: Preprocessing, attention: str = "",
    instead: Sequence[str | Option] = OTHER_WEIGHTS,
) -> Pretrained:
    """The model whose weights lie in the folder `weights`, with the vocabulary in the file `vocabulary`.

    Args:
        attention, instead: as `load_weights` takes them.
    Raises:
        ValueError: either is missing or damaged, or the weights were trained with another vocabulary.
    """
    model = load_weights(weights, attention, instead)
    if model.vocabulary.fingerprint == UNKNOWN and not vocabulary.exists():
        return Pretrained(model, None, preprocessing)
    tokenizer = Tokenizer.from_vocab(vocabulary)
    if tokenizer.vocabulary().fingerprint != model.vocabulary.fingerprint:
        raise ValueError(f"{vocabulary}: not the vocabulary that {weights} was trained with; give the vocab.txt of the run's "
                         "shards")
    return Pretrained(model, tokenizer, preprocessing)
