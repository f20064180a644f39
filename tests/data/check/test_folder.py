"""data check: whole shards pass; each kind of damage is explained, with file, sample, product, expected and found."""

import json
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kaleido_fast.cli import main
from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.prepare import PrepareOptions, prepare
from kaleido_fast.data.check.folder import check_folder

SHARD = "train-000000"


def _edit(file: Path, change: Callable[[np.ndarray], None]) -> None:
    """Change an array on disk in place."""
    array = np.load(file)
    change(array)
    np.save(file, array)


def _row(column: str, value: object, place: int = 5) -> Callable[[Path], None]:
    def set_value(array: np.ndarray) -> None:
        array[column][place] = value

    return lambda folder: _edit(folder / f"{SHARD}.table.npy", set_value)


def _product(column: str, value: object) -> Callable[[Path], None]:
    def set_value(array: np.ndarray) -> None:
        array[column][3] = value

    return lambda folder: _edit(folder / "train.products.npy", set_value)


def _bytes(offset: int, data: bytes) -> Callable[[Path], None]:
    """Write over the tar, relative to the fifth photograph."""

    def write(folder: Path) -> None:
        start = int(np.load(folder / f"{SHARD}.table.npy")["offset"][5])
        with (folder / f"{SHARD}.tar").open("r+b") as stream:
            stream.seek(start + offset)
            stream.write(data)

    return write


def _other_picture(folder: Path) -> None:
    """A JPEG cut short, with a length and a CRC32 that fit: decoding shows it."""
    rows = np.load(folder / f"{SHARD}.table.npy")
    offset, length = int(rows["offset"][5]), int(rows["length"][5])
    data = (folder / f"{SHARD}.tar").read_bytes()[offset : offset + length - 40]
    rows["crc"][5], rows["length"][5] = zlib.crc32(data), len(data)
    np.save(folder / f"{SHARD}.table.npy", rows)


