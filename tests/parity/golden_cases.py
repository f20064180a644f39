"""What the authors' golden files ask of an implementation, and how near its answers must come.

An implementation answers by the files' own array names (tests/golden/README.md) in the padded layout (B, 119, ...), with
anything at positions that hold no token; `check` compares only what is real: text within its length, masked slots of weight
1. Differences are measured against the largest magnitude of the expected array. The key biases' gradient is rounding alone
and is compared absolutely.
"""

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np

from tests.places import GOLDEN

TEXT, PATCHES = 64, 55
ACTIVATION, GRADIENT, EXACT = 1e-5, 1e-4, 1e-12  # fp32 activations and losses; fp32 gradients and weights; float64
KEY_BIAS, KEY_BIAS_EXACT, KEY_BIAS_STATE = 1e-6, 1e-15, 1e-8  # absolute: gradients in fp32, in float64; Adam's state
# Of the optimizer test: total updates, base rate (warm-up: a tenth), and the update at which states are stored.
TOTAL_STEPS, BASE_RATE, LAST_STEP = 20, 1e-3, 4

Arrays = Mapping[str, np.ndarray]


class Wanted(NamedTuple):
    """An expected array, already cut to what is real."""

    array: np.ndarray
    relative: float = 0.0  # to its largest magnitude
    absolute: float = 0.0


class Implementation(Protocol):
    """A model with the case's weights that answers what a golden file asks."""

    def forward(self, case: "Case") -> Arrays:
        """intermediates/…, logits/…, losses/… of the training pass."""

    def gradients(self, case: "Case") -> Arrays:
        """gradients/<variable> of the total loss, and global_norm."""

    def train(self, case: "Case", steps: int) -> Arrays:
        """steps/t/{lr,global_norm,losses_before/…} and steps/t/weights/… of updates t = 1..steps on the case's batch;
        of the last also adam_m, adam_v and global_step."""

    def predict(self, case: "Case") -> Arrays:
        """predict/{itm,pooled_output,sequence_output}: nothing is blanked."""


@functools.cache
def read(name: str) -> dict[str, np.ndarray]:
    """All arrays of a golden file."""
    with np.load(GOLDEN / f"kaleido_bert_{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def group(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """The arrays under `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Case:
    """One golden batch in one precision, both starting from the same weights."""

    name: Literal["small", "small_b1"]
    precision: Literal["fp32", "float64"]

    @functools.cached_property
    def inputs(self) -> dict[str, np.ndarray]:
        return group(read(self.name), "inputs/")

    @functools.cached_property
    def weights(self) -> dict[str, np.ndarray]:
        return group(read("small"), "weights/")

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32 if self.precision == "fp32" else np.float64)

    @property
    def real(self) -> np.ndarray:
        """(B, 119) bool: positions that hold a token or a patch."""
        mask = self.inputs["input_mask"].astype(bool)
        return np.concatenate([mask, np.ones((len(mask), PATCHES), bool)], axis=1)

    @property
    def expected(self) -> dict[str, np.ndarray]:
        """Everything stored of this case, by name."""
        if self.precision == "fp32":
            return read(self.name)
        exact, other = read("small_f64"), "b1/"
        return {name: value for name, value in exact.items() if not name.startswith(other)} if self.name == "small" \
            else group(exact, other)

    def wanted(self, *prefixes: str) -> dict[str, Wanted]:
        """Expected arrays whose name begins with one of `prefixes`, with their bounds."""
        return {name: self._bounded(name, value) for name, value in self.expected.items() if name.startswith(prefixes)}

    def real_part(self, name: str, value: np.ndarray) -> np.ndarray:
        """What of an array is compared."""
        if name.endswith("logits/mlm"):
            return value[self.inputs["masked_lm_weights"].ravel() == 1]
        if name.endswith("embeddings/text"):
            return value[self.real[:, :TEXT]]
        if value.ndim == 3 and value.shape[1] == TEXT + PATCHES and not name.endswith("attention_mask"):
            return value[self.real]
        return value

    def _bounded(self, name: str, value: np.ndarray) -> Wanted:
        exact = self.precision == "float64"
        if name.endswith("self/key/bias") and "weights" not in name:
            return Wanted(value, absolute=KEY_BIAS_STATE if "adam_" in name else KEY_BIAS_EXACT if exact else KEY_BIAS)
        loose = name.startswith("gradients/") or "weights/" in name or "adam_" in name
        bound = EXACT if exact else GRADIENT if loose else ACTIVATION
        return Wanted(self.real_part(name, value), relative=bound)


CASES = tuple(Case(name, precision) for precision in ("fp32", "float64") for name in ("small", "small_b1"))


def check_forward(implementation: Implementation, case: Case, absent: Collection[str] = ()) -> None:
    """Every intermediate, logit and loss; `absent` are arrays that the implementation has no counterpart of."""
    wanted = case.wanted("intermediates/", "logits/", "losses/")
    check(implementation.forward(case), {name: want for name, want in wanted.items() if name not in absent}, case)


def check_gradients(implementation: Implementation, case: Case) -> None:
    check(implementation.gradients(case), case.wanted("gradients/", "global_norm"), case)


def check_steps(implementation: Implementation, case: Case) -> None:
    """Rates, norms, losses and weights of four updates, and Adam's state after them; step 1 leaves the weights alone."""
    found = implementation.train(case, LAST_STEP)
    wanted = case.wanted("steps/")
    for name in ("beta1_power", "beta2_power"):
        del wanted[f"steps/{LAST_STEP}/{name}"]
    check(found, wanted, case)
    for name, value in case.weights.items():
        assert np.array_equal(found[f"steps/1/weights/{name}"], value), f"{name} moved at a rate of 0"


def check_predict(implementation: Implementation, case: Case) -> None:
    check(implementation.predict(case), case.wanted("predict/"), case)


def check(found: Arrays, wanted: Mapping[str, Wanted], case: Case | None = None) -> None:
    """Hold answers against what is wanted; one AssertionError names every array that is missing or too far off."""
    assert wanted, "nothing to compare with"
    problems = [problem for name, want in wanted.items() if (problem := _problem(found, name, want, case))]
    assert not problems, f"{len(problems)} of {len(wanted)} arrays differ: {'; '.join(problems)}"


def _problem(found: Arrays, name: str, want: Wanted, case: Case | None) -> str:
    if name not in found:
        return f"{name} is missing"
    value = np.asarray(found[name])
    value = value if case is None else case.real_part(name, value)
    if value.shape != want.array.shape:
        return f"{name} is {value.shape}, must be {want.array.shape}"
    if not value.size:
        return ""
    difference = float(np.abs(value.astype(np.float64) - want.array.astype(np.float64)).max())
    scale = float(np.abs(want.array).max())
    if difference <= want.absolute + want.relative * scale:  # a NaN is not
        return ""
    return f"{name} by {difference:.2g} at a scale of {scale:.2g}"
