"""Settings of pre-training (SPEC 7 'Loss', SPEC 8); the defaults are the paper's figures with AdamW."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from kaleido_fast.data.settings import DataSettings
from kaleido_fast.model.settings import InitSettings, KaleidoSettings, ModelSettings, ReferenceSettings

MEASURED_STEPS = 20  # steps after which train.minutes becomes a number of steps


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Length, batch, optimizer, precision and what is written when."""

    steps: int = 0  # exactly one of steps, epochs, minutes is positive
    epochs: float = 0.0
    minutes: float = 0.0  # becomes a number of steps after the first 20
    micro_batch: int = 64  # samples a worker holds at once; a multiple of 16 (whole groups)
    accumulation: int = 1  # micro-batches an optimizer step
    optimizer: Literal["adamw", "authors"] = "adamw"  # authors: Adam with epsilon outside the bias correction
    learning_rate: float = 2e-5
    schedule: Literal["linear", "authors"] = "linear"
    warmup_steps: int = 5000
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip_norm: float = 1.0  # global gradient norm; 0 switches clipping off
    zero_stage: Literal[0, 1, 2, 3] = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    task_weights: dict[str, float] = field(default_factory=dict)  # 1 where a task is not named
    losses_on_mismatched: tuple[str, ...] = ("rotation", "jigsaw", "camouflage")  # itm is always computed
    log_every: int = 10
    validate_every: int = 200
    validation_samples: int = 512
    checkpoint_every: int = 500
    keep_checkpoints: int = 2

    def samples_per_step(self, num_workers: int) -> int:
        """Of an optimizer step over all workers."""
        return self.micro_batch * self.accumulation * num_workers


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Where a run lives and on what it runs."""

    out: str = "runs/run"
    device: Literal["cpu", "cuda"] = "cuda"
    tensorboard: bool = False  # the scalars of metrics.jsonl also as RUN/tensorboard; needs the package
    timeout_s: float = 600.0  # how long a worker waits for the others before it gives up


class StepConfig(Protocol):
    """The sections that a training step, its batches and its feature store are built from; `config.Config` has them."""

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
