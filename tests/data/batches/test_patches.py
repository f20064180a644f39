"""The three kinds of patches: the same features of the same photographs under a plan, for both paths."""

from dataclasses import fields, replace

import pytest
import torch

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.patches import Patches, Pixels, ReadyRows, StoreRows
from kaleido_fast.data.store.row_format import pack_rows
from kaleido_fast.kernels.plan import clean_plan
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.kaleido_tasks import stored_rows
from kaleido_fast.model.photograph_features import encode_photographs
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.reference.kaleido_bert import ReferenceKaleidoBert
from tests.data.store.plans import turned_and_greyed

COUNT, SIDE = 6, 60
SETTINGS = ModelSettings(hidden=8, layers=1, heads=2, intermediate=8)
ARGUMENTS = KaleidoSettings(patch_size=12), VocabularySettings(91, 128), SIDE
ROWS = stored_rows(KaleidoSettings())


def _plan(count: int = COUNT) -> Plan:
    """Every turn, greys anywhere."""
    slots = torch.arange(COUNT, dtype=torch.int32)
    return turned_and_greyed(slots % 4, torch.stack([slots, 15 - slots], dim=1)).map(lambda tensor: tensor[:count])


@pytest.fixture(scope="module")
def model() -> KaleidoBertModel:
    return KaleidoBertModel(SETTINGS, *ARGUMENTS)


@pytest.fixture(scope="module")
def kinds(model: KaleidoBertModel) -> dict[str, Patches]:
    """The same photographs, by the name of the class."""
    images = torch.randint(0, 256, (COUNT, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    packed = torch.from_numpy(pack_rows(encode_photographs(model, images).numpy(), "fp32"))
    drawn = _plan()
    ready = ReadyRows(model.features(images, drawn))
    found = Pixels(images), StoreRows(packed, "fp32", ROWS), ready
    return {type(patches).__name__: patches for patches in found}


@pytest.mark.parametrize("kind", ["Pixels", "StoreRows", "ReadyRows"])
@pytest.mark.parametrize("path", [KaleidoBertModel, ReferenceKaleidoBert])
def test_features_and_targets_are_those_of_the_plan(
    kind: str, path: type, model: KaleidoBertModel, kinds: dict[str, Patches]
) -> None:
    drawn = _plan()
    expected = model.features(kinds["Pixels"].images, drawn)
    features, targets = kinds[kind].features_and_targets(path(SETTINGS, *ARGUMENTS), drawn)
    torch.testing.assert_close(features, expected, rtol=0, atol=2e-5)  # sums of other products run in another order
    assert torch.equal(targets, features) and kinds[kind].locations is None


@pytest.mark.parametrize("kind", ["Pixels", "StoreRows", "ReadyRows"])
def test_the_first_samples_are_as_they_were_among_all(kind: str, model: KaleidoBertModel, kinds: dict[str, Patches]) -> None:
    whole, _ = kinds[kind].features_and_targets(model, _plan())
    some = kinds[kind].first(2)
    held = [value for value in (getattr(some, field.name) for field in fields(some)) if isinstance(value, torch.Tensor)]
    assert [len(value) for value in held] == [2]
    torch.testing.assert_close(some.features_and_targets(model, _plan(2))[0], whole[:2], rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["Pixels", "StoreRows"])
@pytest.mark.parametrize("path", [KaleidoBertModel, ReferenceKaleidoBert])
def test_turned_patches_come_unturned_as_well(
    kind: str, path: type, model: KaleidoBertModel, kinds: dict[str, Patches]
) -> None:
    drawn, near = _plan(), {"rtol": 0, "atol": 2e-5}
    clean = clean_plan(torch.zeros(COUNT, 4, dtype=torch.int32))
    features, targets, unturned = kinds[kind].features_with_unturned(path(SETTINGS, *ARGUMENTS), drawn)
    torch.testing.assert_close(unturned, model.features(kinds["Pixels"].images, clean)[:, :1], **near)
    torch.testing.assert_close(features, model.features(kinds["Pixels"].images, drawn), **near)
    assert torch.equal(targets, features) and (unturned != features[:, :1]).any()


def test_where_nothing_is_turned_there_is_nothing_unturned(model: KaleidoBertModel, kinds: dict[str, Patches]) -> None:
    clean = clean_plan(torch.zeros(COUNT, 4, dtype=torch.int32))
    for kind in ("Pixels", "StoreRows"):
        assert kinds[kind].features_with_unturned(model, clean)[2].shape[:2] == (COUNT, 0)


def test_ready_rows_without_the_unturned_are_refused(model: KaleidoBertModel, kinds: dict[str, Patches]) -> None:
    ready = kinds["ReadyRows"]
    with pytest.raises(ValueError, match="contrast needs the photograph as it is, and these rows hold turned patches alone"):
        ready.features_with_unturned(model, _plan())
    whole = replace(ready, unturned=torch.ones(COUNT, 1, 5))
    assert torch.equal(whole.features_with_unturned(model, _plan())[2], whole.unturned)
    assert torch.equal(whole.first(2).unturned, whole.unturned[:2])


def test_ready_rows_keep_their_locations() -> None:
    ready = ReadyRows(torch.zeros(3, 57, 4), torch.arange(3 * 55 * 5).view(3, 55, 5))
    assert torch.equal(ready.first(2).locations, ready.locations[:2])


def test_a_trained_encoders_targets_are_not_its_features() -> None:
    trained = KaleidoBertModel(replace(SETTINGS, patch_encoder="linear"), *ARGUMENTS)
    features, targets = Pixels(torch.zeros(COUNT, SIDE, SIDE, 3, dtype=torch.uint8)).features_and_targets(trained, _plan())
    assert features.requires_grad and not targets.requires_grad
    assert (features.shape[2], targets.shape[2]) == (trained.patch_encoder.num_features, trained.patch_encoder.num_targets)


@pytest.mark.parametrize("patches", [
    ReadyRows(torch.zeros(1, 57, 7)), StoreRows(torch.zeros(1, 74, 28, dtype=torch.uint8), "fp32", ROWS)])
def test_features_of_another_width_are_refused(patches: Patches, model: KaleidoBertModel) -> None:
    with pytest.raises(ValueError, match="step: the batch's features have width 7, model.patch_encoder=dct has features of 192 "
                                         "and targets of 192; set model.patch_encoder=none and model.patch_features=7"):
        patches.features_and_targets(model, _plan(1))


def test_a_batch_has_images_where_its_patches_are_pixels(kinds: dict[str, Patches]) -> None:
    nothing = torch.zeros(0)
    batch = Batch(kinds["Pixels"], *[nothing] * 8, host=None)
    assert batch.images is kinds["Pixels"].images
    with pytest.raises(AssertionError):
        _ = replace(batch, patches=kinds["StoreRows"]).images
