"""Each comparison can fail: a difference an implementation might well have is caught, where it should be."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kaleido_fast.config import Config
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.patches import ReadyRows
from kaleido_fast.kernels import embed
from kaleido_fast.model import encoder, heads, losses
from kaleido_fast.model.attention import packed
from tests.parity import fast_path
from tests.parity.fast_path import FastPath
from tests.parity.golden_cases import Case, check_forward, check_gradients, check_steps

SMALL = Case("small", "fp32")
Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Break:
    """A change, and the array that must show it."""

    shown_in: str  # part of an array's name
    change: Callable[[Config], Config] = lambda config: config
    edit: Callable[[Batch], Batch] = lambda batch: batch
    spoil: Callable[[FastPath], None] = lambda path: None
    patch: Callable[[Patch], None] = lambda monkeypatch: None


def section(name: str, **values: Any) -> Callable[[Config], Config]:
    return lambda config: replace(config, **{name: replace(getattr(config, name), **values)})


def plan(**values: Callable[[Batch], Tensor]) -> Callable[[Batch], Batch]:
    return lambda batch: replace(batch, plan=batch.plan._replace(**{name: of(batch) for name, of in values.items()}))


def patches(**values: Callable[[ReadyRows], Tensor]) -> Callable[[Batch], Batch]:
    return lambda batch: replace(
        batch, patches=replace(batch.patches, **{name: of(batch.patches) for name, of in values.items()}))


def unblanked(batch: Batch) -> Tensor:
    samples, rows, _ = batch.patches.features.shape
    own = torch.arange(samples)[:, None] * rows + torch.arange(55)
    return torch.where(batch.plan.source < 0, own, batch.plan.source).int()


def sorted_greys(batch: Batch) -> Tensor:
    camouflage, grey, blank = batch.plan.slots.split([1, 2, 3], dim=1)
    return torch.cat([camouflage, grey.sort(dim=1)[0], blank], dim=1)


def earlier_type_rows(path: FastPath) -> None:
    """Level k's segment row from row k - 1 of its table."""
    scope = "kaleido_bert_pre_trained_model/bert/"
    names = ("rotation_embeddings/rotation", "jigsaw_embeddings/jigsaw", "camouflage_embeddings/camouflage",
             "greymask_embeddings/greymask", "blank_embeddings/blankmask")
    for level, name in enumerate(names):
        rows = torch.from_numpy(SMALL.weights[f"{scope}{name}_type_embeddings"])
        path.model.embeddings.level_segment.data[level] = rows[level]


def swap(path: FastPath, first: slice, second: slice) -> None:
    for tensor in path.model.encoder.layers[0].query_key_value.parameters():
        tensor.data[first], tensor.data[second] = tensor.data[second].clone(), tensor.data[first].clone()


def later_places(path: FastPath) -> None:
    path.model.embeddings.position.data = path.model.embeddings.position.data.roll(-1, dims=0)


def scaled_by(factor: float) -> Callable[[Patch], None]:
    inner = packed.flash_forward
    return lambda monkeypatch: monkeypatch.setattr(packed, "flash_forward", lambda q, k, v: inner(q, k, v, scale=factor))


def whole_batch_attends(monkeypatch: Patch) -> None:
    inner = encoder.packed_attention
    monkeypatch.setattr(encoder, "packed_attention", lambda qkv, cumulative, longest, lengths, **options: inner(
        qkv, cumulative[[0, -1]], sum(lengths), [sum(lengths)], **options))


def reversed_kl(monkeypatch: Patch) -> None:
    inner = losses.color_loss
    monkeypatch.setattr(losses, "color_loss", lambda prediction, target, **options: inner(target, prediction, **options))


def untied_decoder(monkeypatch: Patch) -> None:
    inner = heads.WordHead.forward
    monkeypatch.setattr(heads.WordHead, "forward", lambda self, rows, words, labels: inner(self, rows, words.detach(), labels))


def later_rate(monkeypatch: Patch) -> None:
    inner = fast_path.learning_rate
    monkeypatch.setattr(fast_path, "learning_rate", lambda step, *rest, **options: inner(step + 1, *rest, **options))


