"""Model FLOPs are those of the products that run: torch's counter over a whole forward and backward agrees to the last one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kaleido_fast.bench.flops import Contrasting, expected_rows, patch_flops, step_flops
from kaleido_fast.config import Config
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings
from kaleido_fast.parity.drawn_batch import batch_of
from kaleido_fast.training.build import build_step
from kaleido_fast.training.settings import RunSettings, TrainSettings

# Dropout on attention, so that it runs as products that the counter knows, and not as one operator.
MODEL = ModelSettings(hidden=32, layers=2, heads=2, intermediate=48, dropout=0.0, attention_dropout=0.1)
KALEIDO = KaleidoSettings(patch_size=8)


def drawn(model: ModelSettings, kaleido: KaleidoSettings) -> tuple:
    train = TrainSettings(micro_batch=16, itc_block=16, task_weights={"itc": 2.0} if model.itc_dim else {})
    config = Config(data=DataSettings(image_size=60, max_tokens=24), kaleido=kaleido, model=model, train=train,
                    run=RunSettings(device="cpu"))
    batch, manifest = batch_of(config, torch.device("cpu"))
    return build_step(config, manifest), batch, manifest.vocabulary


def added_product(total: tuple, left: tuple, right: tuple, **_: object) -> int:
    """FLOPs of addmm_, which torch's counter leaves out."""
    return 2 * left[0] * left[1] * right[1]


@pytest.mark.parametrize(("model", "kaleido"), [
    (MODEL, KALEIDO), (replace(MODEL, patch_encoder="linear", patch_features=40), KALEIDO),
    (MODEL, replace(KALEIDO, grids=(1, 2, 3, 4), tasks=("rotation", "grey_to_color"))),
    (replace(MODEL, patch_encoder="none", features="stored", patch_features=20), KALEIDO),
    (replace(MODEL, itc_dim=12), KALEIDO), (replace(MODEL, itc_dim=12), replace(KALEIDO, tasks=("jigsaw",))),
    (replace(MODEL, itc_dim=12, patch_encoder="linear", patch_features=40), KALEIDO),
])
def test_a_step_counts_what_runs(model: ModelSettings, kaleido: KaleidoSettings) -> None:
    step, batch, words = drawn(model, kaleido)
    rows = step.count(batch)
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: added_product})
    with counter, sdpa_kernel(SDPBackend.MATH):
        step(batch, rows, rows, None).loss.backward()
    contrast = Contrasting(batch.own_texts.lengths_host, 16) if batch.own_texts else None
    ours = step_flops(model, kaleido, words.size, batch.host.lengths, rows, contrast)
    padding = 6 * rows["amlm"] * model.hidden * (words.padded_size - words.size)  # of the word table; multiplied too
    assert counter.get_total_flops() - ours.model - ours.patch_encoder in (0, padding)


def test_the_patch_encoders_are_known_sizes() -> None:
    """ResNet-50 is known to take 4.09 G multiply-adds at 224 x 224 with its classifier of 2048 x 1000."""
    found = patch_flops(replace(MODEL, patch_encoder="resnet50"), replace(KALEIDO, patch_size=224))
    assert found / 2 + 2048 * 1000 == pytest.approx(4.09e9, rel=1e-3)
    assert patch_flops(MODEL, KALEIDO) == 2 * 3 * 8 * 8 * 192


def test_a_store_leaves_no_patch_encoder_in_the_step() -> None:
    lengths = np.full(16, 20)
    rows = expected_rows(KALEIDO, ("rotation",), lengths)
    computed = step_flops(MODEL, KALEIDO, 100, lengths, rows)
    stored = step_flops(replace(MODEL, features="stored"), KALEIDO, 100, lengths, rows)
    assert computed.patch_encoder == 16 * 57 * 2 * 3 * 8 * 8 * 192 and stored.patch_encoder == 0
    assert stored.model == computed.model


def test_expected_rows_are_those_of_a_long_run() -> None:
    step, batch, _ = drawn(MODEL, KALEIDO)
    host = replace(batch.host, present=np.ones(16, bool), match=np.arange(16) % 2 == 0, lengths=np.full(16, 22, np.int32))
    assert expected_rows(KALEIDO, step.on_mismatched, host.lengths) == step.count(replace(batch, host=host))


def test_base_takes_what_is_known_of_bert_base() -> None:
    """12 layers of 7.08 M weights, six FLOPs a weight and row, and a tenth for attention and heads."""
    base, kaleido = ModelSettings(), KaleidoSettings(patch_size=224)
    lengths = np.full(16, 64)
    model = replace(base, patch_encoder="resnet50", features="stored")
    found = step_flops(model, kaleido, 30522, lengths, expected_rows(kaleido, ("rotation", "jigsaw", "camouflage"), lengths))
    dense = 6 * 12 * (4 * 768**2 + 2 * 768 * 3072) * 16 * (64 + 55)
    assert 1.0 < found.model / dense < 1.12
