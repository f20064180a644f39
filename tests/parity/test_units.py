"""Single functions at their edges, as the authors' code has them: kaleido_bert_units.npz."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kaleido_fast.kernels.embed import embed
from kaleido_fast.model.color_loss import color_loss
from kaleido_fast.model.encoder import activate
from kaleido_fast.model.losses import loss_scales
from kaleido_fast.training.authors_adam import AuthorsAdam
from kaleido_fast.training.schedule import learning_rate
from kaleido_fast.training.step import parameter_groups
from tests.parity.fast_path import FastPath, golden_batch
from tests.parity.golden_cases import ACTIVATION, GRADIENT, Case, Wanted, check, group, read

KL_UNITS = {"kld_blank_clip": 1, "kld_blank_plain": 1, "kld_grey_joint_clip": 2, "kld_grey_joint_plain": 2}


def unit(name: str) -> dict[str, np.ndarray]:
    return group(read("units"), f"{name}/")


def hold(found: Mapping[str, Tensor | np.ndarray], expected: dict[str, np.ndarray], bound: float = ACTIVATION) -> None:
    """Compare each of `found` with the array of its name."""
    arrays = {name: value.detach().numpy() if isinstance(value, Tensor) else value for name, value in found.items()}
    check(arrays, {name: Wanted(expected[name], bound) for name in arrays})


def leaf(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.copy()).requires_grad_()


@pytest.mark.parametrize("name", KL_UNITS)
def test_clipped_and_joint_kl(name: str) -> None:
    expected = unit(name)
    logits, target = leaf(expected["logits"]), torch.from_numpy(expected["target"])
    loss = color_loss(logits, target.view(logits.shape), clip=True, num_joined=KL_UNITS[name]).mean()
    loss.backward()
    hold({"loss": loss, "dlogits": logits.grad}, expected)


@pytest.mark.parametrize("name", ["kld_blank_plain", "kld_grey_joint_plain"])
def test_where_nothing_is_clipped_clipping_changes_nothing(name: str) -> None:
    expected = unit(name)
    logits, target = leaf(expected["logits"]), torch.from_numpy(expected["target"])
    loss = color_loss(logits, target.view(logits.shape), num_joined=KL_UNITS[name]).mean()
    loss.backward()
    hold({"loss": loss, "dlogits": logits.grad}, expected)


@pytest.mark.parametrize("name", ["kld_blank_clip", "kld_grey_joint_clip"])
def test_a_missing_clip_is_caught(name: str) -> None:
    expected = unit(name)
    logits, target = leaf(expected["logits"]), torch.from_numpy(expected["target"])
    loss = color_loss(logits, target.view(logits.shape), num_joined=KL_UNITS[name]).mean()
    loss.backward()
    for found in ({"loss": loss}, {"dlogits": logits.grad}):
        with pytest.raises(AssertionError, match="1 of 1 arrays differ"):
            hold(found, expected)


def test_a_perfect_prediction_under_the_joint_softmax_scores_below_zero() -> None:
    expected = unit("kld_grey_joint_plain")
    target = torch.from_numpy(expected["target"]).view(4, 96)
    loss = color_loss(target, target, clip=True, num_joined=2).mean()
    hold({"loss_of_perfect_prediction": loss}, expected)
    assert float(loss) < -0.3


@pytest.mark.parametrize("name", ["mlm_no_weight", "mlm_small_weights"])
def test_masked_words_are_divided_by_their_number_and_a_little(name: str) -> None:
    expected = unit(name)
    logits, weights = leaf(expected["logits"]), torch.from_numpy(expected["weights"]).flatten()
    entropy = cross_entropy(logits, torch.from_numpy(expected["ids"]).flatten(), reduction="none")
    loss = (weights * entropy).sum() * loss_scales({"amlm": float(weights.sum())}, {}, 1e-5)["amlm"]
    loss.backward()
    hold({"loss": loss, "dlogits": logits.grad}, expected)


def test_a_missing_epsilon_is_caught() -> None:
    expected = unit("mlm_small_weights")
    weights = torch.from_numpy(expected["weights"]).flatten()
    logits, ids = torch.from_numpy(expected["logits"]), torch.from_numpy(expected["ids"]).flatten()
    mean = (weights * cross_entropy(logits, ids, reduction="none")).sum() / weights.sum()
    with pytest.raises(AssertionError, match="loss by"):
        hold({"loss": mean}, expected)


def test_gelu() -> None:
    expected = unit("gelu")
    x = leaf(expected["x"])
    y = activate(x, "gelu_tanh")
    y.sum().backward()
    hold({"y": y, "dydx": x.grad}, expected)


def test_layer_norm_of_the_encoder() -> None:
    expected = unit("layer_norm")
    norm, x = FastPath(Case("small", "fp32")).model.encoder.layers[0].output_norm, leaf(expected["x"])
    norm.load_state_dict({"weight": torch.from_numpy(expected["gamma"]), "bias": torch.from_numpy(expected["beta"])})
    y = norm(x)
    y.backward(torch.from_numpy(expected["dy"]))
    hold({"y": y, "dx": x.grad, "dgamma": norm.weight.grad, "dbeta": norm.bias.grad}, expected)


def test_layer_norm_of_the_embeddings() -> None:
    expected = unit("layer_norm")
    x, gamma, beta = leaf(expected["x"]), leaf(expected["gamma"]), leaf(expected["beta"])
    zeros, key = torch.zeros(5, 64), torch.zeros(3, dtype=torch.int64)
    y, _ = embed(torch.arange(5, dtype=torch.int32)[None], torch.tensor([5], dtype=torch.int32), 5, zeros[:0],
                 torch.zeros(1, 0, dtype=torch.int32), zeros[:0], x, zeros, zeros[0], gamma[None], beta[None], grids=[],
                 dropout=0.0, dropout_key=key)
    y.backward(torch.from_numpy(expected["dy"]))
    hold({"y": y, "dx": x.grad, "dgamma": gamma.grad, "dbeta": beta.grad}, expected)


@pytest.mark.parametrize("name", ["lr_50683", "lr_20", "lr_9_no_warmup"])
def test_schedule(name: str) -> None:
    expected = unit(name)
    total, base = int(expected["train_steps"]), float(expected["base"])
    rates = [learning_rate(int(step), total, base=base, warmup_steps=int(0.1 * total), schedule="authors")
             for step in expected["step"]]
    hold({"lr": np.array(rates)}, expected, 1e-6)


class Decaying(nn.Module):
    """The model of `adam_decay`."""

    norm_parameters = ("norm",)

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.word = nn.Parameter(torch.from_numpy(weights["embeddings/word_embeddings"].copy()))
        self.kernel = nn.Parameter(torch.from_numpy(weights["dense/kernel"].copy()))
        self.bias = nn.Parameter(torch.from_numpy(weights["dense/bias"].copy()))
        self.norm = nn.Parameter(torch.from_numpy(weights["LayerNorm/gamma"].copy()))

    def loss(self, ids: Tensor, target: Tensor) -> Tensor:
        return (((self.word[ids] @ self.kernel + self.bias) * self.norm - target) ** 2).sum()

    def theirs(self) -> dict[str, Tensor]:
        return {"embeddings/word_embeddings": self.word, "dense/kernel": self.kernel, "dense/bias": self.bias,
                "LayerNorm/gamma": self.norm}


def test_adam_with_decay() -> None:
    """Their optimizer for weight decay; the norm it clips by counts a word's repeated rows apart (their quirk), so the
    gradients are clipped by the stored one."""
    expected = unit("adam_decay")
    model = Decaying(group(expected, "weights/"))
    ids, target = torch.from_numpy(expected["ids"]), torch.from_numpy(expected["target"])
    groups = parameter_groups(model, 0.1, vectors_decay=True)
    optimizer = AuthorsAdam(groups, max_norm=0.0, lr=0.01, betas=(0.9, 0.999), eps=1e-6)
    for t in (1, 2, 3):
        step = group(expected, f"steps/{t}/")
        optimizer.zero_grad()
        model.loss(ids, target).backward()
        hold({f"gradients/{name}": value.grad for name, value in model.theirs().items()}, step, GRADIENT)
        rate = learning_rate(t - 1, 10, base=0.01, warmup_steps=0, schedule="authors")
        hold({"lr": np.array(rate)}, step)
        for settings in optimizer.param_groups:
            settings["lr"] = rate
        for parameter in model.parameters():
            parameter.grad /= max(float(step["global_norm"]), 1.0)
        optimizer.step()
        hold({f"weights/{name}": value for name, value in model.theirs().items()}, step)


def test_the_norm_of_a_fine_tuning_gradient() -> None:
    """Matching alone. Ours is the norm of the gradient; theirs counts the rows of a repeated word apart, which we do not."""
    case = Case("small", "fp32")
    path, batch = FastPath(case), golden_batch(case)
    encoded = path.encode(batch)
    cross_entropy(path.model.itm_logits(encoded.pooled), batch.match.long()).backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in path.model.parameters() if p.grad is not None])
    expected = unit("itm_only")
    hold({"global_norm_of_summed_gradients": norm}, expected)
    assert abs(float(norm) - float(expected["global_norm_as_clipped"])) > 1e-3