FORWARD = {
    "exact GELU": Break("encoder/layer_0/output", section("model", activation="gelu_erf")),
    "LayerNorm epsilon 1e-5 in encoder and heads": Break("logits/mlm", section("model", layer_norm_eps=1e-5)),
    "LayerNorm epsilon 1e-5 in the embeddings": Break(
        "embedding_output", patch=lambda monkeypatch: monkeypatch.setattr(embed, "EPS", 1e-5)),
    "type row k - 1": Break("embeddings/jigsaw", spoil=earlier_type_rows),
    "places counted from 1": Break("embeddings/text", spoil=later_places),
    "query and key swapped": Break("layer_0/self_attention", spoil=lambda path: swap(path, slice(0, 64), slice(64, 128))),
    "key and value swapped": Break("layer_0/self_attention", spoil=lambda path: swap(path, slice(64, 128), slice(128, 192))),
    "grey softmax by patch": Break("losses/greymask", section("reference", joint_grey_softmax=False)),
    "reversed KL": Break("losses/blankmask", patch=reversed_kl),
    "losses on matched pairs alone": Break("losses/mlm", section("train", losses_on_mismatched=())),
    "no blanking": Break("embeddings/blankmask", edit=plan(source=unblanked)),
    "sorted grey slots": Break("logits/greymask", edit=plan(slots=sorted_greys)),
    "grey targets in the greyed features' place": Break(
        "embeddings/greymask", edit=patches(features=lambda ready: ready.features.roll(1, dims=1))),
    "x2 and y1 swapped": Break(
        "embeddings/camouflage", edit=patches(locations=lambda ready: ready.locations[..., [0, 2, 1, 3, 4]])),
    "locations of the grids": Break("embeddings/rotation", edit=patches(locations=lambda ready: None)),
    "scale 1/d": Break("layer_0/self_attention", patch=scaled_by(1 / 16)),
    "no mask between samples": Break("layer_0/self_attention", patch=whole_batch_attends),
}
GRADIENTS = {
    "decoder not tied in the backward": Break("bert/embeddings/word_embeddings", patch=untied_decoder),
    "exact GELU": Break("intermediate/dense/kernel", section("model", activation="gelu_erf")),
    "grey softmax by patch": Break("greymask_output_weights", section("reference", joint_grey_softmax=False)),
}
STEPS = {
    "torch's Adam": Break("steps/4/weights", section("train", optimizer="adamw")),
    "epsilon 1e-8": Break("steps/4/weights", section("train", eps=1e-8)),
    "beta2 0.999": Break("steps/4/adam_v", section("train", betas=(0.9, 0.999))),
    "no clipping": Break("steps/4/adam_m", section("train", clip_norm=0.0)),
    "weight decay 0.5": Break("steps/4/weights", section("train", weight_decay=0.5)),
    "learning rate a step ahead": Break("steps/2/weights", patch=later_rate),
}


@pytest.mark.parametrize(
    ("check", "broken"),
    [pytest.param(check, broken, id=f"{check.__name__.removeprefix('check_')}: {name}") for check, breaks in (
        (check_forward, FORWARD), (check_gradients, GRADIENTS), (check_steps, STEPS)) for name, broken in breaks.items()],
)
def test_a_break_is_caught(check: Callable, broken: Break, monkeypatch: Patch) -> None:
    broken.patch(monkeypatch)
    path = FastPath(SMALL, broken.change, broken.edit)
    broken.spoil(path)
    more = {"absent": FastPath.absent} if check is check_forward else {}
    with pytest.raises(AssertionError) as caught:
        check(path, SMALL, **more)
    message = str(caught.value)
    assert "arrays differ" in message and any(broken.shown_in in part for part in message.split("; ")), message[:600]


def test_an_answer_that_is_missing_or_of_another_shape_is_caught() -> None:
    path = FastPath(SMALL)
    found = dict(path.forward(SMALL))
    del found["logits/itm"]
    found["logits/rotation"] = found["logits/rotation"][:, :3]
    found["logits/jigsaw"] = found["logits/jigsaw"] * float("nan")
    path.forward = lambda case: found
    with pytest.raises(AssertionError, match=r"3 of \d+ .*logits/itm is missing.*rotation is \(6, 3\), must be.*jigsaw by nan"):
        check_forward(path, SMALL, absent=FastPath.absent)
