"""The plain path against the fast path in float64: what both define is the same, whatever the batch holds."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from kaleido_fast.config import Config, build_config
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.patches import ReadyRows
from kaleido_fast.model.task_table import TASKS
from kaleido_fast.parity.compare import COMPARED_STEPS, Trace, strayed, trace
from kaleido_fast.parity.drawn_batch import batch_of
from kaleido_fast.parity.paths import FastPath, ReferencePath, trained
from kaleido_fast.parity.run import reference_of, spread_norms_and_biases
from kaleido_fast.reference.optimizer import reference_parameter_groups
from kaleido_fast.reference.weights import from_fast, parts_of, to_fast
from kaleido_fast.training.build import build_step
from kaleido_fast.training.step import PretrainStep, parameter_groups

CPU = torch.device("cpu")
NAMES = tuple(TASKS)
RELATIVE = 1e-10
# Without clipping: the fast optimizers take the divisor in fp32.
BASE: dict[str, Any] = {
    "data": {"image_size": 60, "max_tokens": 12}, "kaleido": {"patch_size": 8},
    "model": {"hidden": 24, "layers": 2, "heads": 3, "intermediate": 40, "dropout": 0.0, "initializer_range": 0.1,
              "max_positions": 16},
    "train": {"micro_batch": 32, "learning_rate": 1e-3, "weight_decay": 0.01, "clip_norm": 0.0, "seed": 3},
    "run": {"device": "cpu"},
}
AUTHORS = {"reference": {"kl_clip": True, "joint_grey_softmax": True, "amlm_epsilon": 1e-5},
           "train": {"losses_on_mismatched": ["amlm", *NAMES]}, "model": {"locations": "pixels"}}


def config_of(change: dict[str, dict[str, Any]]) -> Config:
    values = {name: BASE.get(name, {}) | change.get(name, {}) for name in {*BASE, *change}}
    return build_config(values)


def build(config: Config, dtype: torch.dtype = torch.float64) -> tuple[PretrainStep, Batch]:
    batch, manifest = batch_of(config, CPU)
    torch.manual_seed(config.train.seed)
    step = build_step(config, manifest)
    spread_norms_and_biases(step.model)
    return step.to(dtype), batch


def run(config: Config, step: PretrainStep, batch: Batch) -> tuple[Trace, Trace]:
    names = list(trained(step.model))
    plain = trace(ReferencePath(reference_of(step, config), batch, config.train, names), CPU, bf16=False)
    return trace(FastPath(step, batch, config.train), CPU, bf16=False), plain


def far(found: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> dict[str, float]:
    """Differences past the bound, relative to the tensor's largest magnitude."""
    assert found.keys() == truth.keys()
    for name, value in truth.items():
        assert found[name].shape == value.shape and found[name].dtype == value.dtype, name
    differences = {name: float((found[name] - value).abs().max()) for name, value in truth.items() if value.numel()}
    return {name: difference for name, difference in differences.items()
            if not difference <= RELATIVE * float(truth[name].abs().max())}


@dataclass(frozen=True)
class Case:
    name: str
    change: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


