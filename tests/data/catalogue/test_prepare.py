"""prepare: what it writes, that it repeats itself byte for byte, and what it makes of bad input."""

import hashlib
import io
import json
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.prepare import PrepareOptions, prepare
from kaleido_fast.data.catalogue.row_rules import split_of
from kaleido_fast.data.shards.split import SPLITS, BrokenSample, Split, sample_key


def _options(folder: Path, out: Path, encoding: str = "utf-8", **more) -> PrepareOptions:
    catalogue = CsvCatalogue(folder / "styles.csv", folder / "images", encoding)
    return PrepareOptions(catalogue, out, **{"vocab_size": 200, "processes": 1} | more)


def _digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_shards_hold_the_catalogue(make_catalogue, tmp_path) -> None:
    folder = make_catalogue()
    summary = prepare(_options(folder, tmp_path / "shards", shard_size=16))
    assert sum(summary.products.values()) == 60 and sum(summary.photographs.values()) == 72
    seen = set()
    for name in SPLITS:
        split = Split.open(tmp_path / "shards", name)
        rows = split.rows(np.arange(split.num_samples))
        for sample, row in enumerate(rows):
            record, data = split.record(sample), split.read(sample)
            seen.add((record["id"], record["photo"]))
            assert split_of(record["id"]) == name
            assert row["key"] == sample_key(record["id"], record["photo"])
            assert zlib.crc32(data) == row["crc"]
            suffix = f"_{record['photo']}" if record["photo"] else ""
            assert data == (folder / "images" / f"{record['id']}{suffix}.jpg").read_bytes()
            assert split.products["id"][row["product"]].decode() == record["id"]
            assert split.manifest.subcategories[row["subcategory"]] == record["subcategory"]
        ids = split.products["id"].tolist()
        assert ids == sorted(ids)
        firsts = split.rows(split.products["first_sample"])
        assert (firsts["product"] == np.arange(split.num_products)).all() and (firsts["photo"] == 0).all()
        for c in range(len(split.manifest.subcategories)):
            ranks = split.products_of_subcategory(c)
            assert ranks.tolist() == np.flatnonzero(split.products["subcategory"] == c).tolist()
    assert len(seen) == 72


def test_the_same_input_gives_the_same_bytes(make_catalogue, tmp_path) -> None:
    folder = make_catalogue(30)
    prepare(_options(folder, tmp_path / "a"))
    prepare(_options(folder, tmp_path / "b", processes=2))
    assert _digests(tmp_path / "a") == _digests(tmp_path / "b")


def test_tars_are_webdataset_and_the_index_fits(make_catalogue, tmp_path) -> None:
    prepare(_options(make_catalogue(30), tmp_path / "shards"))
    tar = tmp_path / "shards" / "train-000000.tar"
    with tarfile.open(tar) as archive:
        members = archive.getmembers()
    assert [m.name.rpartition(".")[2] for m in members] == ["jpg", "json"] * (len(members) // 2)
    assert {m.mtime for m in members} == {0} and {m.uid for m in members} == {0}
    version, *lines = tar.with_suffix(".idx").read_text().splitlines()
    assert version == f"v1.2 {len(lines)}" and len(lines) == len(members) // 2
    _, offset, size, _, _, behind, length, _ = lines[1].split()
    data = tar.read_bytes()
    assert Image.open(io.BytesIO(data[int(offset) : int(offset) + int(size)])).size
    assert json.loads(data[int(behind) : int(behind) + int(length)])["id"].startswith("p")


def test_a_changed_byte_is_noticed(make_catalogue, tmp_path) -> None:
    prepare(_options(make_catalogue(30), tmp_path / "shards"))
    split = Split.open(tmp_path / "shards", "train")
    offset = int(split.rows(np.array([3]))["offset"][0])
    with (tmp_path / "shards" / "train-000000.tar").open("r+b") as stream:
        stream.seek(offset + 40)
        stream.write(b"\x00\x01\x02")
    with pytest.raises(BrokenSample, match=r"train-000000.tar, sample 3: .* do not match their CRC32"):
        split.read(3)
    split.read(2)


BROKEN = {
    "text file": (lambda path: path.write_text("hello"), "not a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF image"),
    "empty": (lambda path: path.write_bytes(b""), "empty file"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:700]), "truncated or damaged image"),
    "missing": (lambda path: path.unlink(), "no photograph"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_an_unusable_photograph_is_skipped_counted_and_named(make_catalogue, tmp_path, how: str) -> None:
    folder = make_catalogue(60)
    damage, reason = BROKEN[how]
    damage(folder / "images" / "p7.jpg")
    with pytest.raises(ValueError, match=f"more than the limit of 1.0%.*{reason}"):
        prepare(_options(folder, tmp_path / "strict"))
    assert not [path for path in tmp_path.iterdir() if path.name != "catalogue"]
    summary = prepare(_options(folder, tmp_path / "shards", max_skipped=0.1))
    assert summary.skipped == {reason: 1} and sum(summary.products.values()) == 59
    manifest = json.loads((tmp_path / "shards" / "manifest.json").read_text())
    assert "row 9" in manifest["skipped"][reason][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "empty; expected a CSV file with a header"),
        (lambda text: text.splitlines()[0] + "\n", "a header and no rows"),
        (lambda text: text.replace("articleType", "articleTyp"),
         "no column 'articleType'; did you mean 'articleTyp'.*name it with subcategory, or give subcategory ''"),
        (lambda text: text.replace("id,", "sku,", 1), "no column 'id'.*name it with id"),
    ],
)
def test_an_unusable_table_is_named(make_catalogue, tmp_path, change, message) -> None:
    folder = make_catalogue(20)
    file = folder / "styles.csv"
    file.write_text(change(file.read_text()))
    with pytest.raises(ValueError, match=message):
        prepare(_options(folder, tmp_path / "shards"))
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("p3,Cat0,Bags,again,twice", "duplicate id"),
        ("../p3,Cat0,Bags,name,text", "unusable id"),
        ("p3000,Cat0,Bags,,", "empty text"),
        ("p3000,Cat0", "wrong number of fields"),
    ],
)
def test_a_bad_row_is_skipped_and_named(make_catalogue, tmp_path, line: str, reason: str) -> None:
    folder = make_catalogue(40)
    with (folder / "styles.csv").open("a") as stream:
        stream.write(line + "\n")
    summary = prepare(_options(folder, tmp_path / "shards", max_skipped=0.1))
    assert summary.skipped == {reason: 1} and sum(summary.products.values()) == 40


