"""A whole step on the device: the CPU's losses and gradients, and nothing that waits for the device."""

from collections.abc import Iterator

import pytest
import torch

from kaleido_fast.bench.batches import drawn_lengths, noise_batch
from kaleido_fast.bench.step_shape import Shape
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.kaleido_tasks import plan_rules
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.parity.drawn_batch import drawn_vocabulary
from kaleido_fast.training.settings import RunSettings
from kaleido_fast.training.step import ClippedAdamW, PretrainStep, parameter_groups

pytestmark = pytest.mark.gpu
SIDE, BASE_WIDTH = 60, 768  # the vocabulary is BERT-base's


def small_step(device: str) -> PretrainStep:
    torch.manual_seed(0)
    settings = ModelSettings(hidden=64, layers=2, heads=2, intermediate=128, dropout=0.0, initializer_range=0.05)
    kaleido = KaleidoSettings(patch_size=16)
    model = KaleidoBertModel(settings, kaleido, VocabularySettings(), SIDE)
    rules = plan_rules(kaleido, mask_id=103, ordinary_first=999, ordinary_last=30521)
    return PretrainStep(model, rules, 0, {}, ("rotation", "jigsaw", "camouflage")).to(device)


def batch_on(device: str) -> Batch:
    shape = Shape(DataSettings(image_size=SIDE, max_tokens=32), run=RunSettings(device=device))
    return noise_batch(shape, drawn_vocabulary(BASE_WIDTH), drawn_lengths(shape, 32, (16, 32)))


@pytest.fixture
def exact_products() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def test_losses_and_gradients_are_the_cpus(exact_products: None) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        step, batch = small_step(device), batch_on(device)
        rows = step.count(batch)
        result = step(batch, rows, rows, None)
        result.loss.backward()
        found[device] = (result.loss_sums, {name: p.grad.cpu() for name, p in step.named_parameters() if p.grad is not None})
    for name, value in found["cpu"][0].items():
        torch.testing.assert_close(found["cuda"][0][name].cpu(), value, rtol=1e-5, atol=0)
    assert found["cuda"][1].keys() == found["cpu"][1].keys()
    for name, value in found["cpu"][1].items():
        bound = 1e-4 * float(value.abs().max()) + 1e-7
        torch.testing.assert_close(
            found["cuda"][1][name], value, rtol=0, atol=bound, msg=lambda text, name=name: f"{name}: {text}",
        )


def test_nothing_in_a_step_waits_for_the_device() -> None:
    device = torch.device("cuda")
    step, batch = small_step("cuda"), batch_on("cuda")
    optimizer = ClippedAdamW(parameter_groups(step, 1e-4), max_norm=1.0, lr=1e-4)
    rows, key = step.count(batch), torch.zeros(3, dtype=torch.int64, device=device)

    def one() -> None:
        step(batch, rows, rows, key).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    one()  # kernels are compiled and state is made
    torch.cuda.set_sync_debug_mode("error")
    try:
        one()
    finally:
        torch.cuda.set_sync_debug_mode("default")
