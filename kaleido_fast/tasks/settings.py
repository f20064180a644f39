"""Settings of the evaluation (SPEC 9)."""

from dataclasses import dataclass
from typing import Literal, Protocol

from kaleido_fast.kernels.plan_rules import GROUP
from kaleido_fast.training.settings import RunConfig


@dataclass(frozen=True, slots=True)
class EvalSettings:
    """What is measured after pre-training, and on how much of the split."""

    split: Literal["test", "validation", "train"] = "test"
    queries: int = 300  # retrieval queries a draw; demo 100, to report 1,000
    draws: int = 1  # to report 5
    seed: int = 0  # of queries, candidates, photographs and the probe's products
    batch_pairs: int = 128  # image-text pairs scored at once; on a CPU 256 are a fifth slower
    batch_photographs: int = 64  # photographs decoded and encoded at once; a multiple of 16
    precision: Literal["fp32", "bf16"] = "fp32"  # of the model's matrix products; SPEC's figures are fp32
    examples: int = 6  # retrieval queries a direction kept for the report
    kaleido_samples: int = 1024  # samples for the kaleido tasks' accuracies; 0: the whole split
    probe_train: int = 4000  # train products the linear probe learns from; 0: all
    probe_test: int = 2000  # products it is measured and, of the validation split, tuned on; 0: all
    probe_strengths: tuple[float, ...] = (
        1e-1,
        1e-2,
        1e-3,
        1e-4,
    )  # L2 strengths tried on the validation split
    probe_iterations: int = 100  # L-BFGS iterations a strength


class EvalConfig(RunConfig, Protocol):
    """The sections that an evaluation reads."""

    @property
    def eval(self) -> EvalSettings: ...


def check_eval_settings(settings: EvalSettings) -> None:
    """Refuse values that cannot be used.

    Raises:
        ValueError: names the key, what was found and what is allowed.
    """
    if settings.batch_photographs < GROUP or settings.batch_photographs % GROUP:
        raise ValueError(
            f"eval.batch_photographs={settings.batch_photographs} must be a positive multiple of {GROUP}"
        )
    for key in ("queries", "draws", "batch_pairs", "probe_iterations"):
        if getattr(settings, key) < 1:
            raise ValueError(f"eval.{key}={getattr(settings, key)} must be at least 1")
    for key in ("seed", "examples", "kaleido_samples", "probe_train", "probe_test"):
        if getattr(settings, key) < 0:
            raise ValueError(f"eval.{key}={getattr(settings, key)} must not be negative")
    strengths = settings.probe_strengths
    if not strengths or min(strengths) < 0:
        raise ValueError(f"eval.probe_strengths={list(strengths)} must be one or more numbers of at least 0")