def test_an_empty_split_is_said_and_what_to_do(make_catalogue, tmp_path) -> None:
    """By the hash a small catalogue may have no validation product at all."""
    folder = make_catalogue(6)
    summary = prepare(_options(folder, tmp_path / "shards"))
    empty = [name for name in SPLITS if not summary.photographs[name]]
    assert empty
    for name in SPLITS:
        warning = f"split '{name}' is empty: pretrain and evaluate need it; give more products"
        assert (warning in summary.describe()) is (name in empty)
    with pytest.raises(ValueError, match=f"split '{empty[0]}' has no samples; .*; prepare more products, or name their splits"):
        Split.open(tmp_path / "shards", empty[0])


def test_latin_1_and_byte_order_mark(make_catalogue, tmp_path) -> None:
    folder = make_catalogue(20)
    file = folder / "styles.csv"
    text = file.read_text().replace("red Shirts", "crème Shirts")
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="is not utf-8; name the file's own with encoding"):
        prepare(_options(folder, tmp_path / "a"))
    prepare(_options(folder, tmp_path / "b", encoding="latin-1"))
    file.write_bytes(b"\xef\xbb\xbf" + text.encode("utf-8"))
    prepare(_options(folder, tmp_path / "c"))


def test_large_rotated_and_transparent_photographs_become_upright_jpeg(make_catalogue, photograph, tmp_path) -> None:
    folder = make_catalogue(20)
    large = photograph((200, 30, 30), (900, 1300))
    large.save(folder / "images" / "p1.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph((200, 30, 30), (60, 80)).save(folder / "images" / "p2.jpg", exif=exif)
    photograph((200, 30, 30)).convert("RGBA").save(folder / "images" / "p3.jpg", "PNG")
    prepare(_options(folder, tmp_path / "shards", max_side=400))
    sizes = {}
    for name in SPLITS:
        split = Split.open(tmp_path / "shards", name) if _samples(tmp_path / "shards", name) else None
        for sample in range(split.num_samples if split else 0):
            image = Image.open(io.BytesIO(split.read(sample)))
            sizes[split.record(sample)["id"], split.record(sample)["photo"]] = (image.format, image.size)
    assert sizes["p1", 0] == ("JPEG", (277, 400))
    assert sizes["p2", 0] == ("JPEG", (80, 60))
    assert sizes["p3", 0] == ("JPEG", (60, 80))


def _samples(folder: Path, name: str) -> int:
    return sum(json.loads((folder / "manifest.json").read_text())["splits"][name]["samples"])


def test_a_filled_folder_is_not_touched(make_catalogue, tmp_path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty; give another out"):
        prepare(_options(make_catalogue(20), tmp_path / "shards"))
    assert (tmp_path / "shards" / "mine.txt").read_text() == "mine"
