"""Contrast against a case worked by hand, the plain path, and float64."""

import math

import pytest
import torch

from kaleido_fast.config import build_config
from kaleido_fast.kernels.source import clean_source
from kaleido_fast.model.contrast import COLDEST, START, ContrastHeads, Embeddings, Pairs, contrast_loss
from kaleido_fast.model.embeddings import Alone
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.parity.drawn_batch import batch_of
from kaleido_fast.reference.contrast import Compared, ReferenceContrast, contrast_rows
from kaleido_fast.training.build import build_step
from kaleido_fast.training.step import alone_of, parameter_groups

BLOCK = 6


def _drawn(number: int = 24, seed: int = 0) -> tuple[Embeddings, Pairs, torch.Tensor]:
    """Embeddings in float64, products with several photographs, products that read alike, holes; and the token rows."""
    torch.manual_seed(seed)
    sides = torch.nn.functional.normalize(torch.randn(2, number, 8, dtype=torch.float64), dim=2)
    products, texts = torch.randint(0, 9, (number,)), torch.randint(0, 7, (number,))
    present = torch.rand(number) < 0.8
    return Embeddings(*sides), Pairs(products, texts, present), texts[:, None]


def test_two_pairs_by_hand() -> None:
    """Similarities 1, 0 / 0.6, 0.8 at temperature 1/2, every product another."""
    photographs, texts = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    pairs = Pairs(torch.tensor([4, 5]), torch.tensor([1, 2]), torch.tensor([True, True]))
    loss, right = contrast_loss(Embeddings(photographs, texts), torch.tensor([2.0]), pairs, 2, pairs.present)

    def entropy(own: float, other: float) -> float:
        return math.log(1 + math.exp(2 * (other - own)))

    rows, columns = entropy(1, 0) + entropy(0.8, 0.6), entropy(1, 0.6) + entropy(0.8, 0)
    assert float(loss) == pytest.approx((rows + columns) / 2) and float(right) == 2


def test_a_text_that_reads_alike_is_a_target_as_well() -> None:
    """Two products of one text: each photograph's target is half of each column, so of four equal similarities log 2."""
    same = torch.ones(2, 1)
    pairs = Pairs(torch.tensor([4, 5]), torch.tensor([1, 1]), torch.tensor([True, True]))
    loss, right = contrast_loss(Embeddings(same, same), torch.tensor([3.0]), pairs, 2, pairs.present)
    assert float(loss) == pytest.approx(2 * math.log(2)) and float(right) == 2


@pytest.mark.parametrize("block", [1, BLOCK, 24])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_plain_path(block: int, seed: int) -> None:
    embeddings, pairs, texts = _drawn(seed=seed)
    scale = torch.tensor([7.0], dtype=torch.float64)
    assert not pairs.present.all()
    loss, _ = contrast_loss(embeddings, scale, pairs, block, pairs.present)
    rows = contrast_rows(Compared(*embeddings, scale), pairs.products, texts, pairs.present, block)
    torch.testing.assert_close(loss, rows.sum())
    some = torch.arange(24) % 3 == 0
    loss, _ = contrast_loss(embeddings, scale, pairs, block, some)
    torch.testing.assert_close(loss, rows[some].sum())


def test_blocks_do_not_see_each_other_and_holes_are_not_seen() -> None:
    embeddings, pairs, _ = _drawn()
    sides = torch.stack(embeddings).requires_grad_()
    first = torch.arange(24) < BLOCK
    loss, _ = contrast_loss(Embeddings(*sides), torch.tensor([5.0]), pairs, BLOCK, first)
    (gradient,) = torch.autograd.grad(loss, sides)
    seen = gradient.abs().sum(dim=(0, 2)) > 0
    assert torch.equal(seen, first & pairs.present) and torch.isfinite(gradient).all()


def test_a_block_of_holes_counts_nothing() -> None:
    embeddings, pairs, _ = _drawn()
    sides = torch.stack(embeddings).requires_grad_()
    nobody = pairs._replace(present=torch.zeros(24, dtype=torch.bool))
    loss, right = contrast_loss(Embeddings(*sides), torch.tensor([5.0]), nobody, BLOCK, nobody.present)
    loss.backward()
    assert float(loss.detach()) == float(right) == 0 and not sides.grad.any()


