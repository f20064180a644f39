"""A sixth task, added from outside by a row of the table: it is planned, trained, measured and drawn like the five.

By the plain way and by the fast one; and the fast one by the references of the operators and by their Triton kernels,
interpreted, which must agree.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kaleido_fast.config import build_config
from kaleido_fast.data.batches.patches import ReadyRows
from kaleido_fast.data.shards.split import Split
from kaleido_fast.kernels import cut as cut_module, embed as embed_module, plan as plan_module, softmax_kl as kl_module
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.model.kaleido_tasks import active_tasks, stored_rows
from kaleido_fast.model.settings import KaleidoSettings
from kaleido_fast.model.task_table import TASKS, KaleidoTask, draw_of
from kaleido_fast.report.html import write_report
from kaleido_fast.report.kaleido_panels import TaskPanels, caption
from kaleido_fast.tasks.evaluate import evaluate_run
from kaleido_fast.tasks.kaleido_accuracy import measure_kaleido_tasks
from kaleido_fast.tasks.measures import MEASURES
from kaleido_fast.training.engine import build_optimizer
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.stores.open import open_source
from tests.kernels.interpreter import interpreted
from tests.reference.test_against_fast_path import build, far, run
from tests.small import small_config

NAME = "blank_nine"
ON = ["rotation", "blank_to_color", "grey_to_color", NAME]
SMALL = {  # two blank tasks; sizes that an interpreted kernel is done with in seconds
    "data": {"image_size": 24, "max_tokens": 6},
    "kaleido": {"grids": [1, 2, 3, 4], "patch_size": 8, "tasks": ON, "blank_grid": 2, "num_blank": 1},
    "model": {"hidden": 8, "layers": 1, "heads": 2, "intermediate": 16, "dropout": 0.0, "initializer_range": 0.2,
              "max_positions": 8},
    "train": {"micro_batch": 16, "learning_rate": 1e-2, "clip_norm": 0.0}, "run": {"device": "cpu"},
}
KERNELS = (  # on a CPU an operator calls its reference; the kernel that takes its place
    (plan_module, "plan_reference", "plan_triton"), (cut_module, "cut_reference", "cut_triton"),
    (embed_module, "embed_reference", "embed_triton"), (embed_module, "embed_backward_reference", "embed_backward_triton"),
    (kl_module, "softmax_kl_reference", "softmax_kl_triton"),
)


@pytest.fixture(autouse=True)
def sixth_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a further task needs."""
    monkeypatch.setitem(TASKS, NAME, KaleidoTask(NAME, 3, "blank", 2))


@dataclass
class Seen:
    """What two steps, a measurement and a figure gave."""

    plan: Plan
    losses: list[dict[str, float]]
    measured: dict[str, float]
    panel: list[Tensor | None]
    caption: str


def _train_measure_and_draw() -> Seen:
    config = build_config(SMALL)
    step, batch = build(config, torch.float32)
    drawn, images, losses = step.plan_of(batch), batch.images, []
    batch = replace(batch, plan=drawn, patches=ReadyRows(step.model.features(images, drawn)))  # frozen: cut once
    optimizer, rows = build_optimizer(step, config.train), step.count(batch)
    for _ in range(2):
        result = step.train()(batch, rows, rows, None)
        result.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append({name: float(value) for name, value in result.loss_sums.items()})
    measured = measure_kaleido_tasks(step.model.eval(), [batch], step.rules, config.train.seed)
    first, task = drawn.map(lambda tensor: tensor[:1]), step.model.tasks[-1]
    panel = TaskPanels(images[:1], first, config.kaleido).changed(0, task)
    return Seen(drawn, losses, measured["tasks"], panel.patches, caption(first, 0, task))


@pytest.mark.slow
def test_references_and_interpreted_kernels_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _train_measure_and_draw()
    for module, reference, kernel in KERNELS:
        monkeypatch.setattr(module, reference, getattr(interpreted(kernel), kernel))
    ours = _train_measure_and_draw()
    assert all(torch.equal(a, b) for a, b in zip(ours.plan.tensors, plain.plan.tensors, strict=True))
    for one, other in zip(ours.losses, plain.losses, strict=True):
        assert one == pytest.approx(other, rel=1e-4) and set(one) == {"amlm", "itm", *ON}
    assert plain.losses[1][NAME] < plain.losses[0][NAME]
    assert ours.measured == pytest.approx(plain.measured, rel=1e-4) and set(ours.measured) == set(ON)
    blank = {slot for slot, patch in enumerate(plain.panel) if patch is None}
    assert len(blank) == 2 and ours.caption == plain.caption == f"blank nine\nslots {', '.join(map(str, sorted(blank)))} blank"
    for one, other in zip(ours.panel, plain.panel, strict=True):
        assert one is other is None or torch.allclose(one, other, atol=1e-5)


