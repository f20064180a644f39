"""From a config to a run that can step: what is there is compared, then all is built, or resumed from a checkpoint."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kaleido_fast.data.batches.source import BatchSource
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import Split
from kaleido_fast.model.attention.packed import PickedAttention
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.training.bert_start import describe_start, start_from_bert
from kaleido_fast.training.build import build_step, picked_attention
from kaleido_fast.training.checkpoint import require_finite_weights, saved_progress
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.fed_samples import FedSamples
from kaleido_fast.training.frozen_state import leave_out_encoder
from kaleido_fast.training.keyed_step import KeyedStep
from kaleido_fast.training.length import require_ahead, require_length
from kaleido_fast.training.loop import LOST, Loop, Meter, Validation
from kaleido_fast.training.loop_start import find_checkpoint, start_engine, start_loop
from kaleido_fast.training.mining.mined_negatives import MinedNegatives, read_negatives
from kaleido_fast.training.progress import Progress
from kaleido_fast.training.run.ended import FAILED, KILLED, describe_end, earlier_ends
from kaleido_fast.training.run.folder import RunFolder
from kaleido_fast.training.run.host_bound import host_bound_line
from kaleido_fast.training.run.records import RunRecords
from kaleido_fast.training.run.summary import RunSummary
from kaleido_fast.training.run.tensorboard import TensorBoard, require_tensorboard
from kaleido_fast.training.settings import RunConfig, TrainSettings
from kaleido_fast.training.stores.open import check_weights, open_source, open_splits
from kaleido_fast.training.telemetry import TaskMeter
from kaleido_fast.training.validation import PretrainValidation
from kaleido_fast.training.weights_start import start_from_weights
from kaleido_fast.training.workers.group import Workers
from kaleido_fast.training.workers.stop import StopRequest
from kaleido_fast.training.workers.stream_blocks import StreamBlocks


@dataclass(frozen=True, slots=True)
class Training:
    """What pre-training and each fine-tuning differ in.

    Args:
        name: of the verb; shown with the progress bar.
        build: the module that is trained: from the manifest of its shards, whether its weights will come from a checkpoint, and
            a worker's place in contrast's blocks. Its `model` is a KaleidoBertModel, its `count` and `forward` are what
            KeyedStep calls.
        validation: of the weights as they are, by the first samples of the validation split.
        meter: of the losses; begins with the sums of a checkpoint.
        draw_text: whether mismatched texts are drawn.
        check: refuses (ValueError) the training and the validation split; what a user should know of them, or "".
        chosen_by: as the loop takes it.
        mined_at_start: whether negatives are mined before the first step, too.
    """

    name: str
    build: Callable[[Manifest, bool, StreamBlocks], nn.Module]
    validation: Callable[[Engine, BatchSource, Workers, dict[str, str]], Validation]
    meter: Callable[[Mapping[str, Mapping[str, float]] | None], Meter]
    draw_text: bool = True
    check: Callable[[Split, Split], str] = lambda split, validation: ""
    chosen_by: Callable[[Mapping[str, Any]], float] | None = None
    mined_at_start: bool = False


def pretraining(config: RunConfig) -> Training:
    """Pre-training as `config` says."""

    def build(manifest: Manifest, resumed: bool, blocks: StreamBlocks) -> nn.Module:
        step = build_step(config, manifest, resumed)
        step.blocks = blocks
        return step

    return Training(
        "pretrain", build,
        lambda engine, source, workers, holes: PretrainValidation(engine, config, source, workers, holes),
        lambda totals: TaskMeter(config.train.task_weights, totals))


@dataclass(frozen=True, slots=True)
class Earlier:
    """What lies in run.out when a run starts."""

    is_there: bool = False  # a run, which goes on
    checkpoint: Path | None = None  # its newest
    progress: Progress | None = None  # of that
    holes: dict[str, str] = field(default_factory=dict)  # samples that could not be read, and why
    ends: list[dict[str, Any]] = field(default_factory=list)  # how its processes ended


def start_pretraining(
    config: RunConfig, workers: Workers, stop: StopRequest, resume: bool, require_held: Callable[[], None] = lambda: None
) -> Loop:
    """A pre-training that is ready to step; as `start_training`."""
    return start_training(pretraining(config), config, workers, stop, resume, require_held)


def start_training(
    training: Training, config: RunConfig, workers: Workers, stop: StopRequest, resume: bool,
    require_held: Callable[[], None] = lambda: None,
) -> Loop:
    """A training that is ready to step. All workers call it.

    Settings, shards, checkpoints and weights that cannot be used leave nothing behind.

    Args:
        require_held: of `held_folder`.
    Raises:
        ValueError: settings, shards or checkpoints that cannot be used; a run is there and `resume` is false.
    """
    train, folder = config.train, RunFolder(config.run.out)
    looked: Earlier | None = None  # by the first worker
    with workers.together():
        require_length(train)
        _require_blocks(train, workers)
        split, validation_split = open_splits(config)
        note = training.check(split, validation_split)
        source, validation_source = open_source(config, split), open_source(config, validation_split)
        if config.run.tensorboard:
            require_tensorboard()
        attention = picked_attention(config, workers.device)
        looked = _look(config, folder, split, resume) if workers.is_first else None
    earlier = workers.from_first(looked)
    assert earlier is not None, "the first worker looked"
    progress = earlier.progress or _beginning(config, split.manifest, workers)

    torch.manual_seed(train.seed)  # the random weights
    blocks = StreamBlocks.at(progress.position, workers.rank, workers.count)
    step: Any = training.build(split.manifest, earlier.checkpoint is not None, blocks)
    leave_out_encoder(step, step.model)
    if earlier.checkpoint is None and (config.init.bert or config.init.folder):  # a resumed run's are in the checkpoint
        progress.init = _fill(step.model, config, workers)
    engine = start_engine(step, train, config.run, workers, earlier.checkpoint)
    mining = _mined_negatives(config, engine, source, workers, earlier.checkpoint, training.mined_at_start)
    # The folder is written after all checks, so that what they refuse leaves nothing behind. Loader, TensorBoard and validation
    # are built after it: if one of them fails, config.yaml stays, and `--resume auto` begins there.
    with workers.together():
        check_weights(config, source, step.model)
        if workers.is_first:
            folder.go_on(progress.step, config) if earlier.is_there else folder.start(config)
    if workers.is_first:
        if note:
            print(note)
        _tell(config, progress, earlier, workers, attention)

    samples = FedSamples(split, config.data.shards, config.data.max_holes, earlier.holes if workers.is_first else {})
    board = TensorBoard(folder.path, progress.step) if config.run.tensorboard and workers.is_first else None
    records = RunRecords(
        folder, engine, workers, RunSummary(config, source, workers.count, attention, earlier.ends), samples.holes,
        train.keep_checkpoints, board, require_held, mining)
    loop = start_loop(
        training.name, source, config.data, samples, progress, earlier.checkpoint, settings=train, workers=workers, stop=stop,
        engine=engine, step=KeyedStep(engine, train.seed, workers),
        meter=training.meter(progress.meter if workers.is_first else None), records=records,
        validation=training.validation(engine, validation_source, workers, samples.holes), draw_text=training.draw_text,
        own_texts=train.contrasts, mining=mining, chosen_by=training.chosen_by)
    records.begin(progress)  # behind all that may fail: who wrote "running" and is gone was killed
    return loop


def _mined_negatives(
    config: RunConfig, engine: Engine, source: BatchSource, workers: Workers, checkpoint: Path | None, at_start: bool
) -> MinedNegatives | None:
    """What mines the run's negatives, with the lists of its checkpoint; None where there are none to mine."""
    data = config.data
    if data.itm_negatives != "mined":
        return None
    with workers.together():
        lists = None if checkpoint is None else read_negatives(checkpoint, source.split.num_products, data.mine_count)
    return MinedNegatives(engine, source, config, workers, lists, at_start)


