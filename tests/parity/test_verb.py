"""`kaleido-fast parity`: what it prints, when it fails, what it refuses."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kaleido_fast.cli import main
from kaleido_fast.config import load_config
from kaleido_fast.kernels import embed
from kaleido_fast.model.attention import packed
from kaleido_fast.model.counts import RowCounter
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.parity.bounds import Kind, bounds_of
from kaleido_fast.parity.compare import EVERY, Comparison, Trace, differ, strayed
from kaleido_fast.training import step as training_step
from kaleido_fast.verbs import parity_config
from tests.places import DEMO
from tests.small import WITHOUT_CONTRAST

TINY = ["data.image_size=60", "data.max_tokens=12", "kaleido.patch_size=8", "model.hidden=24", "model.heads=3",
        "model.layers=1", "model.intermediate=40", "train.micro_batch=16", *WITHOUT_CONTRAST]
Patch = pytest.MonkeyPatch


def lines_of(text: str) -> dict[str, str]:
    """Lines of the table by quantity."""
    return {line.split("  ")[0]: line for line in text.splitlines() if "  " in line}


def test_every_quantity_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parity", *TINY]) == 0
    out = capsys.readouterr().out
    losses = ("itm", "amlm", "rotation", "jigsaw", "camouflage", "grey_to_color", "blank_to_color")
    wanted = {"plan", "rows", "features", "embeddings", "encoder output", "pooled", "loss", "loss, ten steps",
              "weights, step 1", "weights, step 10", "gradient embeddings.word", "gradient encoder.layers.0",
              "gradient itm"}
    assert wanted | {f"{part} {name}" for part in ("logits", "loss") for name in losses} <= lines_of(out).keys()
    assert "all within their bounds" in out and "16 samples of drawn data" in out and "PAST" not in out


@pytest.mark.slow
def test_contrast_is_compared_in_the_shape_of_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    """A tiny model's embeddings lie so close together that the gradient of their cosines is rounding."""
    assert main(["parity", "train.micro_batch=16", "train.itc_block=16"]) == 0
    wanted = {"contrast photographs", "contrast texts", "loss itc", "gradient contrast"}
    assert wanted <= lines_of(capsys.readouterr().out).keys()


def test_bf16_is_held_against_what_eager_errs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parity", str(DEMO), *TINY, "train.precision=bf16", "device=cpu"]) == 0
    lines = lines_of(capsys.readouterr().out)
    head, row = lines["quantity"], lines["encoder output"]
    assert head.split() == ["quantity", "size", "difference", "bound", "plain"]
    difference, bound, plain = (float(cell) for cell in row.split()[3:6])
    assert 1e-4 < difference <= bound and bound == pytest.approx(2 * plain + 2 * torch.finfo(torch.bfloat16).eps, rel=0.05)