def test_gradients_in_float64() -> None:
    embeddings, pairs, _ = _drawn(12)
    scale = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    sides = torch.stack(embeddings).requires_grad_()

    def loss(sides: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return contrast_loss(Embeddings(*sides), scale, pairs, BLOCK, pairs.present)[0]

    assert torch.autograd.gradcheck(loss, (sides, scale))


def test_half_right_where_one_side_finds_its_like() -> None:
    """The first photograph is nearest to its own text, which is nearest to the second photograph."""
    photographs, texts = torch.tensor([[0.5, 0.0], [1.0, 0.9]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    pairs = Pairs(torch.tensor([4, 5]), torch.tensor([1, 2]), torch.tensor([True, True]))
    one = torch.tensor([True, False])
    assert float(contrast_loss(Embeddings(photographs, texts), torch.tensor([1.0]), pairs, 2, one)[1]) == 0.5


@pytest.mark.parametrize(("at", "gradient", "passed"), [
    (COLDEST + 1, -1.0, False), (COLDEST + 1, 1.0, True), (-1.0, 1.0, False), (-1.0, -1.0, True), (START, 1.0, True)])
def test_the_temperature_is_clamped_and_its_gradient_leads_back(at: float, gradient: float, passed: bool) -> None:
    heads = ContrastHeads(4, 3)
    with torch.no_grad():
        heads.log_scale.fill_(at)
    scale = heads.scale()
    assert float(scale) == pytest.approx(math.exp(min(max(at, 0.0), COLDEST)))
    (scale * gradient).sum().backward()
    assert (heads.log_scale.grad != 0).item() == passed


def test_the_temperature_starts_at_7_hundredths_and_does_not_decay() -> None:
    heads = ContrastHeads(4, 3)
    assert 1 / float(heads.scale()) == pytest.approx(0.07)
    decayed, spared = parameter_groups(heads, 0.1)
    assert [parameter is heads.log_scale for parameter in spared["params"]] == [True] and len(decayed["params"]) == 2


def test_embeddings_have_length_1_in_fp32_and_equal_the_plain_paths() -> None:
    heads, plain = ContrastHeads(16, 8), ReferenceContrast(ModelSettings(hidden=16, itc_dim=8))
    plain.load_state_dict(heads.state_dict())
    rows = torch.randn(2, 5, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert heads.of_texts(rows[0]).dtype == torch.float32
    embeddings, scale = heads(*rows)
    compared = plain(*rows)
    torch.testing.assert_close(embeddings.photographs.norm(dim=1), torch.ones(5))
    torch.testing.assert_close((*embeddings, scale), tuple(compared))


@torch.no_grad()
def test_photographs_and_texts_are_embedded_as_a_training_step_does() -> None:
    """Behind joint sequences whose photographs are turned, moved and greyed, and by themselves."""
    config = build_config({
        "data": {"image_size": 60, "max_tokens": 16}, "kaleido": {"patch_size": 12}, "run": {"device": "cpu"},
        "model": {"hidden": 32, "layers": 1, "heads": 2, "intermediate": 64, "dropout": 0.0, "itc_dim": 8,
                  "initializer_range": 0.2}, "train": {"steps": 1, "micro_batch": 16, "task_weights": {"itc": 1.0}}})
    batch, manifest = batch_of(config, torch.device("cpu"))
    step = build_step(config, manifest).eval()
    model, words = step.model, manifest.vocabulary
    features, _, unturned = batch.patches.features_with_unturned(model, step.plan_of(batch))
    encoded = model.encode(batch.tokens, batch.lengths, batch.host.lengths, features, step.plan_of(batch).source,
                           tasks=step.plan_of(batch).tasks, alone=alone_of(batch, unturned))
    expected, _ = model.contrast(encoded.photographs, encoded.texts)
    clean = batch.clean_features(model, model.kaleido.grids, 16)
    photographs = model.embed_photographs(clean, (words.cls_id, words.sep_id))
    own = batch.own_texts
    texts = model.embed_texts(own.tokens, own.lengths, own.lengths_host.tolist())
    torch.testing.assert_close((photographs, texts), tuple(expected))
    assert (photographs[0] - photographs[1]).abs().max() > 1e-3 and (texts[0] - texts[1]).abs().max() > 1e-3
    some = torch.arange(55, dtype=torch.int32) + 55 * torch.tensor([[3], [3], [1]], dtype=torch.int32)
    torch.testing.assert_close(model.embed_photographs(clean, (words.cls_id, words.sep_id), some), photographs[[3, 3, 1]])


def test_a_model_without_contrast_embeds_nothing() -> None:
    model = KaleidoBertModel(ModelSettings(hidden=16, layers=1, heads=2, intermediate=16), KaleidoSettings(),
                             VocabularySettings(91, 128))
    with pytest.raises(ValueError, match=r"no contrast \(model.itc_dim=0\), .*; train one with model.itc_dim=128 train.task_w"):
        model.embed_photographs(torch.zeros(1, 55, 192), (2, 3))


def test_texts_alone_have_a_dropout_stream_of_their_own() -> None:
    """The words of the first sample, joint and alone, lie at the same packed rows: one stream would drop the same."""
    torch.manual_seed(0)
    kaleido = KaleidoSettings(patch_size=12)
    model = KaleidoBertModel(ModelSettings(hidden=32, layers=1, heads=2, intermediate=32, dropout=0.5, itc_dim=8), kaleido,
                             VocabularySettings(91, 128), 60).train()
    tokens = torch.randint(5, 90, (2, 6), dtype=torch.int32)
    lengths, rules = torch.tensor([6, 4], dtype=torch.int32), [task.rule for task in model.tasks]
    features = torch.randn(2, 57, model.patch_encoder.num_features)
    source = clean_source(2, kaleido.grids, 2, tokens.device).int()
    alone = Alone(tokens, lengths, [6, 4], features[:, :1])

    def embedded(stream: int) -> tuple[torch.Tensor, torch.Tensor]:
        key = torch.tensor([1, 2, stream])
        return model.embeddings(tokens, lengths, 10 + 2 * 55, features, source, key, rules, alone=alone)

    packed, cumulative = embedded(5)
    text = packed[int(cumulative[4]) :][:6]
    assert (text == 0).any() and not torch.equal(text == 0, packed[:6] == 0)
    assert torch.equal(text, embedded(5 + 32768)[0][:6])