def _require_blocks(train: TrainSettings, workers: Workers) -> None:
    """Refuse (ValueError) blocks of contrast that do not fill a micro-step."""
    number = train.micro_batch * workers.count
    if train.contrasts and number % train.itc_block:
        raise ValueError(f"train.itc_block={train.itc_block} must divide train.micro_batch={train.micro_batch} times "
                         f"{workers.count} workers, {number} samples; change one of the three")


def _beginning(config: RunConfig, manifest: Manifest, workers: Workers) -> Progress:
    """Where a new run stands."""
    train, alignment = config.train, config.data.alignment
    return Progress(batch=train.samples_per_step(workers.count), shards=manifest.fingerprint_with(alignment),
                    alignment=manifest.aligned.get(alignment, ""))


def _look(config: RunConfig, folder: RunFolder, split: Split, resume: bool) -> Earlier:
    """What is there, compared with what it shall go on under; what a kill left half-written goes. One worker calls it.

    Raises:
        ValueError: a run is there and `resume` is false, it was under other settings or shards, or its weights are not
            finite.
    """
    if not folder.find(config, resume):
        return Earlier()
    checkpoint = find_checkpoint(folder.checkpoints)
    if checkpoint is None:
        return Earlier(is_there=True, ends=earlier_ends(folder.path))
    require_finite_weights(checkpoint)
    progress = saved_progress(checkpoint, config.run)
    _require_same_data(config, split.manifest, checkpoint, progress)
    require_ahead(config.train, progress, split.num_samples)
    return Earlier(True, checkpoint, progress, folder.read_holes(), earlier_ends(folder.path))


