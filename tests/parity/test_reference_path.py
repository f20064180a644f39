"""The plain path (padded, no operators) against the authors' numbers; no array is left out."""

import pytest
import torch
from torch.nn.functional import softmax

import kaleido_fast.reference.encoder as encoder
import kaleido_fast.reference.losses as losses
from tests.parity.golden_cases import CASES, Case, check_forward, check_gradients, check_predict, check_steps, group, read
from tests.parity.reference_path import ReferencePath

SMALL = Case("small", "fp32")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward(case: Case) -> None:
    check_forward(ReferencePath(case), case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients(case: Case) -> None:
    check_gradients(ReferencePath(case), case)


@pytest.mark.parametrize("case", [SMALL, Case("small_b1", "fp32")], ids=str)
def test_predict(case: Case) -> None:
    check_predict(ReferencePath(case), case)


def test_four_steps_of_their_adam_and_schedule() -> None:
    check_steps(ReferencePath(SMALL), SMALL)


@pytest.mark.parametrize("name", ["kld_blank_clip", "kld_blank_plain", "kld_grey_joint_clip", "kld_grey_joint_plain"])
def test_colour_losses_at_their_edges(name: str) -> None:
    expected = {key: torch.from_numpy(value) for key, value in group(read("units"), f"{name}/").items()}
    logits = expected["logits"].clone().requires_grad_()
    joint = "joint" in name
    shape = (-1, 2 if joint else 1, logits.shape[-1])
    loss = losses.divergence(logits.view(shape), expected["target"].view(shape), joint=joint, clip=True).mean()
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected["loss"].view(()), rtol=1e-5, atol=0)
    torch.testing.assert_close(logits.grad, expected["dlogits"], rtol=0, atol=1e-4 * float(expected["dlogits"].abs().max()))


def test_breaks_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mask, another softmax, other colour targets, another LayerNorm: each is seen where it should be."""
    for owner, name, other, where in (
        (encoder, "MASKED", 0.0, "encoder/layer_0/self_attention"),
        (encoder, "softmax", lambda x, dim: softmax(1.01 * x, dim=dim), "encoder/layer_0/self_attention"),
        (losses, "at_slots", lambda level, slots: level[:, : slots.shape[1]], "losses/blankmask"),
    ):
        with monkeypatch.context() as patch, pytest.raises(AssertionError, match=where):
            patch.setattr(owner, name, other)
            check_forward(ReferencePath(SMALL), SMALL)
    path = ReferencePath(SMALL)
    path.model.encoder.layers[0].attention_norm.eps = 1e-3
    with pytest.raises(AssertionError, match="encoder/layer_0/attention_output"):
        check_forward(path, SMALL)
