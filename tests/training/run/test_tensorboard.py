"""TensorBoard's events: those of metrics.jsonl, once a step also after a resume; the message without the package."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.run.tensorboard import TensorBoard
from tests.places import DEMO
from tests.small import RUN, small_config


def _config(shards: Path, out: Path, *more: str):
    return small_config(shards, out, "train.steps=4", "train.validate_every=2", "train.checkpoint_every=2",
                        "train.keep_checkpoints=5", *more)


def _events(run: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by tag, as TensorBoard shows them."""
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def _metrics(run: Path, section: str, key: str) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [line | {"losses": line.get("losses", line.get("validation", {}).get("losses"))} for line in lines
             if ("validation" in line) == (section == "validation")]
    return [(line["step"], pytest.approx(line["losses"][key], rel=1e-6)) for line in lines]


def test_events_are_those_of_the_metrics_after_a_resume_too(tiny_shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    run = tmp_path / "run"
    assert pretrain(_config(tiny_shards, run, "run.tensorboard=true")) == 0
    for name in ("total", "itm", "rotation"):
        assert _events(run)[f"losses/{name}"] == _metrics(run, "train", name)
    (run / "checkpoints" / "latest").write_text("step-00000002")  # as if killed after step 4, before its checkpoint
    assert pretrain(_config(tiny_shards, run, "run.tensorboard=true"), resume=True) == 0
    events = _events(run)
    assert len(list((run / "tensorboard").iterdir())) == 2
    assert [step for step, _ in events["losses/total"]] == [1, 2, 3, 4]
    assert events["losses/total"] == _metrics(run, "train", "total")
    assert events["validation/losses/amlm"] == _metrics(run, "validation", "amlm")
    assert {"samples", "learning_rate", "grad_norm", "samples_per_s", "accuracy/itm"} <= set(events)


def test_nothing_is_written_unless_asked_for(tiny_shards: Path, tmp_path: Path) -> None:
    assert pretrain(_config(tiny_shards, tmp_path / "run")) == 0
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_a_missing_package_is_named_before_anything_is_written(tiny_shards: Path, tmp_path: Path, monkeypatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "tensorboard" else find_spec(name, *a))
    with pytest.raises(ValueError, match=r"needs the package tensorboard, which is not installed; `pip install "
                                         r"'kaleido_fast\[tensorboard\]'`"):
        pretrain(_config(tiny_shards, tmp_path / "run", "run.tensorboard=true"))
    assert not (tmp_path / "run").exists()


def test_a_new_run_purges_nothing(tmp_path: Path) -> None:
    """Step 0 of a run whose folder is new: no purge mark that would hide it."""
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    board = TensorBoard(tmp_path, 0)
    board.add({"step": 1, "losses": {"total": 2.5}})
    board.close()
    assert _events(tmp_path) == {"losses/total": [(1, 2.5)]}


@pytest.mark.slow
def test_the_first_of_two_workers_writes(tiny_shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    settings = [*RUN, "train.steps=2", "train.validation_samples=32", "run.tensorboard=true"]
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "kaleido_fast",
         "pretrain", str(DEMO), f"data.shards={tiny_shards}", f"run.out={tmp_path / 'run'}", *settings],
        check=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1
    assert _events(tmp_path / "run")["losses/total"] == _metrics(tmp_path / "run", "train", "total")
