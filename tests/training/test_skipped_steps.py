"""A run whose steps are not finite ends, names what it was fed and keeps its last good checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kaleido_fast.alignment.align import align
from kaleido_fast.alignment.captioner_training import CaptionerStep
from kaleido_fast.cli import main
from kaleido_fast.data.batches.stream import sample_order
from kaleido_fast.data.shards.split import Split
from kaleido_fast.training.checkpoint import latest_checkpoint
from kaleido_fast.training.keyed_step import KeyedStep
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.skipped_steps import SkippedSteps
from tests.alignment.small_align import SMALL_CAPTIONER
from tests.places import DEMO
from tests.small import RUN, small_config

LOST = "nothing moved, since their gradients are not finite; step"
THREE = ("train.max_skipped_steps=3", "train.checkpoint_every=2", "train.validate_every=99", "train.steps=20",
         "train.keep_checkpoints=9")


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """spoil(step, ...): from now on the losses of these optimizer steps (from 1) are not a number."""
    def spoil_steps(*steps: int, of: type = KeyedStep) -> None:
        forward = of.forward

        def spoilt(self: object, batch: object, num_rows: object, num_step_rows: object, step: int, micro: int) -> object:
            result = forward(self, batch, num_rows, num_step_rows, step, micro)
            return result._replace(loss=result.loss * float("nan")) if step + 1 in steps else result

        monkeypatch.setattr(of, "forward", spoilt)
    return spoil_steps


def test_a_row_is_counted_on_the_device_and_read_later() -> None:
    for one, none in ((torch.ones(()), torch.zeros(())), (True, False)):
        skipped = SkippedSteps(limit=3, log_every=10)
        for step, left_out in enumerate([0, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1, 0], start=1):
            skipped.add(step, one if left_out else none, np.array([step * 16]))
            first = skipped.first_lost()
            assert (first is None) == (step < 7), "two in a row are not three"
        assert (first[0], first[1].tolist()) == (5, [80]), "the first such row, of which step 5 is the first"


def test_a_row_that_began_before_the_last_reading_is_named() -> None:
    skipped = SkippedSteps(limit=5, log_every=2)
    for step in range(1, 8):
        skipped.add(step, torch.tensor(float(step >= 2)), np.array([step]))
        if step % 2 == 0 and step < 6:
            assert skipped.first_lost() is None
    assert skipped.first_lost() == (2, np.array([2]))


@pytest.mark.parametrize(("stage", "precision", "save_every", "newest"), [
    (0, "fp32", 4, 4), (2, "fp32", 4, 4),
    *(pytest.param(*case, 4, 4, marks=pytest.mark.slow) for case in ((0, "bf16"), (1, "bf16"), (3, "fp32"), (3, "bf16"))),
    (0, "fp32", 5, 5),  # what was saved inside the row is what stood before it
])
def test_a_run_ends(
    stage: int, precision: str, save_every: int, newest: int, spoil: Callable[..., None], tiny_shards: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Step 7 is the third in a row; it is found where a checkpoint would be written (8) or at the next line (9)."""
    spoil(*range(5, 100))
    out = tmp_path / "run"
    code = main(["pretrain", str(DEMO), *RUN, *THREE, "train.log_every=3", f"train.checkpoint_every={save_every}",
                 f"data.shards={tiny_shards}", f"run.out={out}", f"train.zero_stage={stage}", f"train.precision={precision}"])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    samples, _ = sample_order(np.arange(64, 80), Split.open(tiny_shards, "train").num_samples, seed=0)
    assert code == 2 and said == (
        f"kaleido-fast pretrain: train.max_skipped_steps=3: in steps 5 to 7 {LOST} 5 was fed samples "
        f"{', '.join(map(str, samples[:8]))}, … of split 'train'; the checkpoint of step {newest} stays; a "
        "resumed run meets the same steps again: raise train.max_skipped_steps to pass them, or start anew with a lower "
        "learning rate or without these samples")
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    ended = json.loads((out / "summary.json").read_text())["ended"]
    assert (ended["how"], ended["first_step"], ended["samples"]) == ("lost", 5, {"worker 0": samples.tolist()})
    assert ended["why"] in said and not (out / "lock.json").exists()
    assert steps == ([3, 6] if save_every == 4 else [3, 6, 9])
    assert latest_checkpoint(out / "checkpoints").name == f"step-{newest:08d}"


def test_fewer_in_a_row_go_on(spoil: Callable[..., None], tiny_shards: Path, tmp_path: Path) -> None:
    spoil(2, 3, 5, 6, 8)
    out = tmp_path / "run"
    assert pretrain(small_config(tiny_shards, out, *THREE, "train.steps=8")) == 0
    assert json.loads((out / "summary.json").read_text())["ended"] == {"how": "done"}
    assert latest_checkpoint(out / "checkpoints").name == "step-00000008"


def test_weights_that_are_not_finite_are_not_written(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever spoilt them: here step 3 does, and the checkpoint of step 4 would be the first after it."""
    forward, out = KeyedStep.forward, tmp_path / "run"

    def spoil_weights(self: KeyedStep, *inputs: object) -> object:
        if inputs[3] == 2:
            with torch.no_grad():
                self._engine.module.model.pooler.weight[0, 0] = float("inf")
        return forward(self, *inputs)

    monkeypatch.setattr(KeyedStep, "forward", spoil_weights)
    with pytest.raises(ValueError, match="step-00000004: 'pooler.weight' holds .* not finite; not written, the training is "
                                         "lost; a resumed run meets the same steps again: start anew with a lower "
                                         "learning rate"):
        pretrain(small_config(tiny_shards, out, *THREE, "train.max_skipped_steps=9"))
    assert latest_checkpoint(out / "checkpoints").name == "step-00000002"
    assert json.loads((out / "summary.json").read_text())["ended"]["how"] == "lost"


def test_a_captioner_ends(spoil: Callable[..., None], tiny_shards: Path, tmp_path: Path) -> None:
    spoil(*range(12, 100), of=CaptionerStep)
    config = small_config(tiny_shards, tmp_path / "run", *SMALL_CAPTIONER, "align.steps=60", "align.checkpoint_every=10",
                          "train.max_skipped_steps=3")
    with pytest.raises(ValueError, match=f"train.max_skipped_steps=3: in steps 12 to 14 {LOST} 12 was fed .*; the checkpoint "
                                         "of step 10 stays"):
        align(config)
    assert latest_checkpoint(tmp_path / "run" / "captioner-training").name == "step-00000010"
