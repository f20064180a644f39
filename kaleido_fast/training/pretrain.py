"""Pre-training: workers meet, a run is built or resumed, and the loop steps to its end."""

from pathlib import Path

from kaleido_fast.options import RESUME
from kaleido_fast.training.run.lock import held_folder
from kaleido_fast.training.settings import RunConfig
from kaleido_fast.training.start import start_pretraining
from kaleido_fast.training.workers.failure import run_together
from kaleido_fast.training.workers.group import Workers, start_workers
from kaleido_fast.training.workers.stop import StopRequest


def pretrain(config: RunConfig, resume: bool = False) -> int:
    """Pre-train as `config` says, writing run.out; the exit code: 0 when done, 128 + n when signal n stopped it, 2 where
    another worker says what went wrong.

    Raises:
        ValueError: settings, shards or checkpoints that cannot be used; a run is there and `resume` is false, or another
            process works there.
    """
    stop = StopRequest()
    try:
        workers = start_workers(config.run.device, config.run.timeout_s)
        return run_together(workers, lambda: train_run(config, workers, stop, resume), config.run.timeout_s, "with ", RESUME)
    finally:
        stop.release()


def train_run(config: RunConfig, workers: Workers, stop: StopRequest, resume: bool) -> int:
    """One run of workers that have met; returns and raises as `pretrain`."""
    with held_folder(Path(config.run.out), workers, "pretrain", stop=stop) as require_held:
        return start_pretraining(config, workers, stop, resume, require_held).run()