def _text(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(change((folder / name).read_text()))


def _twice(folder: Path) -> None:
    """A product of the test split takes the id of one of the train split."""
    taken = np.load(folder / "train.products.npy")["id"][0]
    table = np.load(folder / "test.products.npy")
    dtype = [(name, "S12" if name == "id" else table.dtype[name]) for name in table.dtype.names]
    table = table.astype(dtype)
    table["id"][0] = taken
    np.save(folder / "test.products.npy", table)


def _manifest(**values: object) -> Callable[[Path], None]:
    return _text("manifest.json", lambda text: json.dumps(json.loads(text) | values))


ROW = rf"{SHARD}{{}}, sample 5, product p?\d+: {{}}"
DAMAGE = {
    "photograph": (_bytes(100, b"damage"), ROW.format(r"\.tar", r"CRC32 0x\w+ of [\d,]+ bytes at byte [\d,]+, expected 0x\w+")),
    "picture cut short": (_other_picture, ROW.format(r"\.tar", "cannot be decoded whole: image file is truncated")),
    "tar header": (_bytes(-512, b"x" * 100),
                   ROW.format(r"\.tar", r"no member \(bad checksum\) at byte [\d,]+, expected '000000-000005.jpg'")),
    "tar cut short": (lambda folder: _cut(folder / f"{SHARD}.tar"), r"train-000000\.tar, sample 4\d, product .*: CRC32"),
    "tar end": (lambda folder: _cut(folder / f"{SHARD}.tar", 512), r"bytes, expected [\d,]+ with two empty blocks at the end"),
    "index": (_text(f"{SHARD}.idx", lambda text: text.replace("000000-000005.jpg", "000000-000009.jpg")),
              ROW.format(r"\.idx", r"line 7 is 'jpg .*', expected 'jpg ")),
    "index rows": (_text(f"{SHARD}.idx", lambda text: "\n".join(text.splitlines()[:-1])),
                   r"\.idx: 'v1\.2 \d+' and \d+ lines, expected"),
    "offset": (_row("offset", 512), ROW.format(r"\.tar", r"member '000000-000000.jpg' of .*, expected '000000-000005.jpg'")),
    "negative length": (_row("length", -1), ROW.format(r"\.table\.npy", r"length -1, expected 1\.\.")),
    "product rank": (_row("product", 1_000_000), r"train-000000\.table\.npy, sample 5: product 1000000, expected 0\.\."),
    "other product": (_row("product", 3, place=5), ROW.format(r"\.table\.npy", r"(product 3, which has samples|key )")),
    "key": (_row("key", 7), ROW.format(r"\.table\.npy", r"key 0x0+7, expected 0x\w+ of p\d+/\d")),
    "token out of vocabulary": (_row("tokens", 9_999_999), ROW.format(r"\.table\.npy", r"token id 9999999, expected 0\.\.")),
    "other tokens": (_row("num_tokens", 1), ROW.format(r"\.table\.npy", r"1 tokens \[\d+\]…, its text has \d+")),
    "category": (_row("subcategory", 0), ROW.format(r"\.table\.npy", r"subcategory 0, its product's is [12]")),
    "square": (_row("side", 3), ROW.format(r"\.tar", r"square of 3 at .*, expected a side of 16\.\.\d+ and its centre inside")),
    "square elsewhere": (_row("left", -900), ROW.format(r"\.tar", r"square of \d+ at \(-900, ")),
    "fill": (_row("fill", (1, 2, 3)), ROW.format(r"\.tar", r"fill \(1, 2, 3\), the picture's frame is")),
    "record": (lambda folder: _record(folder), ROW.format(r"\.tar", "record at byte .* is not JSON")),
    "table missing": (lambda folder: (folder / f"{SHARD}.table.npy").unlink(),
                      r"train-000000\.table\.npy: missing; the manifest names it"),
    "table cut short": (lambda folder: _cut(folder / f"{SHARD}.table.npy"), r"train-000000\.table\.npy: cannot be read"),
    "table of other rows": (lambda folder: np.save(folder / f"{SHARD}.table.npy", np.zeros(3)),
                            r"table\.npy: rows of another kind, expected"),
    "tar missing": (lambda folder: (folder / f"{SHARD}.tar").unlink(), r"train-000000\.tar: missing"),
    "products unsorted": (_product("id", b"zzz"),
                          r"train\.products\.npy, product p\w+: stands in row 4 behind 'zzz'; ids must ascend"),
    "products' samples": (_product("num_samples", 0), r"train\.products\.npy, product p\d+: its first photograph is sample"),
    "products' category": (_product("category", 77),
                           r"train\.products\.npy, product p\d+: category 77, expected one of 0\.\.1"),
    "by sub-category": (lambda folder: _edit(folder / "train.by_subcategory.npy", lambda ranks: ranks.sort()),
                        r"by_subcategory\.npy: rank \d+ in row \d+: products must stand by sub-category"),
    "two splits": (_twice, r"train\.products\.npy, product p\d+: is in split 'test' too"),
    "vocabulary": (_text("vocab.txt", lambda text: text.replace("shirts", "shirtz")),
                   r"vocab\.txt: fingerprint \w+, the manifest says"),
    "no vocabulary": (lambda folder: (folder / "vocab.txt").write_bytes(b"\xff\xfe"),
                      r"vocab\.txt: .*cannot be read as a vocabulary"),
    "fingerprint": (_manifest(fingerprint="0" * 64),
                    r"manifest\.json: fingerprint \w+… of the files, expected 0000000000000000…"),
}


def _cut(file: Path, size: int | None = None) -> None:
    """Take the last `size` bytes away; without it the last quarter."""
    data = file.read_bytes()
    file.write_bytes(data[: -size if size else len(data) * 3 // 4])


def _record(folder: Path) -> None:
    length = int(np.load(folder / f"{SHARD}.table.npy")["length"][5])
    _bytes(-(-length // 512) * 512 + 512, b"{no")(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards to copy; read only."""
    folder = tmp_path_factory.mktemp("check")
    _catalogue(folder)
    catalogue = CsvCatalogue(folder / "styles.csv", folder / "images")
    prepare(PrepareOptions(catalogue, folder / "shards", vocab_size=200, processes=1))
    return folder / "shards"


def _catalogue(folder: Path) -> None:
    (folder / "images").mkdir()
    lines = ["id,masterCategory,articleType,productDisplayName,description"]
    for number in range(70):
        kind = ["Shirts", "Shoes", "Bags"][number % 3]
        lines.append(f"p{number},Cat{number % 2},{kind},{kind} {number},a thing")
        pixels = np.full((48, 40, 3), 245, np.uint8)
        pixels[12:36, 10:30] = (200, 30, number)
        Image.fromarray(pixels).save(folder / "images" / f"p{number}.jpg")
    (folder / "styles.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def shards(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "shards"))


def test_whole_shards_pass(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(whole)]) == 0
    assert re.search(r"shards: nothing wrong; 70 photographs of 70 products looked at", capsys.readouterr().out)


def test_shards_with_alignments_and_several_photographs_pass(tiny_shards: Path) -> None:
    lines: list[str] = []
    assert check_folder(tiny_shards, lines.append, processes=2).findings == 0 and not lines


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_explained(shards: Path, how: str) -> None:
    damage, expected = DAMAGE[how]
    damage(shards)
    lines: list[str] = []
    summary = check_folder(shards, lines.append, processes=1)
    assert any(re.search(expected, line) for line in lines), lines
    assert summary.findings == len(lines) and all(line.startswith(f"{shards}/") for line in lines)
    others = [line for line in lines if ", sample " in line and ", sample 5" not in line]
    assert not others or how in ("tar cut short", "products unsorted", "products' samples", "products' category", "two splits")


def test_one_bad_row_is_one_bad_row(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _row("side", 3)(shards)
    assert main(["data", "check", str(shards)]) == 1
    assert "2 findings, 1 bad rows" in capsys.readouterr().out  # the square, and the folder's fingerprint


def test_what_was_opened_is_not_kept_for_the_next_check(shards: Path) -> None:
    """Two checks in one process: the second must see what changed after the first."""
    lines: list[str] = []
    assert not check_folder(shards, lines.append, processes=1).findings
    _text("vocab.txt", lambda text: text.replace("shirts", "shirtz"))(shards)
    _text("manifest.json", lambda text: text.replace("Cat1", "CatX"))(shards)
    check_folder(shards, lines.append, processes=1)
    assert any("category CatX, the record says Cat1" in line for line in lines), lines


def test_alignment_is_looked_at(tiny_shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_shards, tmp_path / "shards"))
    file = folder / f"{SHARD}.alignment.truth.npy"
    masks = np.load(file)
    masks[2, -1], masks[3, 0] = 1, -1
    np.save(file, masks)
    lines: list[str] = []
    check_folder(folder, lines.append, processes=1)
    assert re.search(r"alignment\.truth\.npy, sample 2, product \d+: masks behind the last of \d+ tokens", lines[0])
    assert re.search(r"sample 3, product \d+: a mask with bits from 55 on; there are 55 positions", lines[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no manifest.json there"), ("{", "not JSON"), ("[]", "holds a JSON list, expected an object"),
     ('{"format": 1}', "not a manifest of format 1"), ('{"format": 1, "splits": 3}', "not a manifest of format 1")],
)
def test_without_a_manifest_there_is_nothing_to_check(shards: Path, text: str | None, message: str, capsys) -> None:
    (shards / "manifest.json").unlink()
    if text is not None:
        (shards / "manifest.json").write_text(text)
    assert main(["data", "check", str(shards)]) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors


def test_memory_stays_flat(whole: Path) -> None:
    """Rows are looked at in parts: none holds a whole shard's photographs."""
    from kaleido_fast.data.check.folder import PART, _parts
    from kaleido_fast.data.shards.manifest import Manifest

    manifest = Manifest.read(whole)
    parts = _parts(manifest)
    assert sum(part.stop - part.start for part in parts) == 70 and max(p.stop - p.start for p in parts) <= PART
