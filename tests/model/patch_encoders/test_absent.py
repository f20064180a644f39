"""none: it knows the width of features from elsewhere and makes none."""

import pytest
import torch

from kaleido_fast.kernels.plan import clean_plan
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings


def test_features_that_are_missing_are_said_to_be() -> None:
    settings = ModelSettings(hidden=8, layers=1, heads=2, intermediate=8, patch_encoder="none", patch_features=5)
    model = KaleidoBertModel(settings, KaleidoSettings(patch_size=2), VocabularySettings(10, 64), 60)
    assert model.patch_encoder.num_features == model.patch_encoder.num_targets == 5
    assert not [key for key in model.state_dict() if key.startswith("patch_encoder")]
    images, plan = torch.zeros(1, 60, 60, 3, dtype=torch.uint8), clean_plan(torch.zeros(1, 1, dtype=torch.int32))
    with pytest.raises(ValueError, match="model.patch_encoder=none: 55 patches came without their features.*use shards with"):
        model.features(images, plan)
