"""The whole model: who sees what, where gradients go, counts against labels, ablations."""

import dataclasses

import numpy as np
import pytest
import torch

from kaleido_fast.data.batches.batch import Batch, HostBatch
from kaleido_fast.data.batches.patches import Pixels, ReadyRows
from kaleido_fast.model.counts import RowCounter
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.kaleido_tasks import check_kaleido_settings, plan_rules
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, ReferenceSettings, VocabularySettings
from kaleido_fast.model.task_table import PAPERS_TASKS, TASKS
from kaleido_fast.model.weights import load_weights, save_weights
from kaleido_fast.training.step import PretrainStep

SMALL = ModelSettings(hidden=32, layers=2, heads=4, intermediate=48, dropout=0.0, max_positions=32, initializer_range=0.1)
KALEIDO = KaleidoSettings(patch_size=12)
WORDS = VocabularySettings(200, 256)


def _batch(groups: int = 2, seed: int = 0, side: int = 60) -> Batch:
    rng = np.random.default_rng(seed)
    size = 16 * groups
    lengths = rng.integers(2, 17, size).astype(np.int32)
    host = HostBatch(np.arange(size), rng.integers(0, 9, size), rng.integers(0, 9, size), lengths,
                     rng.random(size) < 0.5, rng.random(size) < 0.9)
    alignment = rng.integers(0, 2**55, (size, 16)) * (rng.random((size, 16)) < 0.2)
    put = torch.from_numpy
    return Batch(
        patches=Pixels(put(rng.integers(0, 256, (size, side, side, 3), dtype=np.uint8))), lengths=put(lengths),
        tokens=put(rng.integers(5, 200, (size, 16), dtype=np.int32)), alignment=put(alignment),
        keys=put(rng.integers(0, 2**62, size)), image_products=put(host.image_products),
        match=put(host.match), present=put(host.present),
        epochs=torch.zeros(size, dtype=torch.int64), host=host)


def _step(settings: ModelSettings = SMALL, kaleido: KaleidoSettings = KALEIDO, **more) -> PretrainStep:
    torch.manual_seed(0)
    rules = plan_rules(kaleido, mask_id=4, ordinary_first=5, ordinary_last=199)
    options = {"weights": {}, "on_mismatched": ("rotation", "jigsaw", "camouflage")} | more
    return PretrainStep(KaleidoBertModel(settings, kaleido, WORDS, 60), rules, 7, **options)


def _run(step: PretrainStep, batch: Batch, key: torch.Tensor | None = None):
    rows = step.count(batch)
    return step(batch, rows, rows, key), rows


def _drawn(step: PretrainStep, batch: Batch):
    return step.plan_of(batch)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("on_mismatched", [(), ("rotation", "jigsaw", "camouflage"), (*TASKS, "amlm")])
def test_host_counts_equal_the_labels(seed: int, on_mismatched) -> None:
    batch, step = _batch(3, seed), _step(on_mismatched=on_mismatched)
    drawn, counts = _drawn(step, batch), step.count(batch)

    def kept(name: str) -> torch.Tensor:
        return batch.present if name in on_mismatched else batch.present & batch.match

    assert counts["itm"] == int(batch.present.sum())
    assert counts["amlm"] == int(drawn.num_masked[kept("amlm")].sum())
    for task in step.model.tasks:
        label, slots = drawn.part(task.rule)
        assert counts[task.name] == int(((label[:, None] if task.num_classes else slots)[kept(task.name)] >= 0).sum())


def test_losses_are_means_over_valid_rows() -> None:
    """AMLM and a colour loss recomputed sample by sample, without any of the packing."""
    batch, step = _batch(), _step()
    step.eval()
    result, rows = _run(step, batch)
    drawn, model = _drawn(step, batch), step.model
    features = model.features(batch.images, drawn)
    words = blanks = 0.0
    for b in range(32):
        if not (batch.present[b] and batch.match[b]):
            continue
        length = int(batch.lengths[b])
        sample = slice(b, b + 1)
        encoded = model.encode(drawn.masked_tokens[sample], batch.lengths[sample], (length,), features, drawn.source[sample])
        for place, label in zip(drawn.masked_positions[b], drawn.masked_labels[b], strict=True):
            if place >= 0:
                logits = model.amlm.logits(encoded.sequence[place][None], model.embeddings.word.weight)[0]
                words += float(torch.nn.functional.cross_entropy(logits, label.long()))
        for slot in drawn.slots[b, 3:]:  # of the blank task
            prediction = model.kaleido_heads["blank_to_color"](encoded.sequence[length + 30 + slot])
            q, log_p = features[b, 30 + slot].softmax(0), prediction.log_softmax(0)
            blanks += float((q * (q.log() - log_p)).sum())
    assert float(result.loss_sums["amlm"]) == pytest.approx(words, rel=1e-4)
    assert float(result.loss_sums["blank_to_color"]) == pytest.approx(blanks, rel=1e-4)
    total = sum(float(value) / rows[name] for name, value in result.loss_sums.items())
    assert float(result.loss) == pytest.approx(total, rel=1e-5)


