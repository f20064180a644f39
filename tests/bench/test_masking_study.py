"""Runs with guided and with random masking are measured alike, and compared only where the masking alone differs."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import masking_study as program, render as page
from kaleido_fast.bench.masking_comparison import masking_study, paired_difference
from kaleido_fast.bench.masking_runs import FinishedRun, check_arms, read_finished_run
from kaleido_fast.config import load_config, load_run_config
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.shards.split import Split
from kaleido_fast.model.weights import load_weights
from kaleido_fast.training.build import build_step
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.validation import PretrainValidation
from kaleido_fast.training.workers.group import Workers
from tests.small import small_config

TWO_STEPS = ("train.steps=2", "train.validate_every=9", "model.heads=2", "eval.batch_photographs=16")


def direction(r1: float, r10: float) -> dict:
    return {"R@1": r1, "R@5": 0.2, "R@10": r10, "R@100": 1.0, "queries": 20, "candidates": 40, "draws": 1}


@pytest.fixture(scope="module")
def runs(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run an arm, and what `evaluate` would have left beside it; read only."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for arm, alignment, r1 in (("random", "none", 0.05), ("guided", "truth", 0.10)):
        out = folder / arm
        assert pretrain(small_config(tiny_shards, out, *TWO_STEPS, f"data.alignment={alignment}")) == 0
        (out / "eval.json").write_text(json.dumps({
            "checkpoint": "step-00000002", "split": "test", "itr": direction(r1, 0.3), "tir": direction(0.05, 0.4)}))
        found[arm] = out
    return found


def finished(run: Path) -> FinishedRun:
    return read_finished_run(run, load_run_config(run))


@pytest.fixture(scope="module")
def study(runs: dict[str, Path]) -> dict:
    return masking_study({arm: [finished(run)] for arm, run in runs.items()}, "truth")


def changed(run: Path, out: Path, *replaced: tuple[str, str, str]) -> Path:
    """A copy of a run with texts of its files replaced."""
    shutil.copytree(run, out)
    for name, old, new in replaced:
        text = (out / name).read_text()
        assert old in text
        (out / name).write_text(text.replace(old, new))
    return out


def test_every_run_is_measured_under_both_plans(study: dict) -> None:
    for arm in ("random", "guided"):
        (run,) = study["runs"][arm]
        measures = run["measures"]
        for loss in ("amlm", "itm", "rotation", "jigsaw", "camouflage", "grey_to_color", "blank_to_color"):
            assert measures[f"own/{loss}_loss"] == measures[f"{arm}/{loss}_loss"] > 0
        assert measures["random/amlm_loss"] != measures["guided/amlm_loss"]
        assert measures["random/blank_to_color_loss"] != measures["guided/blank_to_color_loss"]
        assert measures["random/rotation_loss"] != measures["guided/rotation_loss"]  # the rest of the sequence differs
        assert 0 <= measures["guided/itm_accuracy"] <= 1
        assert run["samples"] == 32 and 0 < run["minutes"] < 1 and run["folder"] == arm and run["seed"] == 0


def test_what_is_told_of_the_study(study: dict) -> None:
    about = study["about"]
    assert about["seeds"] == [0] and about["queries"] == 20 and about["chance"] == {"R@1": 1 / 40, "R@10": 10 / 40}
    assert 0.5 < about["guided_share"] <= 1 and about["samples"] > 0
    assert study["difference"]["itr/R@1"]["mean"] == pytest.approx(0.05)
    assert {one["verdict"] for one in study["difference"].values()} == {"underpowered"}  # one seed
    assert study["arms"]["guided"]["itr/R@1"] == {"mean": 0.10, "min": 0.10, "max": 0.10}


def test_losses_are_those_of_validation_on_the_same_samples(runs: dict[str, Path], study: dict, tiny_shards: Path) -> None:
    """The random run's own plan on the test split, by the code that validates a run in training."""
    config = load_config(runs["random"] / "config.yaml", ["train.validation_samples=10000"])
    split = Split.open(tiny_shards, "test")
    step = build_step(config, split.manifest)
    step.model.load_state_dict(load_weights(runs["random"] / "checkpoints" / "step-00000002" / "weights").state_dict())

    class Plain(SimpleNamespace):
        def __call__(self, *inputs):
            return self.module(*inputs)

    found = PretrainValidation(Plain(module=step), config, FromPhotographs(split), Workers(0, 1), {}).measure()
    measures = study["runs"]["random"][0]["measures"]
    for task, value in found["losses"].items():
        assert task == "total" or measures[f"random/{task}_loss"] == pytest.approx(value, rel=1e-5)


