"""The category heads of the authors' fine-tuning script, on the pooled output of a pass without blanks."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from kaleido_fast.authors.weights import SCOPE
from kaleido_fast.model.heads import CategoryHead
from tests.authors.variables import to_authors
from tests.parity.fast_path import FastPath
from tests.parity.golden_cases import ACTIVATION, GRADIENT, Case, Wanted, check, group, read


@pytest.mark.parametrize(("name", "classes"), [("catepred", 48), ("subcatepred", 122)])
def test_head_loss_and_gradients(name: str, classes: int) -> None:
    case, expected = Case("small", "fp32"), group(read("small_category"), f"{name}/")
    path, head = FastPath(case), CategoryHead(64, classes).eval()
    kernel, bias = (expected[f"weights/{name}_dense/{part}"] for part in ("kernel", "bias"))
    head.classify.load_state_dict({"weight": torch.from_numpy(kernel.T.copy()), "bias": torch.from_numpy(bias)})
    logits = head(path.pooled(case))
    loss = cross_entropy(logits, torch.from_numpy(expected["labels"]).flatten().long())
    loss.backward()
    grads = {key: torch.zeros_like(p) if p.grad is None else p.grad for key, p in path.model.named_parameters()}
    norm = torch.nn.utils.get_total_norm([*grads.values(), head.classify.weight.grad, head.classify.bias.grad])
    found = {f"gradients/{key}": value for key, value in to_authors(grads, path.model).items()}
    found |= {f"gradients/{name}_dense/kernel": head.classify.weight.grad.T.numpy(),
              f"gradients/{name}_dense/bias": head.classify.bias.grad.numpy(), "logits": logits.detach().numpy(),
              "loss": loss.detach().numpy(), "global_norm_of_summed_gradients": norm.numpy()}
    wanted = {key: Wanted(value, GRADIENT if key.startswith("gradients/") else ACTIVATION)
              for key, value in expected.items() if not key.startswith(("weights/", "labels", "global_norm_as_clipped"))}
    assert name != "catepred" or f"gradients/{SCOPE}bert/pooler/dense/kernel" in wanted
    check(found, wanted)


def test_dropout_is_a_tenth_in_training_alone() -> None:
    torch.manual_seed(0)
    head, pooled = CategoryHead(4000, 1), torch.ones(1, 4000)
    seen = {}
    head.classify.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    head(pooled)
    assert float((seen["x"] == 0).float().mean()) == pytest.approx(0.1, abs=0.02)
    assert np.allclose(seen["x"][seen["x"] > 0], 1 / 0.9)
    head.eval()(pooled)
    assert torch.equal(seen["x"], pooled)