def test_a_sample_does_not_see_its_batch() -> None:
    batch, step = _batch(), _step()
    step.eval()
    drawn = _drawn(step, batch)
    features = step.model.features(batch.images, drawn)
    whole = step.model.encode(drawn.masked_tokens, batch.lengths, batch.host.lengths, features, drawn.source)
    for b in (0, 5, 31):
        one = step.model.encode(drawn.masked_tokens[b : b + 1], batch.lengths[b : b + 1], batch.host.lengths[b : b + 1],
                                features, drawn.source[b : b + 1])
        part = whole.sequence[whole.cumulative[b] : whole.cumulative[b + 1]]
        torch.testing.assert_close(part, one.sequence, rtol=1e-4, atol=1e-5)


def test_a_plan_and_features_that_come_with_the_batch_give_the_same_losses() -> None:
    """Those that the step would have drawn and encoded itself."""
    batch, step = _batch(), _step(on_mismatched=(*TASKS, "amlm"))
    drawn = _drawn(step, batch)
    features = step.model.features(batch.images, drawn)
    ready = dataclasses.replace(batch, patches=ReadyRows(features), plan=drawn)
    first, second = _run(step, batch)[0], _run(step, ready)[0]
    assert first.loss_sums.keys() == second.loss_sums.keys() and len(first.loss_sums) == 7
    assert torch.equal(first.loss, second.loss)


@pytest.mark.parametrize(("encoder", "width"), [("dct", 191), ("linear", 192)])
def test_features_of_another_encoder_are_refused(encoder: str, width: int) -> None:
    batch, step = _batch(), _step(dataclasses.replace(SMALL, patch_encoder=encoder))
    ready = dataclasses.replace(batch, patches=ReadyRows(torch.zeros(32, 57, width)), plan=_drawn(step, batch))
    with pytest.raises(ValueError, match=f"features have width {width}, model.patch_encoder={encoder} has features of "
                                         f".*set model.patch_encoder=none and model.patch_features={width}"):
        _run(step, ready)


def test_a_fixed_plan_is_counted_as_it_is() -> None:
    """Whatever the lengths and the group, which need not be whole."""
    counter = RowCounter(KALEIDO, _step().rules, ("amlm", "camouflage"))
    few = {"lengths": np.array([9, 9, 9]), "match": np.array([True, False, True]), "present": np.array([True, True, False]),
           "image_products": np.array([4, 4, 4])}
    rows = counter.count(**few, num_masked=np.array([3, 5, 0]))
    assert rows == {"amlm": 8, "itm": 2, "rotation": 1, "jigsaw": 1, "camouflage": 2, "grey_to_color": 2, "blank_to_color": 3}


def test_locations_of_the_samples_own() -> None:
    batch, step = _batch(), _step()
    embeddings, drawn = step.model.embeddings, _drawn(step, batch)
    features = step.model.features(batch.images, drawn)

    def encode(locations: torch.Tensor | None, levels: list[int] | None = None) -> torch.Tensor:
        source = drawn.source if levels is None else drawn.source[:, 1:5]
        return step.model.encode(drawn.masked_tokens, batch.lengths, batch.host.lengths, features, source, levels=levels,
                                 locations=locations).pooled

    own = embeddings.locations.expand(32, -1, -1).clone()
    assert torch.equal(encode(own), encode(None)) and torch.equal(encode(own, [1]), encode(None, [1]))
    own[3, 2, 0] += 1
    for levels in (None, [1]):
        changed = (encode(own, levels) != encode(None, levels)).any(dim=1)
        assert changed.nonzero().flatten().tolist() == [3]
    with pytest.raises(ValueError, match=r"embeddings: locations \(32, 54, 5\) must be \(32, 55, 5\): x1, x2, y1, y2, w"):
        encode(own[:, 1:])


@pytest.mark.parametrize(
    ("options", "changed"),
    [({"kl_clip": True}, {"grey_to_color", "blank_to_color"}), ({"joint_grey_softmax": True}, {"grey_to_color"}),
     ({"amlm_epsilon": 0.5}, set())],
)
def test_reference_options_change_what_they_name(options: dict, changed: set[str]) -> None:
    """The other losses stay bit for bit; AMLM's epsilon changes the total, not the sum of its rows."""
    batch, plain, theirs = _batch(), _step(), _step(reference=ReferenceSettings(**options))
    (first, _), (second, _) = _run(plain, batch), _run(theirs, batch)
    differ = {name for name, value in first.loss_sums.items() if not torch.equal(value, second.loss_sums[name])}
    assert differ == changed and not torch.equal(first.loss, second.loss)