def test_differences_are_paired_by_seed() -> None:
    random, guided = ([{"x": value} for value in values] for values in ((1.0, 2.0, 3.0), (0.5, 1.6, 2.4)))
    found = paired_difference(random, guided)["x"]  # -0.5, -0.4, -0.6: mean -0.5, standard error 0.1 / sqrt(3)
    assert found["mean"] == pytest.approx(-0.5) and found["standard_error"] == pytest.approx(0.0577350)
    assert found["interval"] == pytest.approx([-0.748428, -0.251572], abs=1e-5) and found["verdict"] == "differs"
    assert paired_difference(random, list(reversed(guided)))["x"]["verdict"] == "underpowered"
    assert paired_difference(random[:1], guided[:1])["x"]["standard_error"] is None


def test_the_command_writes_what_the_page_shows(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--alignment", "truth", "--samples", "16", "--out", str(tmp_path / "masking.json")]
    arms = [word for arm in ("random", "guided") for word in ("--arm", arm, str(runs[arm]))]
    assert program.main([*arms, *arguments]) == 0
    assert "seeds [0], 16 samples" in capsys.readouterr().out
    text = page.render(tmp_path).split("## Guided against random masking on a real catalogue")[1].split("\n## ")[0]
    assert "| ITR R@1 | 5.0% (5.0% to 5.0%) | 10.0% (10.0% to 10.0%) | +5.0% | | underpowered |" in text
    assert "| AMLM loss, random masking |" in text and "16 samples" in text and str(tmp_path) not in text
    assert program.main([*arms[:3], *arguments]) == 2
    assert "give both arms" in capsys.readouterr().err
    assert program.main(["--arm", "random", str(runs["guided"]), "--arm", "guided", str(runs["random"]), *arguments]) == 2
    assert "the random arm takes runs with" in capsys.readouterr().err


def test_runs_that_differ_in_more_are_refused(runs: dict[str, Path], tmp_path: Path, tiny_shards: Path) -> None:
    random, guided = runs["random"], runs["guided"]

    def refuses(reason: str, ours: Path, theirs: Path, alignment: str = "truth", shards: Path = tiny_shards) -> None:
        with pytest.raises(ValueError, match=reason):
            check_arms({"random": [finished(ours)], "guided": [finished(theirs)]}, alignment, shards)

    seed = ("config.yaml", "seed: 0\n  task", "seed: 1\n  task")
    refuses("random arm takes runs with data.alignment=none", guided, random)
    refuses("guided arm takes runs with data.alignment=other", random, guided, alignment="other")
    refuses("train.seed: the random runs have \\[0\\], the guided ones \\[1\\]", random, changed(guided, tmp_path / "a", seed))
    refuses("train.learning_rate=0.002 but .* has 0.0012", random,
            changed(guided, tmp_path / "b", ("config.yaml", "learning_rate: 0.0012", "learning_rate: 0.002")))
    refuses("samples a step=32 but .* has 16", random,
            changed(guided, tmp_path / "c", ("summary.json", '"samples_per_step": 16', '"samples_per_step": 32')))
    refuses("eval.json's itr.queries=30 but .* has 20", random,
            changed(guided, tmp_path / "d", ("eval.json", '"queries": 20', '"queries": 30')))
    trained = json.loads((guided / "summary.json").read_text())["progress"]["shards"]
    refuses("was not trained on .* give the shards that it was trained on", random,
            changed(guided, tmp_path / "e", ("summary.json", f'"shards": "{trained}"', '"shards": "0"')))
    refuses("not done, 16 samples seen", random,
            changed(guided, tmp_path / "f", ("summary.json", '"position": 32', '"position": 16')))
    refuses("eval.json is of step-00000001 on split 'test', needed is step-00000002", random,
            changed(guided, tmp_path / "g", ("eval.json", "step-00000002", "step-00000001")))
    with pytest.raises(ValueError, match="not a run"):
        finished(tmp_path)
