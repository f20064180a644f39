"""Settings of pre-training (SPEC 7 'Loss', SPEC 8); the defaults are the paper's figures with AdamW."""

from dataclasses import Field, dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol

from kaleido_fast.data.settings import DataSettings
from kaleido_fast.kernels.philox import EVALUATION_EPOCH
from kaleido_fast.kernels.plan_rules import GROUP
from kaleido_fast.model.settings import InitSettings, KaleidoSettings, ModelSettings, ReferenceSettings
from kaleido_fast.model.task_table import CONTRAST, loss_weight, papers_class_tasks
from kaleido_fast.settings import CAPTIONER, AtLeast, Between, Decides, Free, MayChange, MultipleOf, OnDisk, Unit

MEASURED_STEPS = 20  # steps after which train.minutes becomes a number of steps
LENGTH = ("train.steps", "train.epochs", "train.minutes")  # one of them is given, the others are 0


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Length, batch, optimizer, precision and what is written when."""

    steps: Annotated[int, AtLeast(0), MayChange(), Unit("steps"), "length of the run; one of steps, epochs and minutes is "
                     "given, the others are 0"] = 0
    epochs: Annotated[float, Between(0, EVALUATION_EPOCH - 1), MayChange(), Unit("epochs"),
                      "length of the run in passes over the training split"] = 0.0
    minutes: Annotated[float, Between(0, 10**7), MayChange(), Unit("minutes"),
                       f"length of the run on the clock, which becomes a number of steps after the first {MEASURED_STEPS}; a "
                       "resumed run may have 0 here, with steps or epochs instead, but no other minutes"] = 0.0
    micro_batch: Annotated[int, Between(GROUP, 2**20), MultipleOf(GROUP), MayChange(), Unit("samples"),
                           "samples that a worker holds at once"] = 64
    accumulation: Annotated[int, AtLeast(1), MayChange(), Unit("micro-batches"), "micro-batches of an optimizer step"] = 1
    optimizer: Annotated[Literal["adamw", "authors"], "rule that moves the weights; `authors`: Adam with "
                         "epsilon outside the bias correction"] = "adamw"
    learning_rate: Annotated[float, Between(0, 1), "highest learning rate"] = 2e-5
    schedule: Annotated[Literal["linear", "authors"], "how the learning rate rises and falls; `authors`: their first step "
                        "moves nothing"] = "linear"
    warmup_steps: Annotated[int, AtLeast(0), Unit("steps"), "steps in which the learning rate rises; at most half of the "
                            "run"] = 5000
    weight_decay: Annotated[float, Between(0, 10), "AdamW's weight decay, not on norms, biases and vectors"] = 1e-4
    betas: Annotated[tuple[float, float], Between(0, 0.999999), "Adam's decays of the two moments"] = (0.9, 0.999)
    eps: Annotated[float, Between(0, 1), "Adam's epsilon"] = 1e-8
    clip_norm: Annotated[float, Between(0, 10**9), "largest norm of all gradients together; 0 switches clipping off"] = 1.0
    zero_stage: Annotated[Literal[0, 1, 2, 3], "DeepSpeed's ZeRO stage: 1, 2, 3 shard the optimizer, the gradients and the "
                          "weights"] = 0
    precision: Annotated[Literal["fp32", "bf16"], "type of the numbers in training's matrix products and between its "
                         "layers"] = "fp32"
    seed: Annotated[int, Between(0, 2**63 - 1), Decides(CAPTIONER), "seed of weights, order, text draws, plans and "
                    "dropout"] = 0
    task_weights: Annotated[dict[str, float], Between(0, 10**6), "weights of the losses by name; where a loss is not named 1, "
                            "of contrast (itc) 0"] = field(default_factory=dict)
    itc_block: Annotated[int, Between(GROUP, 2**20), MultipleOf(GROUP), Unit("samples"), "consecutive samples of the stream "
                         "that contrast compares with each other; divides `train.micro_batch` times the workers"] = 64
    losses_on_mismatched: Annotated[tuple[str, ...], "losses that count on mismatched pairs too, besides itm"] = field(
        default_factory=papers_class_tasks)
    log_every: Annotated[int, AtLeast(1), Free(), Unit("steps"), "steps between two lines of metrics.jsonl"] = 10
    validate_every: Annotated[int, AtLeast(1), Free(), Unit("steps"), "steps between two validations"] = 200
    validation_samples: Annotated[int, AtLeast(1), Free(), Unit("samples"), "samples that a validation takes, the first of the "
                                  "validation split"] = 512
    checkpoint_every: Annotated[int, AtLeast(1), Free(), Unit("steps"), "steps between two checkpoints"] = 500
    keep_checkpoints: Annotated[int, AtLeast(1), Free(), "newest checkpoints that are kept"] = 2
    max_skipped_steps: Annotated[int, AtLeast(1), Free(), Unit("steps"), "steps in a row whose gradients are not finite, after "
                                 "which the run ends"] = 5

    def check(self) -> None:
        """Refuse values that do not go together (ValueError, naming the keys)."""
        lengths = zip(LENGTH, (self.steps, self.epochs, self.minutes), strict=True)
        given = [f"{key}={value:g}" for key, value in lengths if value]
        if len(given) > 1:
            raise ValueError(f"give one of {', '.join(LENGTH)}, found {' and '.join(given)}; set the others to 0")
        if self.minutes and self.schedule == "authors":
            raise ValueError("train.schedule=authors needs the number of steps from the start; give train.steps or "
                             "train.epochs")
        if self.minutes and self.warmup_steps < MEASURED_STEPS:
            raise ValueError(f"train.minutes needs train.warmup_steps >= {MEASURED_STEPS}, found {self.warmup_steps}: the "
                             f"schedule is known only after {MEASURED_STEPS} steps")

    @property
    def contrasts(self) -> bool:
        """Whether contrast is trained."""
        return loss_weight(self.task_weights, CONTRAST) > 0

    def samples_per_step(self, num_workers: int) -> int:
        """Of an optimizer step over all workers."""
        return self.micro_batch * self.accumulation * num_workers


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Where a run lives and on what it runs."""

    out: Annotated[str, OnDisk(), "folder that the run writes"] = "runs/run"
    device: Annotated[Literal["cpu", "cuda"], "what the model runs on"] = "cuda"
    tensorboard: Annotated[bool, "whether the scalars of metrics.jsonl are also written to RUN/tensorboard; needs the package "
                           "tensorboard"] = False
    timeout_s: Annotated[float, Between(1, 10**7), Unit("seconds"), "how long a worker waits for the others before it gives "
                         "up"] = 600.0

    def check(self) -> None:
        """Refuse a run that lies nowhere (ValueError)."""
        if not self.out:
            raise ValueError("run.out: not given; name the folder to write the run to")


class StepConfig(Protocol):
    """The sections that a training step, its batches and its feature store are built from; `config.Config` has them."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]  # what `dataclasses.replace` asks for

    @property
    def data(self) -> DataSettings: ...
    @property
    def kaleido(self) -> KaleidoSettings: ...
    @property
    def model(self) -> ModelSettings: ...
    @property
    def reference(self) -> ReferenceSettings: ...
    @property
    def train(self) -> TrainSettings: ...
    @property
    def run(self) -> RunSettings: ...


class RunConfig(StepConfig, Protocol):
    """The sections that a whole run reads."""

    @property
    def init(self) -> InitSettings: ...
