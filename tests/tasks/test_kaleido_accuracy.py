"""Accuracies of the kaleido tasks: against the training losses, and what dropping other levels must do."""

import dataclasses

import pytest
import torch

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.patches import Pixels
from kaleido_fast.kernels.tasks import TaskRule
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.kaleido_tasks import plan_rules
from kaleido_fast.model.settings import KaleidoSettings
from kaleido_fast.tasks.kaleido_accuracy import measure_kaleido_tasks
from kaleido_fast.training.step import PretrainStep

RULES = plan_rules(KaleidoSettings(), mask_id=4, ordinary_first=5, ordinary_last=90)
SEED = 7


def _part(batch: Batch, first: int, last: int) -> Batch:
    def cut(record):
        return {
            f.name: getattr(record, f.name)[first:last]
            for f in dataclasses.fields(record)
            if f.name not in ("host", "patches") and getattr(record, f.name) is not None
        }

    return Batch(Pixels(batch.images[first:last]), **cut(batch), host=type(batch.host)(**cut(batch.host)))


@torch.no_grad()
def test_equals_the_training_step(tiny_model: KaleidoBertModel, matched_batch: Batch) -> None:
    """The step sums over packed heads by another route; its sums over its rows are the same means."""
    step = PretrainStep(tiny_model, RULES, SEED, {}, ()).eval()
    rows = step.count(matched_batch)
    result = step(matched_batch, rows, rows, None)
    measured = measure_kaleido_tasks(tiny_model, [matched_batch], RULES, SEED)["tasks"]
    for task in tiny_model.tasks:
        source = result.correct if task.num_classes else result.loss_sums
        assert measured[task.name] == pytest.approx(float(source[task.name]) / rows[task.name], rel=1e-5), (
            task.name
        )


def test_batches_are_averaged_by_rows(tiny_model: KaleidoBertModel, matched_batch: Batch) -> None:
    parts = [_part(matched_batch, 0, 16), _part(matched_batch, 16, 32)]
    whole = measure_kaleido_tasks(tiny_model, [matched_batch], RULES, SEED)
    split = measure_kaleido_tasks(tiny_model, parts, RULES, SEED)
    assert whole["tasks_samples"] == split["tasks_samples"] == 30
    for key in ("tasks", "tasks_level_alone"):
        assert whole[key] == pytest.approx(split[key], rel=1e-5)


def test_a_level_alone_sees_no_other_level(
    tiny_model: KaleidoBertModel, matched_batch: Batch, monkeypatch
) -> None:
    """Noise in every other level's features leaves the figures of the level alone as they were."""
    before = measure_kaleido_tasks(tiny_model, [matched_batch], RULES, SEED)
    noise = 3 * torch.randn(32, 57, tiny_model.patch_encoder.num_features, generator=torch.Generator().manual_seed(3))
    spans = {
        "rotation": (0, 1),
        "jigsaw": (1, 5),
        "camouflage": (5, 14),
        "grey_to_color": (14, 30),
        "blank_to_color": (30, 55),
    }
    real = KaleidoBertModel.features_and_targets
    for name, (first, last) in spans.items():
        kept = torch.zeros(57, dtype=torch.bool)
        kept[first:last] = True
        kept[55:] = name == "grey_to_color"
        monkeypatch.setattr(
            tiny_model,
            "features_and_targets",
            lambda *inputs, kept=kept: [torch.where(kept[:, None], x, noise) for x in real(tiny_model, *inputs)],
        )
        after = measure_kaleido_tasks(tiny_model, [matched_batch], RULES, SEED)
        assert after["tasks_level_alone"][name] == before["tasks_level_alone"][name], name
        others = [other for other in spans if other != name]
        assert any(
            after["tasks_level_alone"][other] != before["tasks_level_alone"][other] for other in others
        )


def test_heads_that_know_the_answer_score_one(
    tiny_model: KaleidoBertModel, matched_batch: Batch, monkeypatch
) -> None:
    """A level head that reads the answer off the plan reaches 1: no row is compared with another's label."""
    from kaleido_fast.tasks import kaleido_accuracy

    drawn = []
    real = kaleido_accuracy.plan
    monkeypatch.setattr(kaleido_accuracy, "plan", lambda *inputs: drawn.append(real(*inputs)) or drawn[-1])

    class Oracle(torch.nn.Module):
        def __init__(self, rule: TaskRule) -> None:
            super().__init__()
            self.rule = rule

        def forward(self, outputs: torch.Tensor) -> torch.Tensor:
            label = drawn[-1].part(self.rule).label.long().clamp(min=0)
            return torch.nn.functional.one_hot(label, self.rule.num_classes).float()

    for task in tiny_model.tasks:
        if task.num_classes:
            monkeypatch.setitem(tiny_model.kaleido_heads._modules, task.name, Oracle(task.rule))
    measured = measure_kaleido_tasks(tiny_model, [matched_batch], RULES, SEED)
    for name in ("rotation", "jigsaw", "camouflage"):
        assert measured["tasks"][name] == measured["tasks_level_alone"][name] == 1.0
