"""Indexes that are made, interrupted, added to and taken from: what they hold is the same by every way."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.skipping import Skipped
from kaleido_fast.model.pretrained import load_exported
from kaleido_fast.search import folder as files
from kaleido_fast.search.build import build_index, remove_products
from kaleido_fast.search.encoder import Encoder
from kaleido_fast.search.folder import read_contents, read_entries, read_header
from kaleido_fast.search.index import KaleidoIndex
from kaleido_fast.search.pictures import products_of_catalogue, products_of_folder
from kaleido_fast.search.sources import PictureProducts, ShardProducts
from kaleido_fast.training.workers.group import Workers
from tests.exported import exported_model

ALONE = Workers(0, 1)


def _products(folder: Path) -> dict[str, tuple]:
    """Each product's embeddings and line."""
    contents = read_contents(folder)
    held = {}
    entries = read_entries(contents, range(len(contents.table)))
    for entry, row, text in zip(entries, contents.table, contents.texts, strict=True):
        first, count = row["first_photograph"], row["num_photographs"]
        held[entry.id] = (contents.photographs[first : first + count].tobytes(), text.tobytes(), entry)
    return held


def _arrays(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in files.ARRAYS]


@pytest.fixture
def catalogue(tiny_shards: Path, tmp_path: Path) -> tuple[CsvCatalogue, Path]:
    images = Path(shutil.copytree(tiny_shards.parent / "catalogue" / "images", tmp_path / "images"))
    return CsvCatalogue(tiny_shards.parent / "catalogue" / "styles.csv", images), images


