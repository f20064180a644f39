"""What every training starts with: its checkpoint, the engine as that left it, and the loop that goes on from there.

Pre-training (start.py) and the captioner (alignment/captioner_training.py) are built by it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from kaleido_fast.data.batches.loader import Loader
from kaleido_fast.data.batches.source import BatchSource
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.training.checkpoint import clean_leftovers, is_for_others, latest_checkpoint, load_checkpoint
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.fed_samples import FedSamples
from kaleido_fast.training.length import RunLength
from kaleido_fast.training.loop import Loop, Meter, MicroBatchStep, Records, Validation
from kaleido_fast.training.mining.mined_negatives import MinedNegatives
from kaleido_fast.training.progress import Progress
from kaleido_fast.training.settings import RunSettings, TrainSettings
from kaleido_fast.training.workers.group import Workers
from kaleido_fast.training.workers.stop import StopRequest


def find_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder of them; what a kill left half-written there goes. One worker calls it.

    Raises:
        ValueError: a file of it is missing or was changed.
    """
    clean_leftovers(folder)
    return latest_checkpoint(folder)


def start_engine(
    module: nn.Module, train: TrainSettings, run: RunSettings, workers: Workers, checkpoint: Path | None,
    with_weights: bool = True,
) -> Engine:
    """The engine around `module`, with the state of a checkpoint where there is one. All workers call it.

    Args:
        with_weights: as `save_checkpoint`.
    Raises:
        SharedError: the checkpoint is not there on every worker.
    """
    converted = checkpoint is not None and is_for_others(checkpoint, workers.count)
    engine = Engine(module, train, run, workers.count, converted)
    if checkpoint is not None:
        load_checkpoint(checkpoint, engine, workers, converted, with_weights)
    return engine


def start_loop(
    name: str, source: BatchSource, data: DataSettings, samples: FedSamples, progress: Progress, checkpoint: Path | None, *,
    settings: TrainSettings, workers: Workers, stop: StopRequest, engine: Engine, step: MicroBatchStep, meter: Meter,
    records: Records, validation: Validation | None = None, draw_text: bool = True,
    own_texts: bool = False, mining: MinedNegatives | None = None,
    chosen_by: Callable[[Mapping[str, Any]], float] | None = None,
) -> Loop:
    """The loop over a source's batches, from where `progress` stands; as long as `settings` say.

    Args:
        checkpoint: of `progress`; None where the training begins.
        draw_text: whether mismatched texts are drawn; otherwise every text is the sample's own.
        own_texts: whether a sample's own text comes beside the drawn one.
        mining: of the negatives that are drawn.
        chosen_by: as the loop takes it.
    """
    products_an_epoch = 0.0 if mining is None else source.split.num_products / data.mine_every
    length = RunLength(settings, progress.batch, source.split.num_samples, progress.total_steps, products_an_epoch)
    progress.total_steps = length.total

    def open_batches(position: int) -> Loader:
        return Loader(
            source, data, seed=settings.seed, micro_batch=settings.micro_batch, device=workers.device, worker=workers.rank,
            num_workers=workers.count, position=position, draw_text=draw_text, own_texts=own_texts, holes=samples.holes,
            negatives=None if mining is None else mining.lists)

    return Loop(
        name=name, settings=settings, workers=workers, stop=stop, engine=engine, step=step,
        batches=open_batches(progress.position), samples=samples, meter=meter, length=length, progress=progress,
        records=records, validation=validation, mining=mining, chosen_by=chosen_by, open_batches=open_batches,
        saved_at=None if checkpoint is None else progress.step)
