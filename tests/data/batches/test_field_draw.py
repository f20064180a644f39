"""Fields dropped and shuffled: against a slow twin that joins and tokenises anew; masks travel; off, nothing changes."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import Loader, evaluation_batches
from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.prepare import PrepareOptions, prepare
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.shards.tokenizer import Tokenizer
from kaleido_fast.kernels.philox import draw

CPU = torch.device("cpu")
PLAIN = DataSettings(image_size=60, max_tokens=12)
SETTINGS = dataclasses.replace(PLAIN, field_dropout=0.4, field_shuffle=True, alignment="marked")
FIELDS = ("title=productDisplayName", "kind=articleType", "more=description")
SEED, STREAM, MARK = (7 << 33) + 5, 6, 1000


@pytest.fixture
def folder(make_catalogue: Callable[..., Path], tmp_path: Path) -> Path:
    """Shards with three fields, of which some are empty; the alignment `marked` says of each token its id and its place."""
    catalogue = make_catalogue(30)
    lines = (catalogue / "styles.csv").read_text().splitlines()
    lines[2], lines[3], lines[6] = "p1,Cat1,Shoes,,a thing", "p2,Cat0,Bags,Red. bag 2,", "p5,Cat1,,Blue thing 5,"
    (catalogue / "styles.csv").write_text("\n".join(lines) + "\n")
    reader = CsvCatalogue(catalogue / "styles.csv", catalogue / "images", field=FIELDS, split="")
    prepare(PrepareOptions(reader, tmp_path / "s", vocab_size=200, processes=1))
    for shard in [name for entry in Manifest.read(tmp_path / "s").splits.values() for name in entry.shards]:
        tokens = np.load(tmp_path / "s" / f"{shard}.table.npy")["tokens"].astype(np.int64)
        np.save(tmp_path / "s" / f"{shard}.alignment.marked.npy", tokens * MARK + np.arange(tokens.shape[1]))
    Manifest.change(tmp_path / "s", lambda manifest: manifest.with_alignment("marked", "00" * 32))
    return tmp_path / "s"


def _batches(folder: Path, settings: DataSettings = SETTINGS, **more: object) -> Iterator[Batch]:
    values = {"seed": SEED, "micro_batch": 32, "device": CPU, "own_texts": True} | more
    return Loader(FromPhotographs(Split.open(folder, "train")), settings, **values)


def _twin(settings: DataSettings, names: list[str], texts: dict[str, str], key: int, epoch: int) -> list[str]:
    """The fields that stay, in their order, by one draw a field."""
    words = {}
    for number, name in enumerate(names):
        if texts[name]:
            drawn = draw(SEED, torch.tensor(epoch), torch.tensor(key), STREAM, number)
            words[name] = [int(word) for word in drawn]
    stays = max(words, key=lambda name: words[name][2])
    kept = [name for name in words if name == stays or words[name][0] >= settings.field_dropout * 2**32]
    return sorted(kept, key=lambda name: words[name][1]) if settings.field_shuffle else kept


@pytest.mark.parametrize("settings", [
    SETTINGS, dataclasses.replace(SETTINGS, field_dropout=1.0, field_shuffle=False),
    dataclasses.replace(SETTINGS, field_dropout=0.0), dataclasses.replace(SETTINGS, field_shuffle=False)])
def test_texts_are_those_of_the_twin_and_masks_travel(folder: Path, settings: DataSettings) -> None:
    split, tokenizer = Split.open(folder, "train"), Tokenizer.from_vocab(folder / "vocab.txt")
    names, most, seen = list(split.manifest.fields), settings.max_tokens - 2, set()
    batches = _batches(folder, settings)
    for _ in range(4):
        batch = next(batches)
        keys, own = batch.keys.tolist(), batch.own_texts
        sides = ((batch.host.text_products, batch.tokens, batch.lengths), (batch.host.image_products, own.tokens, own.lengths))
        for products, tokens, lengths in sides:
            for b, product in enumerate(products.tolist()):
                texts = split.record(int(split.products["first_sample"][product]))["fields"]
                kept = _twin(settings, names, texts, keys[b], int(batch.epochs[b]))
                seen.add(tuple(kept))
                expected = tokenizer.encode(". ".join(texts[name] for name in kept))[:most]
                assert int(lengths[b]) == len(expected) + 2
                assert tokens[b, 1 : len(expected) + 1].tolist() == expected
        for b, length in enumerate(batch.lengths.tolist()):
            masks = batch.alignment[b]
            assert (masks[1 : length - 1] // MARK).tolist() == batch.tokens[b, 1 : length - 1].tolist()
            assert not masks[0] and not masks[length - 1 :].any()
    assert int(batch.epochs.max()) > 0
    assert (("more",) in seen) == (settings.field_dropout > 0) and any(len(kept) == 3 for kept in seen) == (
        settings.field_dropout < 1)
    assert (("more", "title", "kind") in seen) == settings.field_shuffle


def test_off_everything_is_that_of_shards_without_fields(folder: Path, tmp_path: Path) -> None:
    columns = tuple(field.partition("=")[2] for field in FIELDS)
    catalogue = tmp_path / "catalogue"
    reader = CsvCatalogue(catalogue / "styles.csv", catalogue / "images", text=columns)
    prepare(PrepareOptions(reader, tmp_path / "plain", vocab_size=200, processes=1))
    one, other = _batches(folder, PLAIN), _batches(tmp_path / "plain", PLAIN)
    for _ in range(2):
        a, b = next(one), next(other)
        assert torch.equal(a.tokens, b.tokens) and torch.equal(a.lengths, b.lengths) and torch.equal(a.images, b.images)
        assert torch.equal(a.own_texts.tokens, b.own_texts.tokens) and torch.equal(a.match, b.match)


def test_two_workers_and_a_later_start_draw_the_same(folder: Path) -> None:
    whole = _batches(folder)
    first, second = next(whole), next(whole)
    later = next(_batches(folder, position=32))
    assert torch.equal(later.tokens, second.tokens) and torch.equal(later.alignment, second.alignment)
    halves = [next(_batches(folder, micro_batch=16, worker=worker, num_workers=2)) for worker in range(2)]
    assert torch.equal(torch.cat([half.tokens for half in halves]), first.tokens)
    assert torch.equal(torch.cat([half.own_texts.tokens for half in halves]), first.own_texts.tokens)


def test_the_negatives_are_those_of_whole_texts(folder: Path) -> None:
    dropped, whole = next(_batches(folder)), next(_batches(folder, PLAIN))
    assert (dropped.host.text_products == whole.host.text_products).all() and torch.equal(dropped.match, whole.match)
    assert not torch.equal(dropped.tokens, whole.tokens)


def test_evaluation_and_own_texts_alone_see_whole_texts(folder: Path) -> None:
    source = FromPhotographs(Split.open(folder, "train"))
    given = {"seed": SEED, "micro_batch": 16, "device": CPU, "draw_text": True, "own_texts": True}
    dropping, plain = (next(evaluation_batches(source, np.arange(16), settings, **given)) for settings in (SETTINGS, PLAIN))
    assert torch.equal(dropping.tokens, plain.tokens) and torch.equal(dropping.own_texts.tokens, plain.own_texts.tokens)
    without = next(_batches(folder, draw_text=False)), next(_batches(folder, PLAIN, draw_text=False))
    assert torch.equal(without[0].tokens, without[1].tokens)


def test_fields_that_cannot_be_are_holes(folder: Path) -> None:
    file = folder / "train-000000.fields.npy"
    ranges = np.load(file)
    ranges[3] = [[900, 901], [4, 5], [-3, 8]]
    np.save(file, ranges)
    holes: dict[str, str] = {}
    batches = _batches(folder, holes=holes)
    batch = [next(batches) for _ in range(3)][-1]
    assert next(iter(holes.values())).startswith("the row of its text's fields holds numbers that cannot be; see 'kaleido-fast")
    assert batch.tokens.max() < 200


def test_texts_without_fields_are_refused(make_catalogue: Callable[..., Path], tmp_path: Path) -> None:
    catalogue = make_catalogue(20)
    reader = CsvCatalogue(catalogue / "styles.csv", catalogue / "images")
    prepare(PrepareOptions(reader, tmp_path / "plain", vocab_size=200, processes=1))
    for change, key in (({"field_dropout": 0.1}, "dropout"), ({"field_shuffle": True}, "shuffle")):
        message = rf"data\.field_{key}: the texts in .*plain have no fields; run prepare with field=\{{\.\.\.\}}, or leave " \
                  rf"data\.field_{key} out"
        with pytest.raises(ValueError, match=message):
            next(_batches(tmp_path / "plain", dataclasses.replace(PLAIN, **change)))
