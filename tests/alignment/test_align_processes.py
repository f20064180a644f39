"""align in processes of its own: killed and started again, and on two workers."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kaleido_fast.alignment.shard_alignment import ShardFiles
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import Split
from kaleido_fast.training.workers.share_out import all_shards
from tests.alignment.small_align import NAME
from tests.places import DEMO
from tests.small import PATCHES

SETTINGS = (*PATCHES, "align.mode=forced", "align.smoothing=0.0", "align.region_share=0.85", "align.micro_batch=16")


@pytest.mark.slow
def test_a_killed_align_leaves_nothing_that_a_reader_takes(shards: Path, run: Path, tmp_path: Path) -> None:
    """Killed once its first shard is whole: no reader finds the alignment, and the same command makes what it would have."""
    expected = {shard.name: np.load(ShardFiles(shards, shard.name, NAME).masks) for shard in all_shards(Manifest.read(shards))}
    command = [sys.executable, "-m", "kaleido_fast", "align", str(DEMO), f"data.shards={shards}",
               f"run.out={tmp_path / 'killed'}", f"align.captioner={run / 'captioner'}", "align.name=killed", *SETTINGS]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    first, deadline = ShardFiles(shards, "train-000000", "killed"), time.monotonic() + 300
    while not first.record.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -9 and first.record.exists()
    assert "killed" not in Manifest.read(shards).alignments
    with pytest.raises(ValueError, match="killed: .* has no such alignment"):
        Split.open(shards, "train").require_alignment("killed")
    written = first.masks.stat().st_mtime_ns
    assert subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, timeout=300).returncode == 0
    assert first.masks.stat().st_mtime_ns == written
    for name, masks in expected.items():
        assert np.array_equal(np.load(ShardFiles(shards, name, "killed").masks), masks)


@pytest.mark.slow
def test_two_workers_make_the_same(shards: Path, run: Path, tmp_path: Path) -> None:
    """Two workers train a captioner and share the shards out; with one captioner the masks are those of one worker."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "kaleido_fast",
                "align", str(DEMO), f"data.shards={shards}", *SETTINGS]
    quiet = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, f"run.out={tmp_path / 'two'}", f"align.captioner={run / 'captioner'}", "align.name=two"],
                          capture_output=True, text=True, timeout=300, env=quiet)
    assert done.returncode == 0, done.stderr[-3000:]
    for shard in all_shards(Manifest.read(shards)):
        one, two = (np.load(ShardFiles(shards, shard.name, name).masks) for name in (NAME, "two"))
        assert (one == two).mean() > 0.999  # sums are rounded by the batch
    done = subprocess.run([*torchrun, f"run.out={tmp_path / 'new'}", "align.name=new", "align.steps=2", "align.channels=8"],
                          capture_output=True, text=True, timeout=300, env=quiet)
    assert done.returncode == 0, done.stderr[-3000:]
    assert Manifest.read(shards).alignments == ("truth", NAME, "two", "new")
    done = subprocess.run([*torchrun, f"run.out={tmp_path / 'bad'}", "align.name=bad", "align.captioner=none"],
                          capture_output=True, text=True, timeout=300, env=quiet)
    assert "none: no captioner.json there" in done.stderr and done.stderr.count("no captioner.json there") == 1
