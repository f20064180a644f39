"""Settings of the evaluation (SPEC 9)."""

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from kaleido_fast.kernels.plan_rules import GROUP
from kaleido_fast.model.captioning.settings import CaptionSettings
from kaleido_fast.settings import AtLeast, Between, MultipleOf, Unit
from kaleido_fast.training.settings import RunConfig


@dataclass(frozen=True, slots=True)
class EvalSettings:
    """What is measured after pre-training, and on how much of the split."""

    split: Annotated[Literal["test", "validation", "train"], "split that is measured"] = "test"
    queries: Annotated[int, AtLeast(1), "retrieval queries a draw; 1,000 to report"] = 300
    matching_queries: Annotated[int, AtLeast(0), Unit("queries"), "how many of `eval.queries` a model with contrast "
                                "ranks by matching too, which takes a forward a pair; 0: all"] = 0
    draws: Annotated[int, AtLeast(1), "draws of queries and candidates; 5 to report"] = 1
    seed: Annotated[int, Between(0, 2**63 - 1), "seed of queries, candidates, photographs and the probe's "
                    "products"] = 0
    batch_pairs: Annotated[int, AtLeast(1), Unit("pairs"), "image-text pairs scored at once; on a CPU 256 are a fifth "
                           "slower"] = 128
    batch_photographs: Annotated[int, Between(GROUP, 2**20), MultipleOf(GROUP), Unit("photographs"),
                                 "photographs decoded and encoded at once"] = 64
    precision: Annotated[Literal["fp32", "bf16"], "type of the numbers in the model's matrix products; SPEC's figures "
                         "are fp32"] = "fp32"
    slices: Annotated[tuple[str, ...], "what retrieval is sliced by, shown in the report: category, subcategory, and fields "
                      "of the shards' texts"] = ()
    full_set: Annotated[bool, "retrieval among all products of the split is measured too; of a model without contrast by a "
                        "pass of the encoder for each pair of products; the time is said first"] = False
    full_set_queries: Annotated[int, AtLeast(0), Unit("products"), "queries of eval.full_set, drawn; 0: all products"] = 0
    rerank: Annotated[int, AtLeast(0), Unit("candidates"), "first candidates by cosine that eval.full_set ranks again by "
                      "matching and cosine; 0: none"] = 128
    examples: Annotated[int, AtLeast(0), "retrieval queries a direction that the report shows"] = 6
    kaleido_samples: Annotated[int, AtLeast(0), Unit("samples"), "samples that the kaleido tasks' accuracies are "
                               "measured on; 0: the whole split"] = 1024
    probe_train: Annotated[int, AtLeast(0), Unit("products"), "train products that the linear probe learns from; 0: all"] = 4000
    probe_test: Annotated[int, AtLeast(0), Unit("products"), "products that the probe is measured and, of the validation "
                          "split, tuned on; 0: all"] = 2000
    probe_strengths: Annotated[tuple[float, ...], Between(0, 10**9), "L2 strengths of the probe that are tried on the "
                               "validation split"] = (1e-1, 1e-2, 1e-3, 1e-4)
    probe_iterations: Annotated[int, AtLeast(1), "L-BFGS iterations a strength"] = 100

    def check(self) -> None:
        """Refuse a probe without a strength (ValueError)."""
        if not self.probe_strengths:
            raise ValueError("eval.probe_strengths=[] must be one or more numbers of at least 0")


class EvalConfig(RunConfig, Protocol):
    """The sections that an evaluation reads."""

    @property
    def eval(self) -> EvalSettings: ...

    @property
    def caption(self) -> CaptionSettings: ...
