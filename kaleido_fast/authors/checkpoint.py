"""Which variables of a TensorFlow checkpoint are Kaleido-BERT's, which the optimizer's, and which neither."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kaleido_fast.authors.tensorflow.checkpoint import DTYPES, TfCheckpoint
from kaleido_fast.authors.weights import SCOPE
from kaleido_fast.options import Option, OptionError

WORDS = "bert/embeddings/word_embeddings"  # that every Kaleido-BERT has
FIRST, SECOND = ("/Adam", "/adam_m"), ("/Adam_1", "/adam_v")  # Adam's two moments, TensorFlow's and the authors' own
COUNTERS = ("global_step", "beta1_power", "beta2_power")
FLOATS = ("float32", "float64", "float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class Contents:
    """A checkpoint's names, sorted by what they are."""

    scope: str  # what the model's names begin with
    weights: dict[str, str]  # the name as `authors_table` has it: the name in the checkpoint
    slots: list[str] = field(default_factory=list)  # Adam's moments
    counters: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # outside of the scope


def sort_names(checkpoint: TfCheckpoint, scope: str | None) -> Contents:
    """Tell weights, optimizer slots and counters by their names.

    Args:
        scope: what the model's names begin with; found where it is None.
    Raises:
        ValueError: no Kaleido-BERT among the variables, or several.
    """
    scope = _scope(checkpoint, scope)
    contents = Contents(scope, {})
    for name in checkpoint:
        if name in COUNTERS:
            contents.counters.append(name)
        elif name.endswith(FIRST + SECOND):
            contents.slots.append(name)
        elif name.startswith(scope):
            contents.weights[SCOPE + name.removeprefix(scope)] = name
        else:
            contents.others.append(name)
    return contents


def read_weights(checkpoint: TfCheckpoint, names: dict[str, str]) -> dict[str, np.ndarray]:
    """The model's variables in fp32.

    Raises:
        ValueError: a checksum differs, or a variable is not of floating point or not finite in fp32.
    """
    weights = {}
    for ours, name in names.items():
        if checkpoint.variables[name].dtype not in FLOATS:
            raise ValueError(f"{checkpoint.prefix}.index: '{name}' is {checkpoint.variables[name].dtype}; weights are "
                             f"one of {', '.join(FLOATS)}")
        with np.errstate(over="ignore"):
            weights[ours] = checkpoint[name].astype(np.float32, copy=False)
        if not np.isfinite(weights[ours]).all():
            raise ValueError(f"{checkpoint.prefix}: '{name}' holds values that are not finite in fp32; the training "
                             "that saved it went wrong, give an earlier checkpoint")
    return weights


def verify(checkpoint: TfCheckpoint, names: Sequence[str]) -> None:
    """Compare the checksums of variables that are not taken (ValueError): a damaged file should be known as one."""
    for name in names:
        variable = checkpoint.variables[name]
        if variable.dtype in DTYPES.values() and not variable.sliced:
            checkpoint[name]


def _scope(checkpoint: TfCheckpoint, scope: str | None) -> str:
    """The given one, or what stands before the word table's name."""
    if scope is None:
        scopes = [name.removesuffix(WORDS) for name in checkpoint if name.endswith(WORDS)]
        if len(scopes) > 1:
            raise OptionError(f"{checkpoint.prefix}.index: {len(scopes)} models: {', '.join(map(repr, scopes))}; give one of "
                              "them as ", Option("scope"))
    else:
        scopes = [scope] if scope + WORDS in checkpoint.variables else []
    if not scopes:
        names = ", ".join(list(checkpoint)[:3]) or "none"
        names += ", …" if len(checkpoint) > 3 else ""
        raise ValueError(f"{checkpoint.prefix}.index: no variable '{'…' if scope is None else scope}{WORDS}' among its "
                         f"{len(checkpoint)} ({names}); expected a Kaleido-BERT")
    return scopes[0]
