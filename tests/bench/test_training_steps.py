"""Steps on fixed micro-batches: they train, say what they did, and stand beside other ways on the same batches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kaleido_fast.bench.batches import CatalogueTexts, drawn_lengths
from kaleido_fast.bench.flops import step_flops
from kaleido_fast.bench.packing import bench_packing, padded_to, with_its_plan
from kaleido_fast.bench.step_shape import Shape
from kaleido_fast.bench.training_steps import Measuring, bench_steps, drawn_steps
from kaleido_fast.bench.training_table import steps_text
from kaleido_fast.bench.training_ways import OurSteps, check_ways, other_ways, our_steps, without_contrast
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import Split
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
    found = bench_steps(shape, manifest, batches, Measuring(rounds=1, tflops=0.01, profiled=int(shape is SMALL)))
    assert len(batches) == 4 and "5 to 24 tokens" in said
    assert found["last_loss"] < found["first_loss"]
    assert found["samples"] == 64 and 64 * (5 + 55) <= found["packed_rows"] <= 64 * (24 + 55)
    assert found["samples_per_s"] * found["ways"]["kaleido_fast"]["median_ms"] == pytest.approx(32_000)
    assert found["utilisation"] == pytest.approx(found["gflops_a_sample"] * found["samples_per_s"] / 0.01 / 1e3)
    assert (found["patch_gflops_a_sample"] > 0) == (shape is SMALL)
    assert found["peak_gib"] > 0.05
    if shape is SMALL:
        assert found["profile"][0]["ms_a_step"] >= found["profile"][-1]["ms_a_step"] > 0


def test_all_ways_have_the_losses_of_the_same_rows() -> None:
    """The plain path has our weights; VisualBERT's are its own, and each of its losses is near that of guessing, as ours."""
    batches, manifest, _ = drawn_steps(STORED, (5, 24), steps=1)
    still = replace(STORED, train=replace(STORED.train, learning_rate=0.0))
    ours = our_steps(still, manifest, batches)
    losses = {name: float(way()) for name, way in other_ways(
        still, manifest, batches, ours, ["reference", "visualbert"]).items()}
    assert losses["reference"] == pytest.approx(float(ours()), rel=1e-5)
    assert losses["visualbert"] == pytest.approx(float(ours()), rel=0.02)


def test_with_contrast_the_step_without_it_stands_beside() -> None:
    """Noise has own texts; features are computed, of a store, or ready."""
    for model in (SMALL.model, STORED.model, replace(STORED.model, patch_encoder="none", patch_features=20)):
        shape = replace(SMALL, model=replace(model, itc_dim=8),
                        train=replace(SMALL.train, itc_block=16, task_weights={"itc": 2.0}))
        batches, manifest, _ = drawn_steps(shape, (5, 24), steps=1)
        before, _, _ = drawn_steps(without_contrast(shape), (5, 24), steps=1)
        assert torch.equal(before[0].tokens, batches[0].tokens) and before[0].own_texts is None
        ours = our_steps(shape, manifest, batches)
        ways = other_ways(shape, manifest, batches, ours, ["reference", "ours-without-itc"])
        batch, counted = batches[1], ours.count(batches[1])
        losses = [way.loss(batch, counted, counted, 0).item() for way in (ours, ways["reference"])]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
        assert "itc" in ours.count(batches[0]) and "itc" not in ways["ours-without-itc"].count(batches[0])
    measured = bench_steps(shape, manifest, batches, Measuring(rounds=1, tflops=0.01))
    assert set(measured["ways"]) == {"kaleido_fast", "ours-without-itc"}
    assert measured["times_without_itc"] == pytest.approx(1 / measured["ways"]["ours-without-itc"]["times_ours"])
    assert measured["packed_rows"] == sum(
        int(batch.lengths.sum()) + int(batch.own_texts.lengths.sum()) + 16 * (55 + 2 + 55) for batch in batches)
    words = measured | {"attention": "sdpa", "texts": "drawn"}
    assert f"contrast (itc): {measured['times_without_itc']:.2f} times the step without it" in steps_text(words)


