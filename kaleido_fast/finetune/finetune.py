"""Fine-tuning under the loop of pre-training: DeepSpeed, workers, checkpoints, resume, validation (SPEC 11)."""

from collections.abc import Mapping
from pathlib import Path

from kaleido_fast.data.shards.split import Split
from kaleido_fast.finetune.downstream import Downstream
from kaleido_fast.finetune.settings import FinetuneConfig
from kaleido_fast.finetune.shape import ConfigOf, with_shape
from kaleido_fast.finetune.table import downstream_task
from kaleido_fast.model.settings import RANDOM
from kaleido_fast.training.pretrain import train
from kaleido_fast.training.run.folder import RunFolder
from kaleido_fast.training.start import Training
from kaleido_fast.training.telemetry import TaskMeter
from kaleido_fast.training.validation import PretrainValidation


def finetune(config: FinetuneConfig, resume: bool = False) -> int:
    """Fine-tune as `config` says, which `prepare_config` has made, writing run.out; exit codes and errors as of `pretrain`."""
    return train(finetuning(config), config, resume)


def prepare_config(config: ConfigOf, resume: bool = False) -> tuple[ConfigOf, list[str]]:
    """The config that a fine-tuning goes by, with the shape of the model that it starts from; what of it changed.

    A run that goes on keeps its shape, also where the model that it started from is gone.

    Raises:
        ValueError: no task, no weights to start from, or a folder without a model.
    """
    row, init = downstream_task(config.finetune.task), config.init
    if not init.weights:
        raise ValueError(f"finetune: init.weights is not given; name the folder of a run or of an exported model, or "
                         f"init.weights={RANDOM} to learn the task from nothing")
    out = RunFolder(config.run.out)
    goes_on = resume and out.config_file.is_file() and any(out.checkpoints.glob("step-*"))
    folder = out.path if goes_on else Path(init.folder)
    if not (goes_on or init.folder):
        return config, []
    return with_shape(config, folder, row.contrasts and config.train.contrasts)


def finetuning(config: FinetuneConfig) -> Training:
    """Fine-tuning as the loop's start takes it."""
    row = downstream_task(config.finetune.task)
    return Training(
        "finetune",
        build=lambda manifest, resumed, blocks: row.build(config, manifest, resumed, blocks),
        validation=lambda engine, source, workers, holes: PretrainValidation(
            engine, config, source, workers, holes, row.draw_text),
        meter=lambda totals: DownstreamMeter(row, config.train.task_weights, totals),
        draw_text=row.draw_text,
        check=lambda split, validation: _check(row, config, split, validation),
        chosen_by=row.chosen_by, mined_at_start=row.mined_at_start)


def _check(row: Downstream, config: FinetuneConfig, split: Split, validation: Split) -> str:
    split.manifest.require_photographs(split.folder, "finetune")
    return row.check(config, split, validation)


class DownstreamMeter(TaskMeter):
    """The losses and accuracies of a task."""

    def __init__(
        self, row: Downstream, weights: Mapping[str, float], totals: Mapping[str, Mapping[str, float]] | None = None
    ) -> None:
        super().__init__(weights, totals)
        self._shown = row.shown

    def headline(self, report: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
        """The loss, and what the task shows."""
        accuracy = {name: f"{report['accuracy'][name]:.3f}" for name in self._shown if name in report["accuracy"]}
        return {"loss": f"{report['losses']['total']:.2f}"} | accuracy
