"""Batches against NumPy twins; resuming, workers, threads; broken samples become holes."""

import dataclasses

import numpy as np
import pytest
import torch

from kaleido_fast.data.batches.dali import SquareDecoder
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.jpeg_batch import GREY, JpegBatch
from kaleido_fast.data.batches.loader import Loader, evaluation_batches
from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.locking import Lock
from kaleido_fast.data.catalogue.photograph import grey_jpeg
from kaleido_fast.data.catalogue.prepare import PrepareOptions, prepare
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import Split
from kaleido_fast.kernels.philox import EVALUATION_EPOCH
from tests.data import twins

CPU = torch.device("cpu")
ROUNDED = 0.51  # of an unrounded twin: the nearest 8-bit value, at a tie either
SETTINGS = DataSettings(image_size=60, max_tokens=12)


@pytest.fixture
def split(make_catalogue, tmp_path) -> Split:
    folder = make_catalogue(80)
    prepare(PrepareOptions(CsvCatalogue(folder / "styles.csv", folder / "images"), tmp_path / "s", vocab_size=200, processes=1))
    return Split.open(tmp_path / "s", "train")


def _loader(split: Split, settings: DataSettings = SETTINGS, **more) -> Loader:
    return Loader(FromPhotographs(split), settings, **({"seed": 1, "micro_batch": 32, "device": CPU} | more))


def _same(a, b) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a)
             if f.name not in ("host", "patches", "plan", "own_texts")]
    return all(torch.equal(x, y) for x, y in [*pairs, (a.images, b.images)])


def test_squares_equal_the_twin(split: Split) -> None:
    batch = next(_loader(split))
    rows = split.rows(batch.host.samples)
    for index, row in enumerate(rows):
        lock = Lock(int(row["left"]), int(row["top"]), int(row["side"]), tuple(row["fill"].tolist()))
        expected = twins.locked_square(split.read(int(batch.host.samples[index])), lock, 60)
        assert np.abs(batch.images[index].numpy() - expected).max() <= ROUNDED


@pytest.mark.parametrize("lock", [Lock(-20, -30, 140, (10, 200, 30)), Lock(40, 50, 90, (1, 2, 3)), Lock(5, 5, 16, (0, 0, 0))])
def test_boxes_outside_the_photograph_are_filled(photograph, lock: Lock, tmp_path) -> None:
    photograph((200, 30, 30), (60, 80)).save(tmp_path / "a.jpg", quality=90)
    data = (tmp_path / "a.jpg").read_bytes()
    batch = JpegBatch([data], np.array([[lock.top, lock.left]], np.int32), np.array([[lock.side] * 2], np.int32),
                      np.array([lock.fill], np.uint8))
    _, squares, broken = next(iter(SquareDecoder(lambda _: (None, batch), 1, 48, CPU, threads=1, prefetch=1)))
    assert not broken and np.abs(squares[0].numpy() - twins.locked_square(data, lock, 48)).max() <= ROUNDED


def test_texts_are_the_drawn_products_with_their_own_lengths(split: Split) -> None:
    batch = next(_loader(split))
    vocabulary = split.manifest.vocabulary
    rows = split.rows(split.products["first_sample"][batch.host.text_products])
    for index, row in enumerate(rows):
        ids = [vocabulary.cls_id, *row["tokens"][: row["num_tokens"]].tolist()[:10], vocabulary.sep_id]
        assert batch.tokens[index].tolist() == ids + [vocabulary.pad_id] * (12 - len(ids))
        assert int(batch.lengths[index]) == len(ids)
    assert (batch.match.numpy() == (batch.host.text_products == batch.host.image_products)).all()


def test_own_texts_are_the_photographs_products_and_change_nothing_else(split: Split) -> None:
    batch, without = next(_loader(split, own_texts=True)), next(_loader(split))
    own, host = batch.own_texts, batch.host
    assert _same(batch, without) and without.own_texts is None
    assert host.match.any() and not host.match.all()
    rows = split.rows(split.products["first_sample"][host.image_products])
    for b, row in enumerate(rows):
        words = row["tokens"][: min(row["num_tokens"], SETTINGS.max_tokens - 2)]
        vocabulary = split.manifest.vocabulary
        expected = [vocabulary.cls_id, *words, vocabulary.sep_id]
        assert own.lengths[b] == own.lengths_host[b] == len(expected)
        assert own.tokens[b].tolist() == expected + [vocabulary.pad_id] * (SETTINGS.max_tokens - len(expected))
    alike = (own.tokens[:, None] == own.tokens).all(dim=2)
    assert torch.equal(own.readings[:, None] == own.readings, alike) and alike.sum() > len(alike)


