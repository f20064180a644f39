"""The captioner against a plain one, place by place."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from kaleido_fast.alignment.captioner import Captioner
from kaleido_fast.alignment.feature_map import FrozenMap, SmallMap
from kaleido_fast.alignment.settings import AlignSettings

SIZE, V = 30, 11
SETTINGS = AlignSettings(channels=8, embedding=6, hidden=7, attention=4, dropout=0.0, place_dropout=0.0, coverage=0.5,
                         look_cost=0.25)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def small_captioner(seed: int = 0) -> Captioner:
    torch.manual_seed(seed)
    captioner = Captioner(SmallMap(SIZE, SETTINGS.channels, MEAN, STD), SETTINGS, V)
    for parameter in captioner.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape)
    return captioner


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (3, SIZE, SIZE, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)



@torch.no_grad()
def plain_read(captioner: Captioner, image: Tensor, tokens: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, maps and beta alpha of one text under one picture, by the formulas at the head of captioner.py."""
    c, a = captioner, captioner.network(image.unsqueeze(0))[0]
    h, cell = (torch.tanh(layer(a.mean(0))) for layer in (c.start_hidden, c.start_cell))
    logits, maps, looks, heat = [], [], [], torch.zeros(len(a))
    for token in tokens[:-1]:
        word = c.words.weight[token]
        query = c.query(h) + c.word_query.weight @ word
        asked = [float((c.key(a[i]) + c.place[i]) @ query) / math.sqrt(SETTINGS.attention) for i in range(len(a))]
        weights = [1 / (1 + math.exp(float(c.bar) - e)) for e in asked]
        gate = float(torch.sigmoid(c.gate(torch.cat([h, word]))))
        gated = torch.tensor([gate * weight / sum(weights) for weight in weights])
        context = sum(share * a[i] for i, share in enumerate(gated))
        gates = c.lstm.weight_ih @ torch.cat([word, context]) + c.lstm.bias_ih + c.lstm.weight_hh @ h + c.lstm.bias_hh
        take, keep, new, show = gates.chunk(4)
        cell = torch.sigmoid(keep) * cell + torch.sigmoid(take) * torch.tanh(new)
        h = torch.sigmoid(show) * torch.tanh(cell)
        heat = gated + (1 - gate) * heat
        logits.append(c.output(word + c.from_hidden(h) + c.from_context(context)))
        maps.append(heat)
        looks.append(gated)
    return torch.stack(logits), torch.stack(maps), torch.stack(looks)


TOKENS = torch.tensor([[2, 5, 6, 7, 3], [2, 9, 3, 0, 0], [2, 4, 4, 3, 0]])
LENGTHS = torch.tensor([5, 3, 4])


