"""Steps on fixed micro-batches: they train, say what they did, and stand beside other ways on the same batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kaleido_fast.bench.batches import drawn_lengths
from kaleido_fast.bench.flops import step_flops
from kaleido_fast.bench.packing import bench_packing, padded_to, with_its_plan
from kaleido_fast.bench.shapes import Shape
from kaleido_fast.bench.training_steps import Measuring, bench_steps, drawn_steps
from kaleido_fast.bench.ways import OwnSteps, make_ways
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings
from kaleido_fast.training.settings import RunSettings, TrainSettings

SMALL = Shape(
    DataSettings(image_size=60, max_tokens=24), KaleidoSettings(patch_size=8),
    ModelSettings(hidden=32, layers=1, heads=2, intermediate=64, dropout=0.0),
    train=TrainSettings(micro_batch=16, accumulation=2, learning_rate=1e-3), run=RunSettings(device="cpu"))
STORED = replace(SMALL, model=replace(SMALL.model, features="stored"))


@pytest.mark.parametrize("shape", [SMALL, STORED])
def test_steps_train_and_say_what_they_did(shape: Shape) -> None:
    batches, manifest, said = drawn_steps(shape, (5, 24), steps=2)
    found = bench_steps(shape, manifest, batches, Measuring(rounds=2, tflops=0.01, profiled=1))
    assert len(batches) == 4 and "5 to 24 tokens" in said
    assert found["last_loss"] < found["first_loss"]
    assert found["samples"] == 64 and 64 * (5 + 55) <= found["packed_rows"] <= 64 * (24 + 55)
    assert found["samples_per_s"] * found["ways"]["kaleido_fast"]["median_ms"] == pytest.approx(32_000)
    assert found["utilisation"] == pytest.approx(found["gflops_a_sample"] * found["samples_per_s"] / 0.01 / 1e3)
    assert (found["patch_gflops_a_sample"] > 0) == (shape is SMALL)
    assert found["peak_gib"] > 0.05
    assert found["profile"][0]["ms_a_step"] >= found["profile"][-1]["ms_a_step"] > 0


def test_all_ways_have_the_losses_of_the_same_rows() -> None:
    """The plain path has our weights; VisualBERT's are its own, and each of its losses is near that of guessing, as ours."""
    batches, manifest, _ = drawn_steps(STORED, (5, 24), steps=1)
    still = replace(STORED, train=replace(STORED.train, learning_rate=0.0))
    ways = make_ways(still, manifest, batches, ["reference", "visualbert"])
    losses = {name: float(way()) for name, way in ways.items()}
    assert losses["reference"] == pytest.approx(losses["kaleido_fast"], rel=1e-5)
    assert losses["visualbert"] == pytest.approx(losses["kaleido_fast"], rel=0.02)


def test_visualbert_reads_what_it_is_shown() -> None:
    """Words behind a text's end change nothing; a word and a patch change the outputs that our heads read."""
    batches, manifest, _ = drawn_steps(STORED, (5, 10), steps=1)
    step, batch = make_ways(STORED, manifest, batches, ["visualbert"])["visualbert"].module.eval(), batches[0]
    plan = step.plan_of(batch)
    rows = batch.encoded.read(plan.rotation, plan.grey_slots)

    @torch.no_grad()
    def pooled(tokens: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return step.model.encode(tokens, batch.lengths, batch.host.lengths, rows, plan.source).pooled

    tokens, other = plan.masked_tokens, plan.masked_tokens.clone()
    other[:, 10:] = 7
    assert torch.equal(pooled(tokens, rows), pooled(other, rows))
    other[:, 1] = 7
    assert not torch.equal(pooled(tokens, rows), pooled(other, rows))
    assert not torch.equal(pooled(tokens, rows), pooled(tokens, rows + 1))


@pytest.mark.parametrize(("against", "message"), [
    (["visualbart"], "--against visualbart: unknown; known are reference, visualbert, visualbert-compiled, ours-"),
    (["visualbert"], "--against visualbert needs the package transformers, not found"),
])
def test_baselines_that_cannot_run_are_named(against: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaleido_fast.bench.ways.importlib.util.find_spec", lambda name: None)
    batches, manifest, _ = drawn_steps(SMALL, steps=1)
    with pytest.raises(ValueError, match=message):
        make_ways(SMALL, manifest, batches, against)


def test_lengths_are_those_asked_for() -> None:
    found = drawn_lengths(SMALL, 4000, (12, 16))
    assert set(found) == {12, 13, 14, 15, 16}
    catalogue = drawn_lengths(replace(SMALL, data=DataSettings(max_tokens=128)), 4000)
    assert np.median(catalogue) == pytest.approx(55, abs=1.5) and catalogue.min() >= 6
    with pytest.raises(ValueError, match="texts of 12 to 99 tokens must lie in 3..data.max_tokens=24"):
        drawn_lengths(SMALL, 4, (12, 99))


def test_padding_adds_rows_and_nothing_else() -> None:
    batches, manifest, _ = drawn_steps(STORED, (6, 8), steps=1)
    step = OwnSteps(STORED, manifest, batches).module.eval()
    short = with_its_plan(step, batches[0])
    long = padded_to(short, 24)
    rows = step.count(short)
    assert step.count(long) == rows == step.count(batches[0])
    flops = [step_flops(STORED.model, STORED.kaleido, manifest.vocabulary.size, one.host.lengths, rows)
             for one in (short, long)]
    assert flops[1].heads == flops[0].heads and flops[1].encoder > flops[0].encoder
    with torch.no_grad():
        found, expected = (step(one, rows, rows, None) for one in (short, batches[0]))
    torch.testing.assert_close(found.loss, expected.loss)


def test_packing_is_compared_with_its_flops() -> None:
    found = bench_packing(STORED, rounds=2, between=(6, 8))
    assert 1 < found["flop_ratio"] < 79 / 61 and found["share"] == pytest.approx(found["speed_ratio"] / found["flop_ratio"])