def test_on_shards(tiny_shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parity", *TINY, f"data.shards={tiny_shards}", "data.alignment=truth"]) == 0
    assert f"16 samples of {tiny_shards}" in capsys.readouterr().out


def test_the_authors_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """Features are drawn where there is no patch encoder."""
    assert main(["parity", str(DEMO.with_name("authors.yaml")), *TINY, "device=cpu", "model.dropout=0",
                 "model.attention_dropout=0", "model.patch_features=20"]) == 0
    assert "features" not in lines_of(capsys.readouterr().out)


def wrong_epsilon(patch: Patch) -> None:
    patch.setattr(embed, "EPS", 1e-3)


def wrong_scale(patch: Patch) -> None:
    inner = packed.flash_forward
    patch.setattr(packed, "flash_forward", lambda q, k, v: inner(q, k, v, scale=0.36))


def one_row_too_many(patch: Patch) -> None:
    count = RowCounter.count

    def wrong(self: RowCounter, **batch: Any) -> dict[str, int]:
        rows = count(self, **batch)
        return rows | {"amlm": rows["amlm"] + 1}

    patch.setattr(RowCounter, "count", wrong)


def everything_decays(patch: Patch) -> None:
    groups = training_step.parameter_groups
    patch.setattr("kaleido_fast.training.engine.parameter_groups", lambda module, decay, **options: [
        group | {"weight_decay": decay} for group in groups(module, decay, **options)])


def not_a_number(patch: Patch) -> None:
    patch.setattr(KaleidoBertModel, "itm_logits", lambda self, pooled: self.itm(pooled * math.nan))


@pytest.mark.parametrize(("spoil", "quantity", "first"), [
    (wrong_epsilon, "embeddings", True), (wrong_scale, "encoder output", True), (one_row_too_many, "rows", True),
    (everything_decays, "weights, step 1", False), (not_a_number, "logits itm", False),
])
def test_a_broken_fast_path_ends_with_code_1(
    spoil: Callable[[Patch], None], quantity: str, first: bool, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch)
    assert main(["parity", *TINY, "train.weight_decay=1"]) == 1
    out = capsys.readouterr().out
    past = [name for name, line in lines_of(out).items() if "PAST ITS BOUND" in line]
    assert quantity in past and (past[0] == quantity or not first)
    assert out.splitlines()[-1].startswith(f"{len(past)} of ") and quantity in out.splitlines()[-1]


@pytest.mark.parametrize(("arguments", "message"), [
    (["model.dropout=0.1"], "model.dropout=0.1, model.attention_dropout=0: the two paths drop different values"),
    (["model.attention=varlen"], "model.attention=varlen needs a CUDA device, found run.device=cpu"),
    (["train.learning_rat=1"], "did you mean 'train.learning_rate'"),
    (["none.yaml"], "none.yaml: no such config file"),
    (["train.micro_batch=5"], "train.micro_batch=5 must be a positive multiple of 16"),
    (["data.shards=none"], "none: no manifest.json there"),
    (["device=tpu"], "run.device: expected"),
])
def test_what_cannot_be_compared_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["parity", *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors and len(errors.splitlines()) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize(("arguments", "message"), [
    (["device=cuda"], "run.device=cuda needs a CUDA device, none found; set run.device=cpu"),
    (["device=cuda", "model.attention=varlen"], "model.attention=varlen computes in 16 bit; give train.precision=bf16"),
])
def test_cuda_is_not_assumed(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parity", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.parametrize("more", [
    [], ["train.precision=bf16", "model.attention=varlen"],
    ["train.precision=bf16", "model.attention=varlen", "model.compile=true"],
    ["model.attention=xformers"], ["train.precision=bf16", "model.attention=xformers", "model.compile=true"],
])
def test_on_a_gpu(more: list[str]) -> None:
    if "model.attention=xformers" in more:
        pytest.importorskip("xformers", reason="needs xformers (extra gpu), not installed")
    assert main(["parity", "device=cuda", "model.hidden=128", "model.heads=2", *more]) == 0


def test_without_a_config_it_is_the_demo() -> None:
    own, demo = parity_config([]), load_config(DEMO)
    assert (own.model, own.kaleido, own.run.device) == (demo.model, demo.kaleido, demo.run.device)
    for section, keys in (("train", ("micro_batch", "itc_block", "learning_rate", "betas", "weight_decay", "task_weights",
                                     "precision")),
                          ("data", ("image_size", "max_tokens"))):
        assert all(getattr(getattr(own, section), key) == getattr(getattr(demo, section), key) for key in keys)


def test_differences_are_relative_and_a_nan_never_holds() -> None:
    truth = torch.tensor([1.0, -4.0])
    assert differ(torch.tensor([1.0, -3.0]), truth) == (4.0, 0.25)
    assert differ(torch.zeros(2), torch.zeros(2)) == (0.0, 0.0)
    assert differ(torch.ones(2), torch.zeros(2)) == (0.0, math.inf)
    assert differ(torch.zeros(0), torch.zeros(0)) == (0.0, 0.0)
    row = Comparison("x", "", 1.0, math.nan, 1.0, None)
    worse = dataclasses.replace(row, difference=2.0)
    assert not row.holds and not worse.holds and row.used == math.inf and worse.used == 2.0
    assert differ(torch.zeros(3), truth) == (4.0, math.inf)


def test_weights_are_compared_by_how_far_they_went() -> None:
    """Back and forth counts in full; key biases do not count."""
    def after(weights: list[float], way: float) -> Trace:
        name, start = "query_key_value.bias", torch.zeros(3)
        return Trace({name: start}, {}, {}, {10: {name: torch.tensor(weights)}}, {10: {name: way}}, torch.zeros(10))

    truth = after([0.1, 5.0, 0.1], way=2.0)
    found = after([0.1, -5.0, 0.3], way=9.0)
    assert strayed(found, truth, "query_key_value.bias", 10) == (2.0, pytest.approx(0.05))
    for trace, way, shift in ((found, 9.0, 1.0), (truth, 1.0, 0.0)):  # a second tensor, apart by all of its way
        trace.start["itm.bias"], trace.weights[10]["itm.bias"] = torch.zeros(2), torch.full((2,), shift)
        trace.ways[10]["itm.bias"] = way
    assert strayed(found, truth, EVERY, 10) == (1.5, pytest.approx(0.525))


def test_bounds_follow_the_dtype() -> None:
    fp32, bf16 = bounds_of(torch.float32), bounds_of(torch.bfloat16)
    assert fp32.of(Kind.EXACT, None) == 0 and bf16.of(Kind.EXACT, 0.1) == 0
    assert fp32.of(Kind.FORWARD, None) == 64 * 2**-23
    assert bf16.of(Kind.FORWARD, 0.01) == 0.02 + 2 * 2**-7 and bf16.of(Kind.FORWARD, 1.0) == 16 * 2**-7
    assert bf16.of(Kind.MOVEMENT, 0.5) == 1 + 2 * 2**-7
