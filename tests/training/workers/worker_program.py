"""What several workers do in test_workers.py, many checks in one launch.

torchrun … -m tests.training.workers.worker_program SHARDS OUT         the engine's checks, then all RUNS from the start
torchrun … -m tests.training.workers.worker_program SHARDS OUT resume  the RUNS that are there go on
"""

import sys
from pathlib import Path

from kaleido_fast.training.pretrain import train_run
from kaleido_fast.training.workers.group import Workers, start_workers
from kaleido_fast.training.workers.stop import StopRequest
from tests.small import small_config
from tests.training import engine_cases

BATCH, STEPS, SAVED = 96, 4, 2  # samples and number of steps, and the one that is saved in between
RUNS = [(stage, precision) for stage in engine_cases.STAGES for precision in ("fp32", "bf16")]
SETTINGS = [f"train.steps={STEPS}", f"train.checkpoint_every={SAVED}", "train.keep_checkpoints=9", "train.validate_every=4",
            "model.dropout=0", "train.task_weights={}"]


def one_run(shards: Path, out: Path, workers: Workers, stage: int, precision: str, accumulation: int, resume: bool) -> None:
    """One run of BATCH samples a step, however many workers and micro-batches share them."""
    config = small_config(
        shards, out, *SETTINGS, f"train.zero_stage={stage}", f"train.precision={precision}",
        f"train.accumulation={accumulation}", f"train.micro_batch={BATCH // workers.count // accumulation}")
    assert train_run(config, workers, StopRequest(), resume) == 0


def main(shards: Path, out: Path, resume: bool) -> None:
    workers = start_workers("cpu", 120)
    for stage in engine_cases.STAGES if not resume else ():
        norm = engine_cases.grad_norm(stage, workers.rank, workers.count, seeds=4)
        plain = engine_cases.plain_grad_norm(4)
        assert abs(norm - plain) < 1e-6 * plain, (stage, norm, plain)
        for precision in ("fp32", "bf16"):
            engine_cases.check_that_a_bad_step_moves_nothing(stage, precision, workers.rank, workers.count)
    for stage, precision in RUNS:
        one_run(shards, out / f"{stage}-{precision}", workers, stage, precision, 2 if resume else 1, resume)
        if precision == "fp32" and not resume:
            one_run(shards, out / f"{stage}-accumulated", workers, stage, precision, 3, resume)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), resume="resume" in sys.argv)