CASES = (
    Case("ragged, holes, mismatches"),
    Case("one group", {"train": {"micro_batch": 16}}),
    Case("four groups", {"train": {"micro_batch": 64}}),
    Case("authors", AUTHORS),
    Case("fixed scale", {"data": {"image_size": 64}, "kaleido": {
        "grids": [8], "tasks": ["blank_to_color"], "num_blank": 6, "blank_grid": 8}}),
    Case("no tasks, exact GELU", {"kaleido": {"tasks": []}, "model": {"activation": "gelu_erf"}}),
    Case("two tasks, weighted", {"kaleido": {"tasks": ["jigsaw", "grey_to_color"], "num_grey": 5, "max_masked_tokens": 2},
                                 "train": {"task_weights": {"jigsaw": 0.3, "amlm": 2.0}}}),
    Case("levels out of order", {"kaleido": {"grids": [3, 1, 5, 4, 2], "masking": "random"}}),
    Case("nothing masked", {"kaleido": {"max_masked_tokens": 0}}),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_gradients_and_ten_steps(case: Case) -> None:
    config = config_of(case.change)
    step, batch = build(config)
    fast, plain = run(config, step, batch)
    assert {name for name in plain.seen if name.startswith("loss ")} == {f"loss {name}" for name in step.count(batch)}
    floating = {name for name, value in plain.seen.items() if value.is_floating_point() and name != "features"}
    assert not far({name: fast.seen[name] for name in floating}, {name: plain.seen[name] for name in floating})
    for name in ("plan", "rows", "features"):
        assert torch.equal(fast.seen[name], plain.seen[name]), name
    assert not far(fast.gradients, plain.gradients)
    assert not far(fast.weights[COMPARED_STEPS], plain.weights[COMPARED_STEPS])
    assert not far({"": fast.losses}, {"": plain.losses})
    assert not torch.equal(plain.weights[COMPARED_STEPS]["pooler.weight"], plain.start["pooler.weight"])


@pytest.mark.parametrize("optimizer", ["adamw", "authors"])
def test_clipped_steps_in_fp32(optimizer: str) -> None:
    config = config_of({"train": {"clip_norm": 0.5, "optimizer": optimizer, "weight_decay": 0.1, "eps": 1e-6}})
    fast, plain = run(config, *build(config, torch.float32))
    for steps, bound in ((1, 1e-4), (COMPARED_STEPS, 1e-3)):
        for name in plain.start:
            way, apart = strayed(fast, plain, name, steps)
            assert way > 0 and apart <= bound, f"{name} after {steps}"


@pytest.mark.parametrize("authors", [False, True])
def test_the_same_parameters_decay(authors: bool) -> None:
    config = config_of({})
    step, _ = build(config)
    plain = reference_of(step, config).model
    fast_names = {id(p): name for name, p in step.model.named_parameters()}
    plain_names = {id(p): name for name, p in plain.named_parameters()}
    ours, theirs = (groups(model, 0.1, **option) for groups, model, option in (
        (parameter_groups, step.model, {"vectors_decay": authors}), (reference_parameter_groups, plain, {"authors": authors})))
    for fast_group, plain_group in zip(ours, theirs, strict=True):
        assert fast_group["weight_decay"] == plain_group["weight_decay"]
        parts = [part for p in fast_group["params"] for part in parts_of(fast_names[id(p)], 5)]
        assert sorted(parts) == sorted(plain_names[id(p)] for p in plain_group["params"])


def test_weights_there_and_back() -> None:
    state = build(config_of({}))[0].model.state_dict()
    plain = from_fast(state)
    assert len(plain) > len(state)
    again = to_fast(plain, state)
    assert list(again) == list(state) and all(torch.equal(again[name], value) for name, value in state.items())


def test_own_locations_and_ready_features() -> None:
    """A batch may bring features and each sample's own locations, as the authors' files do."""
    config = config_of({})
    step, batch = build(config)
    plan = step.plan_of(batch)
    with torch.no_grad():
        features = step.model.features(batch.images, plan).double()
    locations = torch.from_numpy(np.random.default_rng(0).random((32, 55, 5)))
    ready = dataclasses.replace(batch, patches=ReadyRows(features, locations))
    fast, plain = run(config, step, ready)
    assert "features" not in plain.seen
    assert not far({"": fast.seen["embeddings"]}, {"": plain.seen["embeddings"]})
    assert not far(fast.gradients, plain.gradients)
    assert not torch.equal(plain.seen["embeddings"], run(config, build(config)[0], batch)[1].seen["embeddings"])


def test_a_trained_patch_encoder_learns_alike() -> None:
    """In fp32: its features are rounded to that on their way."""
    config = config_of({"model": {"patch_encoder": "linear", "patch_features": 20}})
    fast, plain = run(config, *build(config, torch.float32))
    found, truth = (trace.gradients["patch_encoder.projection.weight"] for trace in (fast, plain))
    assert truth.any()
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-4 * float(truth.abs().max()))


def test_accumulated_parts_divide_by_the_rows_of_the_step() -> None:
    config = config_of({"train": {"micro_batch": 32}})
    step, batch = build(config)
    rows = step.count(batch)
    double = {name: 2 * count for name, count in rows.items()}
    part, whole = (reference_of(step, config)(batch, counted) for counted in (double, None))
    assert part.loss.item() == pytest.approx(step(batch, rows, double, None).loss.item(), rel=1e-12)
    assert part.loss.item() == pytest.approx(whole.loss.item() / 2, rel=1e-12)


def test_dropout_is_the_plain_paths_own() -> None:
    config = config_of({"model": {"dropout": 0.2, "attention_dropout": 0.2}})
    step, batch = build(config)
    plain = reference_of(step, config)
    losses = [plain.train()(batch).loss.item() for _ in range(2)] + [plain.eval()(batch).loss.item() for _ in range(2)]
    assert losses[0] != losses[1] and losses[2] == losses[3]
