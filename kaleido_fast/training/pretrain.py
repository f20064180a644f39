"""Pre-training, and what fine-tuning shares with it: workers meet, a run is built or resumed, the loop steps to its end."""

from kaleido_fast.options import RESUME
from kaleido_fast.training.run.ended import failure_noted
from kaleido_fast.training.run.folder import RunFolder
from kaleido_fast.training.run.lock import held_folder
from kaleido_fast.training.settings import RunConfig
from kaleido_fast.training.start import Training, pretraining, start_training
from kaleido_fast.training.workers.failure import run_together, what_failed
from kaleido_fast.training.workers.group import Workers, start_workers
from kaleido_fast.training.workers.stop import StopRequest


def pretrain(config: RunConfig, resume: bool = False) -> int:
    """Pre-train as `config` says; as `train`."""
    return train(pretraining(config), config, resume)


def train(training: Training, config: RunConfig, resume: bool = False) -> int:
    """Train as `config` says, writing run.out; the exit code: 0 when done, 128 + n when signal n stopped it, 2 where another
    worker says what went wrong.

    Raises:
        ValueError: settings, shards or checkpoints that cannot be used; a run is there and `resume` is false, or another
            process works there.
    """
    stop = StopRequest()
    try:
        workers = start_workers(config.run.device, config.run.timeout_s)
        return run_together(
            workers, lambda: _train_run(training, config, workers, stop, resume), config.run.timeout_s, "with ", RESUME)
    finally:
        stop.release()


def train_run(config: RunConfig, workers: Workers, stop: StopRequest, resume: bool) -> int:
    """One pre-training of workers that have met; returns and raises as `train`."""
    return _train_run(pretraining(config), config, workers, stop, resume)


def _train_run(training: Training, config: RunConfig, workers: Workers, stop: StopRequest, resume: bool) -> int:
    folder = RunFolder(config.run.out)
    with held_folder(folder.path, workers, training.name, stop=stop) as require_held:
        loop = start_training(training, config, workers, stop, resume, require_held)

        def describe(error: Exception) -> str:
            require_held()  # else summary.json is another's
            return what_failed(workers, error, config.run.timeout_s, "with ", RESUME)

        with failure_noted(folder, describe if workers.is_first else None):
            return loop.run()