def test_reading_is_the_plain_one(images: Tensor) -> None:
    captioner = small_captioner()
    told, heats, gated = captioner.read(images, TOKENS)
    for row, length in enumerate(LENGTHS.tolist()):
        logits, maps, looks = plain_read(captioner, images[row], TOKENS[row, :length].tolist())
        torch.testing.assert_close(captioner.scores(told[row, : length - 1]), logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(heats[row, : length - 1], maps, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(gated[row, : length - 1], looks, rtol=1e-4, atol=1e-6)
        assert maps.std(dim=1).min() > 1e-3, "all places alike: nothing was compared"


def test_the_loss_by_hand(images: Tensor) -> None:
    captioner = small_captioner()
    entropy, coverage, gated, correct = 0.0, 0.0, 0.0, 0
    for row, length in enumerate(LENGTHS.tolist()[:2]):
        logits, _, looks = plain_read(captioner, images[row], TOKENS[row, :length].tolist())
        targets = TOKENS[row, 1:length]
        entropy -= float(logits.log_softmax(-1)[torch.arange(length - 1), targets].sum())
        correct += int((logits.argmax(-1) == targets).sum())
        coverage += float((1 - looks.sum(0)).square().sum())
        gated += float(looks.sum())
    lengths = torch.tensor([5, 3, 0])  # the third sample cannot be read
    sums = captioner(images, TOKENS, lengths, 10.0)
    assert float(sums.entropy) == pytest.approx(entropy, rel=1e-4)
    assert float(sums.looks) == pytest.approx(gated, rel=1e-4)
    assert float(sums.loss.detach()) == pytest.approx((entropy + 0.25 * gated + 0.5 * coverage) / 10, rel=1e-4)
    assert int(sums.correct) == correct


def test_several_captions_a_picture_are_read_side_by_side(images: Tensor) -> None:
    captioner = small_captioner()
    memory = captioner.look(images)
    start = captioner.start(memory)
    state = type(start)(*(part.expand(-1, 2, -1).contiguous() for part in start))
    told, attention, _ = captioner.step(memory, state, torch.tensor([[2, 5], [6, 2], [7, 8]]))
    for column, words in enumerate(([2, 6, 7], [5, 2, 8])):
        alone = captioner.step(memory, start, torch.tensor(words).unsqueeze(1))
        torch.testing.assert_close(told[:, column], alone[0][:, 0])
        torch.testing.assert_close(attention[:, column], alone[1][:, 0])


def test_a_place_sees_its_surroundings_alone() -> None:
    """35 x 35 pixels: else attention could rest on one place and name another."""
    network = SmallMap(100, 8, MEAN, STD)
    picture = torch.zeros(1, 100, 100, 3, dtype=torch.uint8)
    changed = picture.clone()
    changed[0, 42:48, 42:48] = 255
    moved = (network(changed) != network(picture)).any(dim=2).view(10, 10)
    assert moved[3:6, 3:6].all(), "the place itself and its neighbours see it"
    assert not moved[:2].any() and not moved[7:].any()


def test_training_uses_every_weight(images: Tensor) -> None:
    captioner = small_captioner()
    captioner(images, TOKENS, LENGTHS, 9.0).loss.backward()
    idle = [name for name, parameter in captioner.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not idle


def test_it_learns_to_name_colours() -> None:
    """Four colours in a corner each, named row by row."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(2)
    colours = torch.randint(4, 8, (32, 4), generator=generator)
    palette = torch.tensor([[250, 20, 20], [20, 250, 20], [20, 20, 250], [250, 250, 250]], dtype=torch.uint8)
    pictures = palette[colours - 4].view(32, 2, 2, 3).repeat_interleave(20, 1).repeat_interleave(20, 2)
    tokens = torch.cat([torch.full((32, 1), 2), colours, torch.full((32, 1), 3)], dim=1)
    captioner = Captioner(SmallMap(40, 16, MEAN, STD), AlignSettings(hidden=32, embedding=32, attention=16, dropout=0.0,
                                                              place_dropout=0.0), V)
    optimizer = torch.optim.Adam(captioner.parameters(), lr=1e-2)
    for _ in range(80):
        sums = captioner(pictures, tokens, torch.full((32,), 6), 32 * 5.0)
        optimizer.zero_grad()
        sums.loss.backward()
        optimizer.step()
    assert int(sums.correct) > 0.9 * 32 * 5


def test_dropped_places_are_not_looked_at(images: Tensor) -> None:
    """In training some places are hidden from a word, the rest shares its attention; in evaluation none is."""
    settings = dataclasses.replace(SETTINGS, place_dropout=0.5)
    captioner = Captioner(SmallMap(SIZE, SETTINGS.channels, MEAN, STD), settings, V)
    torch.manual_seed(0)
    _, _, attention = captioner.read(images, TOKENS)
    assert 0.3 < (attention == 0).float().mean() < 0.7
    assert (attention.sum(-1) > 0).all()
    assert (captioner.eval().read(images, TOKENS)[2] > 0).all()


def test_squares_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="data.image_size=64 must be a multiple of 10"):
        SmallMap(64, 8, MEAN, STD)


def test_a_frozen_network_is_its_encoder_before_the_pooling() -> None:
    network = FrozenMap("efficientnet_lite0", 64, MEAN, STD)
    network.encoder.draw()
    images = torch.randint(0, 256, (2, 64, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    normal = (images.permute(0, 3, 1, 2).float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    features = network(images)
    assert features.shape == (2, network.side**2, network.channels)
    torch.testing.assert_close(features.mean(dim=1), network.encoder(normal), rtol=1e-4, atol=1e-4)
    assert not list(network.parameters())


def test_a_network_without_a_map_is_refused() -> None:
    with pytest.raises(ValueError, match="model.patch_encoder=dct has no feature map; those that have one: .*resnet50"):
        FrozenMap("dct", 64, MEAN, STD)
