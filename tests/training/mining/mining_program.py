"""What two workers do in test_mined_on_workers.py: runs across two minings, in one launch.

torchrun … -m tests.training.mining.mining_program SHARDS OUT
"""

import sys
from pathlib import Path

from kaleido_fast.training.pretrain import train_run
from kaleido_fast.training.workers.group import Workers, start_workers
from kaleido_fast.training.workers.stop import StopRequest
from tests.small import small_config

BATCH, STEPS, SAVED = 32, 6, 4  # samples and number of steps, and one that is saved between the two minings
RUNS = [(0, "fp32"), (3, "fp32"), (3, "bf16")]
SETTINGS = [f"train.steps={STEPS}", "train.checkpoint_every=1", "train.keep_checkpoints=9", "train.validate_every=9",
            "model.dropout=0", "model.initializer_range=0.2", "model.itc_dim=16", "train.itc_block=16",
            "train.task_weights={itc: 2}", "data.itm_negatives=mined", "data.itm_hard_share=0.75", "data.mine_count=2"]


def one_run(shards: Path, out: Path, workers: Workers, stage: int, precision: str, resume: bool = False) -> None:
    """One run of BATCH samples a step, however many workers share them."""
    config = small_config(shards, out, *SETTINGS, f"train.zero_stage={stage}", f"train.precision={precision}",
                          f"train.micro_batch={BATCH // workers.count}")
    assert train_run(config, workers, StopRequest(), resume) == 0


def main(shards: Path, out: Path) -> None:
    workers = start_workers("cpu", 120)
    for stage, precision in RUNS:
        one_run(shards, out / f"{stage}-{precision}", workers, stage, precision)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