def test_every_parameter_of_an_active_loss_gets_a_gradient() -> None:
    step = _step()
    _run(step, _batch())[0].loss.backward()
    without = [name for name, p in step.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("name", PAPERS_TASKS)
def test_a_task_switched_off_has_no_head_and_no_loss(name: str) -> None:
    kaleido = dataclasses.replace(KALEIDO, tasks=tuple(other for other in PAPERS_TASKS if other != name))
    step = _step(kaleido=kaleido)
    result, rows = _run(step, _batch())
    assert name not in result.loss_sums and name not in rows and name not in step.model.kaleido_heads
    result.loss.backward()


def test_the_fixed_scale_ablation_runs() -> None:
    kaleido = KaleidoSettings(grids=(8,), patch_size=8, tasks=("blank_to_color",), num_blank=6, blank_grid=8)
    step = _step(kaleido=kaleido)
    result, rows = _run(step, _batch(side=64))
    assert rows["blank_to_color"] % 6 == 0 and set(result.loss_sums) == {"itm", "amlm", "blank_to_color"}
    result.loss.backward()


def test_dropout_is_keyed() -> None:
    step = _step(dataclasses.replace(SMALL, dropout=0.2))
    losses = []
    for key in ([1, 2, 3], [1, 2, 3], [1, 2, 4]):
        torch.manual_seed(key[2])
        losses.append(float(_run(step, _batch(), torch.tensor(key))[0].loss))
    assert losses[0] == losses[1] != losses[2]


def test_initial_weights_are_cut_at_two_sigma() -> None:
    settings = dataclasses.replace(SMALL, hidden=64, initializer_range=0.02)
    model = KaleidoBertModel(settings, KALEIDO, WORDS, 60)
    words = model.embeddings.word.weight.detach()
    assert words.abs().max() <= 0.04 and float(words.std()) == pytest.approx(0.0176, rel=0.05)
    assert (model.embeddings.norm_weight == 1).all() and not model.embeddings.norm_bias.any()
    assert not model.encoder.layers[0].query_key_value.bias.any()


def test_weights_come_back_as_they_were(tmp_path) -> None:
    model = _step().model.eval()
    save_weights(tmp_path / "w", model, model.state_dict())
    again = load_weights(tmp_path / "w")
    assert again.settings == model.settings and again.kaleido == model.kaleido
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    (tmp_path / "w" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged weights or settings"):
        load_weights(tmp_path / "w")
    with pytest.raises(ValueError, match="no model.json there"):
        load_weights(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ("rotatoin",)}, "unknown task 'rotatoin'; did you mean 'rotation'"),
        ({"tasks": ("rotation",), "grids": (2, 3)}, "rotation changes the patches of grid 1"),
        ({"num_grey": 0}, "kaleido.num_grey=0 leaves grey_to_color nothing to do; take it out of kaleido.tasks"),
        ({"num_grey": 17}, r"kaleido.num_grey=17 must lie in 1\.\.16, the patches of grey_to_color's grid"),
        ({"num_blank": 10, "blank_grid": 3, "tasks": ("blank_to_color",)}, r"kaleido.num_blank=10 must lie in 1\.\.9, the"),
        ({"grids": (1, 2, 2, 3, 4, 5)}, r"^kaleido.grids=\[1, 2, 2, 3, 4, 5\] must be different numbers from 1 on; use"),
        ({"grids": (1, 2, 3, 4, 5, 6)}, r"^kaleido.grids=\[1, 2, 3, 4, 5, 6\] make 91 positions, an alignment has 64 bits"),
        ({"blank_grid": 3},
         "kaleido.tasks: camouflage and blank_to_color both change the patches of grid 3; a grid has one task"),
    ],
)
def test_settings_that_cannot_be_are_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_kaleido_settings(dataclasses.replace(KaleidoSettings(), **change))


def test_rows_of_other_tasks_are_refused() -> None:
    batch, step = _batch(), _step()
    drawn = step.plan_of(batch)
    with pytest.raises(ValueError, match=r"embeddings: rows \(32, 58, 192\) must have 55 positions, or those and 2 greyed "
                                         "slots of the tasks; hand over the tasks of their plan"):
        step.model.encode(drawn.masked_tokens, batch.lengths, batch.host.lengths, torch.zeros(32, 58, 192), drawn.source)