def test_what_was_interrupted_goes_on_without_the_finished_parts(
    encoder: Encoder, tiny_shards: Path, index_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, done = tmp_path / "index", []
    real = ShardProducts.embed

    def stops(self: ShardProducts, part: object, *more: object) -> object:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(part)
        return real(self, part, *more)

    monkeypatch.setattr(ShardProducts, "embed", stops)
    with pytest.raises(KeyboardInterrupt):
        build_index(encoder, ShardProducts(tiny_shards), out, ALONE)
    with pytest.raises(ValueError, match="index: no index.json there, so it is no index, or one that was not finished; "):
        read_header(out)
    monkeypatch.setattr(ShardProducts, "embed", lambda *given: done.append(given[1]) or real(*given))
    summary = build_index(encoder, ShardProducts(tiny_shards), out, ALONE)
    assert len({part.name for part in done}) == len(done) == 3
    assert _arrays(out) == _arrays(index_folder) and not (out / "parts").exists()
    assert summary.photographs == done[2].samples and summary.describe().startswith(f"{out}: 60 products, ")


def test_added_and_removed_products_are_those_of_one_run(
    encoder: Encoder, tiny_shards: Path, index_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    build_index(encoder, ShardProducts(tiny_shards, ["train"]), out, ALONE)
    before = _products(out)
    with pytest.raises(ValueError, match="index: an index is there already; take more products into it with add=True, or "):
        build_index(encoder, ShardProducts(tiny_shards), out, ALONE)
    summary = build_index(encoder, ShardProducts(tiny_shards), out, ALONE, add=True)
    assert (summary.were_there, summary.added) == (len(before), 60 - len(before))
    assert 0 < summary.photographs < summary.header.photographs
    assert _products(out) == _products(index_folder) and before.items() <= _products(out).items()
    assert build_index(encoder, ShardProducts(tiny_shards), out, ALONE, add=True).added == 0
    gone = list(before)[:3]
    with pytest.raises(ValueError, match=f"^remove: {out} has no product nobody; nothing was taken out$"):
        remove_products(out, [*gone, "nobody"])
    assert _products(out) == _products(index_folder)
    assert remove_products(out, gone).describe().endswith("; 3 products taken out")
    assert _products(out) == {name: value for name, value in _products(index_folder).items() if name not in gone}
    assert KaleidoIndex.open(out).search("red", k=99, rerank=3)


def test_an_empty_index_says_so(encoder: Encoder, tiny_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    build_index(encoder, ShardProducts(tiny_shards, ["test"]), out, ALONE)
    remove_products(out, _products(out))
    assert len(opened := KaleidoIndex.open(out)) == 0
    with pytest.raises(ValueError, match=r"index: this index holds no products; take some in with `build_index\(add=True\)`"):
        opened.search("red")
    build_index(encoder, ShardProducts(tiny_shards, ["test"]), out, ALONE, add=True)
    assert KaleidoIndex.open(out).search("red")


def test_pictures_with_a_catalogue_are_those_of_its_shards(
    encoder: Encoder, catalogue: tuple[CsvCatalogue, Path], index_folder: Path, tmp_path: Path
) -> None:
    table, images = catalogue
    out, skipped = tmp_path / "index", Skipped()
    build_index(encoder, PictureProducts(images, products_of_catalogue(table, images, skipped)), out, ALONE)
    assert not skipped.counts
    mine, theirs = _products(out), _products(index_folder)
    assert mine.keys() == theirs.keys()
    for name, (photographs, text, entry) in mine.items():
        assert (entry.text, entry.subcategory) == (theirs[name][2].text, theirs[name][2].subcategory)
        assert np.abs(np.frombuffer(photographs, np.float16) - np.frombuffer(theirs[name][0], np.float16)).max() < 2e-3
        assert np.abs(np.frombuffer(text, np.float16) - np.frombuffer(theirs[name][1], np.float16)).max() < 2e-3
    opened = KaleidoIndex.open(out)
    number = opened.number(next(iter(mine)))
    assert opened.photograph(number) == (images / opened.entries([number])[0].photographs[0]).read_bytes()
    (images / opened.entries([number])[0].photographs[0]).unlink()
    with pytest.raises(ValueError, match="its photograph in .* cannot be read .*; put it back, or name the folder "):
        opened.photograph(number)


def test_bad_pictures_are_named_and_left_out(encoder: Encoder, catalogue: tuple[CsvCatalogue, Path], tmp_path: Path) -> None:
    """And a folder of pictures alone has no texts."""
    _, images = catalogue
    names = sorted(file.name for file in images.iterdir())
    (images / names[1]).write_bytes(b"no picture")
    (images / names[5]).write_bytes((images / names[5]).read_bytes()[:900])
    out = tmp_path / "index"
    summary = build_index(encoder, PictureProducts(images, products_of_folder(images)), out, ALONE)
    assert summary.holes == {names[1]: "not a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF image",
                             names[5]: "truncated or damaged image"}
    assert f"2 photographs could not be read and were left out ({names[1]}: not a JPEG" in summary.describe()
    assert summary.left_out == (Path(names[1]).stem, Path(names[5]).stem) and len(_products(out)) == len(names) - 2
    opened = KaleidoIndex.open(out)
    assert opened.search("red", k=3) == opened.search("red", k=3, against="both") and not opened.texts.any()
    with pytest.raises(ValueError, match="none of its products has a text; search against photographs"):
        opened.search("red", against="texts")
    with pytest.raises(ValueError, match="it has no text, with which a picture could be matched; give a text too, or leave "):
        opened.search(image=images / names[0], rerank=2)


def test_a_change_that_was_stopped_is_finished_or_never_was(
    encoder: Encoder, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at every rename."""
    start = tmp_path / "start"
    build_index(encoder, ShardProducts(tiny_shards, ["test"]), start, ALONE)
    held = _products(start)
    gone = next(iter(held))
    left = {name: value for name, value in held.items() if name != gone}
    real, calls = files.os.replace, []
    for stop in range(9):
        out = Path(shutil.copytree(start, tmp_path / f"index{stop}"))

        def replace(source: Path, place: Path, stop: int = stop, out: Path = out) -> None:
            if Path(place).parent == out and (calls.append(place) or len(calls) > stop):
                raise KeyboardInterrupt
            real(source, place)

        calls.clear()
        monkeypatch.setattr(files.os, "replace", replace)
        try:
            remove_products(out, [gone])
        except KeyboardInterrupt:
            pass
        else:
            break
        monkeypatch.setattr(files.os, "replace", real)
        assert _products(out) == (held if stop == 0 else left)
        assert remove_products(out, [next(iter(left))]).removed == 1
    assert stop == len(files.ARRAYS) + 2


def test_what_is_no_index_or_damaged_is_refused(
    encoder: Encoder, index_folder: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="gone: no such index; make one with `build_index`"):
        read_header(tmp_path / "gone")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(ValueError, match="other: not empty; give another out or remove it"):
        build_index(encoder, ShardProducts(tiny_shards), tmp_path / "other", ALONE)
    with pytest.raises(ValueError, match=r"^splits: .* has no 'tests', it has train, "):
        ShardProducts(tiny_shards, ["tests"])
    out = Path(shutil.copytree(index_folder, tmp_path / "index"))
    other = Encoder(load_exported(exported_model(tmp_path / "model", tiny_shards, seed=1, itc_dim=8)), torch.device("cpu"))
    with pytest.raises(ValueError, match="made by another model"):
        build_index(other, ShardProducts(tiny_shards), out, ALONE, add=True)
    header = json.loads((out / "index.json").read_text())
    for change, message in (({"format": 9}, "format 9, this version reads 1; index the catalogue again into another out"),
                            ({"photographs": 1}, "photographs.npy: float16 of shape .* index.json says float16 of"),
                            ({"categories": []}, "products.npy: numbers that do not go with index.json"),
                            ({"more": 1}, "index.json: other keys than expected")):
        (out / "index.json").write_text(json.dumps(header | change))
        with pytest.raises(ValueError, match=message):
            read_contents(out)
    (out / "index.json").write_text(json.dumps(header))
    (out / "texts.npy").unlink()
    with pytest.raises(ValueError, match=r"texts.npy: cannot be read .*; index the catalogue again into another out"):
        read_contents(out)


@pytest.mark.slow
def test_two_workers_write_the_same_bytes(search_model: Path, tiny_shards: Path, index_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "kaleido_fast",
               "index", str(search_model), "--shards", str(tiny_shards), "--batch", "16", "--out"]
    quiet = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(tmp_path / "index")], capture_output=True, text=True, timeout=300, env=quiet)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count(f"{tmp_path / 'index'}: 60 products, ") == 1
    assert _arrays(tmp_path / "index") == _arrays(index_folder)
    one, two = (json.loads((folder / "index.json").read_text()) for folder in (index_folder, tmp_path / "index"))
    assert one | {"state": two["state"]} == two
