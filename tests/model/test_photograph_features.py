"""All rows that a store holds, against what the step computes under every plan."""

import numpy as np
import torch

from kaleido_fast.data.store.row_format import pack_rows
from kaleido_fast.kernels.plan import clean_plan
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.kaleido_tasks import stored_rows
from kaleido_fast.model.photograph_features import encode_photographs
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from tests.data.store.plans import turned_and_greyed

SIDE = 60


def _model(**kaleido) -> KaleidoBertModel:
    torch.manual_seed(0)
    settings = ModelSettings(hidden=32, layers=1, heads=2, intermediate=64, initializer_range=0.2)
    return KaleidoBertModel(settings, KaleidoSettings(patch_size=12, **kaleido), VocabularySettings(91, 128), SIDE)


def _images(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_every_turn_and_every_pair_of_greys_is_what_the_step_computes() -> None:
    model, images = _model(), _images(16)
    stored = encode_photographs(model, images)
    packed = torch.from_numpy(pack_rows(stored.numpy(), "fp32"))
    slots = torch.arange(16, dtype=torch.int32)
    for turns in range(4):
        plan = turned_and_greyed(torch.full((16,), turns), torch.stack([slots, (slots + 1 + turns) % 16], dim=1))
        expected = model.features(images, plan)
        # the sums of a matrix product of another height may run in another order
        found = stored_rows(model.kaleido).read(packed, "fp32", plan)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert (stored[:, 55:58] - stored[:, :1]).abs().amax(dim=(1, 2)).min() > 0.1  # turned patches are others
    assert (stored[:, 58:] - stored[:, 14:30]).abs().amax(dim=(1, 2)).min() > 0.1  # so are greyed ones


def test_a_fixed_scale_stores_its_positions_alone() -> None:
    model = _model(grids=(8,), tasks=("blank_to_color",), blank_grid=8)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
    stored = encode_photographs(model, images)
    assert stored.shape[1] == stored_rows(model.kaleido).num_rows == 64
    assert torch.equal(stored, model.features(images, clean_plan(torch.zeros(2, 1, dtype=torch.int32), (8,))))