def test_visualbert_shows_the_heads_the_rows_that_they_read() -> None:
    """Without layers a row is what it was embedded from: patches know no words, words no patches."""
    flat = replace(STORED, model=replace(STORED.model, layers=0))
    batches, manifest, _ = drawn_steps(flat, (5, 10), steps=1)
    step = other_ways(flat, manifest, batches, our_steps(flat, manifest, batches), ["visualbert"])["visualbert"].module.eval()
    batch, model = batches[0], step.model
    plan = step.plan_of(batch)
    rows, _ = batch.patches.features_and_targets(model, plan)

    @torch.no_grad()
    def seen(tokens: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = model.encode(tokens, batch.lengths, batch.host.lengths, rows, plan.source)
        masked = {"amlm": plan.masked_positions} | {
            task.name: plan.part(task.rule).slots for task in model.tasks if not task.num_classes}
        read = model.read_by_heads(found, plan, dict.fromkeys(masked, batch.present),
                                   {name: int((places >= 0).sum()) for name, places in masked.items()})
        return read["amlm"], torch.cat([read[task.name].flatten(0, 1) for task in model.tasks if task.num_classes])

    words, classes = seen(plan.masked_tokens, rows)
    same, other = seen(plan.masked_tokens, rows + 1)
    assert torch.equal(words, same) and not torch.isclose(classes, other).all(dim=-1).any()
    other, same = seen(plan.masked_tokens + 1, rows)
    assert torch.equal(classes, same) and not torch.isclose(words, other).all(dim=-1).any()


def test_visualbert_refuses_contrast() -> None:
    batches, manifest, _ = drawn_steps(STORED, (5, 10), steps=1)
    ours = our_steps(STORED, manifest, batches)
    step = other_ways(STORED, manifest, batches, ours, ["visualbert"])["visualbert"].module
    with pytest.raises(ValueError, match="VisualBERT has no contrast; leave itc out of train.task_weights to compare"):
        step.model.encode(batches[0].tokens, batches[0].lengths, (), None, None, alone=())


@pytest.mark.parametrize(("against", "message"), [
    ("visualbart", "against=visualbart: unknown; known are reference, visualbert, visualbert-compiled, ours-eager"),
    ("visualbert", "against=visualbert needs transformers, not found"),
    ("ours-xformers", "against=ours-xformers needs xformers, not found"),
])
def test_ways_that_cannot_run_are_named(against: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaleido_fast.bench.training_ways.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=message):
        check_ways([against])


def test_micro_batches_are_whole_steps() -> None:
    batches, manifest, _ = drawn_steps(SMALL, steps=1)
    with pytest.raises(ValueError, match="1 micro-batches must be a multiple of train.accumulation=2"):
        our_steps(SMALL, manifest, batches[:1])


def test_lengths_are_those_asked_for() -> None:
    found = drawn_lengths(SMALL, 4000, (12, 16))
    assert set(found) == {12, 13, 14, 15, 16}
    catalogue = drawn_lengths(replace(SMALL, data=DataSettings(max_tokens=128)), 4000)
    assert np.median(catalogue) == pytest.approx(55, abs=1.5) and catalogue.min() >= 6
    assert drawn_lengths(SMALL, 400).max() == 24
    with pytest.raises(ValueError, match="texts of 12 to 99 tokens must lie in 3..data.max_tokens=24"):
        drawn_lengths(SMALL, 4, (12, 99))


def test_texts_are_those_of_the_shards(tiny_shards: Path) -> None:
    split = Split.open(tiny_shards, "train")
    texts = CatalogueTexts.of(split)
    tokens = split.rows(np.arange(split.num_samples))["num_tokens"] + 2
    assert set(texts.lengths(500, 99)) <= set(tokens.tolist()) and texts.lengths(500, 10).max() == 10
    batches, manifest, said = drawn_steps(STORED, steps=1, texts=texts)
    assert manifest.vocabulary == split.manifest.vocabulary
    assert said.startswith(f"of {split.num_samples:,} samples of a catalogue")
    assert int(batches[0].tokens.max()) < manifest.vocabulary.size


def test_padding_adds_rows_and_nothing_else() -> None:
    batches, manifest, _ = drawn_steps(STORED, (6, 8), steps=1)
    step = OurSteps(STORED, manifest, batches).module.eval()
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