def test_the_own_text_of_a_hole_is_empty(split: Split) -> None:
    batch = next(evaluation_batches(
        FromPhotographs(split), np.arange(3), SETTINGS, seed=1, micro_batch=16, device=CPU, draw_text=True, own_texts=True))
    assert batch.own_texts.lengths[3:].eq(2).all() and batch.own_texts.lengths[:3].gt(2).all()


@pytest.mark.parametrize("change", [{"decode_threads": 1}, {"prefetch": 1}, {"prefetch": 3}])
def test_threads_and_prefetch_change_nothing(split: Split, change: dict) -> None:
    one, other = _loader(split), _loader(split, dataclasses.replace(SETTINGS, **change))
    for _ in range(3):
        assert _same(next(one), next(other))


def test_resuming_is_setting_a_position(split: Split) -> None:
    whole, later = _loader(split), _loader(split, position=3 * 32)
    batches = [next(whole) for _ in range(6)]
    assert int(batches[-1].epochs.max()) > 0  # an epoch's end lies between
    for batch in batches[3:]:
        assert _same(batch, next(later))


def test_two_workers_see_what_one_sees(split: Split) -> None:
    one = _loader(split, micro_batch=32)
    pair = [_loader(split, micro_batch=16, worker=worker, num_workers=2) for worker in range(2)]
    for _ in range(3):
        batch, halves = next(one), [next(loader) for loader in pair]
        assert torch.equal(batch.images, torch.cat([half.images for half in halves]))
        assert torch.equal(batch.tokens, torch.cat([half.tokens for half in halves]))


def test_a_changed_photograph_becomes_a_hole_and_no_other(split: Split) -> None:
    clean = next(_loader(split))
    victim = int(clean.host.samples[5])
    row = split.rows(np.array([victim]))[0]
    with (split.folder / "train-000000.tar").open("r+b") as stream:
        stream.seek(int(row["offset"]) + 100)
        stream.write(b"damage")
    loader = _loader(Split.open(split.folder, "train"))
    batch = next(loader)
    assert not batch.present[5] and not batch.host.present[5] and int(batch.present.sum()) == 31
    assert (batch.images[5] == GREY).all()
    others = [i for i in range(32) if i != 5]
    assert torch.equal(batch.images[others], clean.images[others])
    (name, reason), = loader.holes.items()
    assert name == f"train sample {victim}" and "do not match their CRC32" in reason


def test_what_dali_cannot_decode_is_found_by_itself() -> None:
    good, bad = grey_jpeg(60), b"no picture at all"
    zeros, sides, fills = np.zeros((4, 2), np.int32), np.full((4, 2), 16, np.int32), np.zeros((4, 3), np.uint8)
    batches = [JpegBatch([good] * 4, zeros, sides, fills), JpegBatch([good, good, bad, good], zeros, sides, fills)]
    decoder = iter(SquareDecoder(lambda i: (i, batches[i % 2]), 4, 32, CPU, threads=1, prefetch=2))
    for number in range(4):
        carried, squares, broken = next(decoder)
        assert carried == number and broken == ([2] if number % 2 else [])
        assert squares.shape == (4, 32, 32, 3)
        assert (squares[2] == GREY).all() == bool(number % 2)


def test_evaluation_walks_given_samples_once(split: Split) -> None:
    samples = np.arange(split.num_samples)[::-1].copy()
    batches = list(evaluation_batches(FromPhotographs(split), samples, SETTINGS, seed=1, micro_batch=32, device=CPU,
                                      draw_text=False))
    present = np.concatenate([batch.host.present for batch in batches])
    walked = np.concatenate([batch.host.samples for batch in batches])
    assert walked[present].tolist() == samples.tolist() and (walked[~present] == -1).all()
    assert all(bool(batch.match[batch.present].all()) and (batch.epochs == EVALUATION_EPOCH).all() for batch in batches)


@pytest.mark.parametrize("change", [{"micro_batch": 24}, {"position": 8}])
def test_parts_of_groups_are_refused(split: Split, change: dict) -> None:
    with pytest.raises(ValueError, match="must be multiples of 16"):
        _loader(split, **change)


def test_a_missing_alignment_is_named(split: Split) -> None:
    with pytest.raises(ValueError, match="data.alignment=truth: .* has no such alignment, it has: none"):
        _loader(split, dataclasses.replace(SETTINGS, alignment="truth"))