def test_the_plain_path_computes_the_same() -> None:
    """Losses, gradients and ten steps in float64, as of the five (tests/reference/test_against_fast_path.py)."""
    config = build_config(SMALL)
    step, batch = build(config)
    fast, plain = run(config, step, batch)
    for name in ("plan", "rows"):
        assert torch.equal(fast.seen[name], plain.seen[name])
    assert f"loss {NAME}" in plain.seen and f"logits {NAME}" in plain.seen
    losses = {name for name in plain.seen if name.startswith(("loss", "logits"))}
    assert not far({name: fast.seen[name] for name in losses}, {name: plain.seen[name] for name in losses})
    assert f"kaleido_heads.{NAME}.weight" in plain.gradients and not far(fast.gradients, plain.gradients)


def test_a_run_trains_measures_reports_and_explains_it(tiny_shards: Path, tmp_path: Path) -> None:
    """By the verbs' functions, with camouflage off: its level is taken."""
    out, tasks = tmp_path / "run", "kaleido.tasks=[rotation, jigsaw, grey_to_color, blank_to_color, blank_nine]"
    config = small_config(tiny_shards, out, tasks, "train.steps=4", "train.validate_every=2", "eval.queries=4",
                          "eval.kaleido_samples=16", "eval.probe_train=40", "eval.probe_test=20", "eval.examples=0")
    assert pretrain(config) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    trained = [line["losses"] for line in lines if "losses" in line]
    assert len(trained) == 4 and all(NAME in losses and "camouflage" not in losses for losses in trained)
    measured = evaluate_run(out, config, {"kaleido_tasks": MEASURES["kaleido_tasks"]})
    assert 0 < measured["tasks"][NAME] and 0 < measured["tasks_level_alone"][NAME]
    write_report(out)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "blank nine" in page and page.count("data:image/png") > 6  # six products' figures, and curves


def test_its_level_has_room_for_one_task() -> None:
    message = f"kaleido.tasks: camouflage and {NAME} both change the patches of grid 3; a grid has one task, take one out"
    with pytest.raises(ValueError, match=message):
        build_config(SMALL | {"kaleido": SMALL["kaleido"] | {"tasks": [*ON, "camouflage"]}})


def test_further_tasks_draw_in_the_order_of_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """From index 2 of the sample's stream on; what draws nothing takes none, and what is off keeps its own."""
    for name, effect, count in (("turn_of_nine", "turn", 0), ("grey_of_nine", "grey", 1), ("swap_of_nine", "swap", 1)):
        monkeypatch.setitem(TASKS, name, KaleidoTask(name, 3, effect, count))
    assert {name: draw_of(name) for name in TASKS if draw_of(name)} == {"turn_of_nine": 2, "swap_of_nine": 3}
    settings = KaleidoSettings(tasks=("rotation", "swap_of_nine"))
    assert [(task.name, task.rule.draw) for task in active_tasks(settings)] == [("rotation", 0), ("swap_of_nine", 3)]


@pytest.mark.parametrize(("task", "message"), [
    (KaleidoTask("turn_of_nine", 3, "turn"), "kaleido.tasks: turn_of_nine turns the patches of grid 3, a feature store holds "
     "turns of grid 1 alone; set model.features=computed or take it out of kaleido.tasks"),
    (KaleidoTask("grey_of_nine", 3, "grey", 2), "no store of this shard there; run 'kaleido-fast encode'"),
])
def test_a_store_covers_what_it_can(
    task: KaleidoTask, message: str, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, task.name, task)
    config = small_config(tiny_shards, tmp_path, "model.features=stored", f"data.store={tmp_path}",
                          f"kaleido.tasks=[rotation, {task.name}]")
    with pytest.raises(ValueError, match=message):
        open_source(config, Split.open(tiny_shards, "train"))
    assert stored_rows(config.kaleido).num_rows == 74 + (9 if task.effect == "grey" else 0)