def _require_same_data(config: RunConfig, manifest: Manifest, checkpoint: Path, progress: Progress) -> None:
    """Refuse (ValueError) shards or an alignment that are not those of a checkpoint's run."""
    data = config.data
    if progress.shards == manifest.fingerprint_with(data.alignment):
        return
    before, now = progress.alignment[:16], manifest.aligned.get(data.alignment, "")[:16]
    if before != now:
        raise ValueError(f"data.alignment={data.alignment}: made anew since {checkpoint}: SHA-256 {now}…, the run began with "
                         f"{before}…; align as it was, or give another run.out")
    raise ValueError(f"data.shards={data.shards}: not the shards of {checkpoint}; resume with those, or give another run.out")


def _fill(model: KaleidoBertModel, config: RunConfig, workers: Workers) -> str:
    """Give the model the weights that `init` names; what they are, in words."""
    init, shards = config.init, config.data.shards
    with workers.together():
        if init.folder:
            return start_from_weights(model, Path(init.folder), shards=shards)
        loaded = start_from_bert(model, Path(init.bert), max_tokens=config.data.max_tokens, shards=shards)
        return describe_start(init.bert, loaded, model)


def _tell(config: RunConfig, progress: Progress, earlier: Earlier, workers: Workers, attention: PickedAttention) -> None:
    """What a user should know of a start; the first worker says it."""
    init, train = config.init, config.train
    if earlier.checkpoint is None and (init.bert or init.folder):
        print(f"init.{'weights' if init.folder else 'bert'}: {progress.init}")
    if config.model.attention != "sdpa":
        print(f"model.attention={config.model.attention}: {attention}")
    if workers.device.type == "cuda" and (line := host_bound_line(config, torch.cuda.get_device_properties(workers.device))):
        print(line, file=sys.stderr)
    last = earlier.ends[-1] if earlier.ends else {}
    if last.get("how") in (KILLED, FAILED, LOST):
        print(f"{config.run.out}: goes on at step {progress.step}; the process before: "
              f"{describe_end(Path(config.run.out), last)}", file=sys.stderr)
    batch = train.samples_per_step(workers.count)
    if progress.batch != batch:
        print(f"{config.run.out}: goes on with {batch} samples a step, it began with {progress.batch}; train.micro_batch and "
              "train.accumulation may be given anew to keep that", file=sys.stderr)
