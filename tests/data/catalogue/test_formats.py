"""Catalogues of other formats: Parquet, Hugging Face's folders, WebDataset, Fashion-Gen's HDF5, a folder alone."""

import builtins
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from kaleido_fast.cli import main
from kaleido_fast.data.catalogue.formats.fashion_gen_catalogue import FashionGenCatalogue
from kaleido_fast.data.catalogue.formats.folder_catalogue import FolderCatalogue
from kaleido_fast.data.catalogue.formats.huggingface_catalogue import HuggingFaceCatalogue
from kaleido_fast.data.catalogue.formats.parquet_catalogue import ParquetCatalogue
from kaleido_fast.data.catalogue.formats.webdataset_catalogue import WebDatasetCatalogue
from kaleido_fast.data.catalogue.skipping import Skipped
from kaleido_fast.data.shards.split import Split
from tests.data.conftest import draw_photograph

FLAGS: dict[str, Any] = {"text": ("title",), "category": "kind", "subcategory": ""}


def _jpeg(number: int) -> bytes:
    out = io.BytesIO()
    draw_photograph((10 * number, 90, 20), seed=number).save(out, "JPEG", quality=90)
    return out.getvalue()


def _read(catalogue: Any) -> tuple[dict[str, tuple[str, str, str, list[bytes]]], Skipped]:
    skipped = Skipped()
    return {p.id: (p.text, p.category, p.split, [s.read() for s in p.photographs])
            for p in catalogue.products(skipped)}, skipped


def _table(pictures: list[Any]) -> pa.Table:
    return pa.table({"id": list(range(len(pictures))), "title": [f"bag {n}" for n in range(len(pictures))],
                     "kind": [n % 2 for n in range(len(pictures))], "image": pictures})


def _struct(number: int) -> dict[str, Any]:
    return {"bytes": _jpeg(number), "path": f"{number}.jpg"}


@pytest.mark.parametrize("pictures", [
    [_jpeg(n) for n in range(3)], [_struct(n) for n in range(3)], [[_struct(n), _struct(n + 1)] for n in range(3)],
], ids=["bytes", "structs", "lists"])
def test_parquet_with_photographs_in_it(tmp_path: Path, pictures: list[Any]) -> None:
    pa.parquet.write_table(_table(pictures), tmp_path / "t.parquet")
    products, _ = _read(ParquetCatalogue((tmp_path / "t.parquet",), image="image", **FLAGS))
    assert [product[:2] for product in products.values()] == [("bag 0", "0"), ("bag 1", "1"), ("bag 2", "0")]
    expected = [[_jpeg(n), _jpeg(n + 1)] if isinstance(pictures[0], list) else [_jpeg(n)] for n in range(3)]
    assert [product[3] for product in products.values()] == expected


def test_parquet_with_paths_and_several_files_and_rows_without_ids(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(_jpeg(number))
    for part in range(2):
        pa.parquet.write_table(_table(["0.jpg", "1.jpg"] if part == 0 else ["2.jpg", "3.jpg"]), tmp_path / f"{part}.parquet")
    files = (tmp_path / "0.parquet", tmp_path / "1.parquet")
    products, _ = _read(ParquetCatalogue(files, images=tmp_path, image="image", **FLAGS | {"id": ""}))
    assert list(products) == ["row1", "row2", "row3", "row4"] and products["row4"][3] == [_jpeg(3)]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A folder as save_to_disk writes it: two splits, a class by number, photographs inside."""
    schema = {b"huggingface": json.dumps({"info": {"features": {
        "kind": {"names": ["Bags", "Hats"], "_type": "ClassLabel"}}}}).encode()}
    for split, start in (("train", 0), ("test", 3)):
        table = _table([_struct(n) for n in range(start, start + 3)]).replace_schema_metadata(schema)
        table = table.set_column(0, "id", pa.array([f"p{n}" for n in range(start, start + 3)]))
        (tmp_path / "d" / split).mkdir(parents=True)
        with pa.OSFile(str(tmp_path / "d" / split / "data-00000-of-00001.arrow"), "wb") as sink, \
                pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return tmp_path / "d"


def test_a_dataset_of_hugging_face_on_disk(dataset: Path) -> None:
    products, _ = _read(HuggingFaceCatalogue(dataset, image="image", split="split", **FLAGS))
    assert products["p4"] == ("bag 1", "Hats", "test", [_jpeg(4)]) and products["p0"][1:3] == ("Bags", "train")
    source = next(HuggingFaceCatalogue(dataset, image="image", **FLAGS).products(Skipped())).photographs[0]
    assert source.file.suffix == ".arrow", "photographs are read where they lie"


def test_fashion_gen(tmp_path: Path) -> None:
    pixels = np.stack([np.asarray(draw_photograph((40 * n, 90, 20), (64, 64), n)) for n in range(5)])
    with h5py.File(tmp_path / "fashiongen_256_256_train.h5", "w") as file:
        file["input_image"] = pixels
        file["input_productID"] = np.array([[7], [7], [8], [9], [9]])
        for name, texts in {"name": ["bag", "bag", "hat", "caf\xe9", "caf\xe9"], "description": ["d"] * 5,
                            "category": ["A"] * 5, "subcategory": ["B"] * 5}.items():
            file[f"input_{name}"] = np.array([[text.encode("latin-1")] for text in texts])
    products, _ = _read(FashionGenCatalogue((tmp_path / "fashiongen_256_256_train.h5",), split="split"))
    assert {key: (*value[:3], len(value[3])) for key, value in products.items()} == {
        "7": ("bag. d", "A", "train", 2), "8": ("hat. d", "A", "train", 1), "9": ("caf\xe9. d", "A", "train", 2)}
    assert (np.asarray(Image.open(io.BytesIO(products["9"][3][1]))) == pixels[4]).all()


@pytest.mark.slow
def test_webdataset_reads_what_prepare_wrote(make_catalogue: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_catalogue(30)
    assert main(["prepare", "--catalog", str(folder / "styles.csv"), "--images", str(folder / "images"), "--vocab-size", "200",
                 "--out", str(tmp_path / "a")]) == 0
    given = ["--category", "category", "--subcategory", "subcategory", "--text", "text", "--vocab-size", "200"]
    tars = [str(tmp_path / "a" / f"{split}-000000.tar") for split in ("train", "validation", "test")]
    tars = [tar for tar in tars if Path(tar).exists()]
    columns = {"text": ("text",), "category": "category", "subcategory": "subcategory"}
    products, skipped = _read(WebDatasetCatalogue((Path(tars[0]),), **columns))
    train = Split.open(tmp_path / "a", "train")
    assert len(products) == train.num_products and not skipped.total()
    record = train.record(0)
    assert train.read(0) in products[record["id"]][3] and products[record["id"]][0] == record["text"]
    assert main(["prepare", "--from", "webdataset", "--catalog", tars[0], *given, "--out", str(tmp_path / "b")]) == 0


def _tar(file: Path, **members: bytes) -> Path:
    with tarfile.open(file, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


def test_webdataset_of_captions_and_a_name_twice(tmp_path: Path) -> None:
    tars = tuple(_tar(tmp_path / f"{n}.tar", a_jpg=_jpeg(n), a_txt=b"bag ", a_json=b'{"kind": 3, "x": [1]}') for n in range(2))
    products, skipped = _read(WebDatasetCatalogue(tars, **FLAGS | {"id": "__key__", "text": ("txt",)}))
    assert {key: value[:2] for key, value in products.items()} == {"a": ("bag", "3")}
    assert skipped.examples == {"name in two tars": ["1.tar, a: a is in 0.tar already"]}


def test_a_folder_alone(tmp_path: Path) -> None:
    for name in ("Bags/Totes/red.jpg", "Bags/Totes/red_1.jpg", "Hats/cap.jpg", "stray.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "Bags/Totes/red.txt").write_text("a red tote")
    (tmp_path / "Hats/cap.txt").write_bytes(b"\xff")
    products, skipped = _read(FolderCatalogue(tmp_path))
    assert products == {"Bags_Totes_red": ("a red tote", "Bags", products["Bags_Totes_red"][2],
                                           [b"Bags/Totes/red.jpg", b"Bags/Totes/red_1.jpg"])}
    assert skipped.counts == {"text that is no UTF-8": 1} and skipped.notices == {"files of no product": (1, "stray.jpg")}


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no parquet": (lambda p: ParquetCatalogue((p / "x",)), "x: no such catalogue"),
    "no arrow": (lambda p: HuggingFaceCatalogue(p), "no .arrow file there; expected a folder written by save_to_disk"),
    "text for parquet": (lambda p: ParquetCatalogue((p / "text",)), "text: cannot be read: "),
    "no h5": (lambda p: FashionGenCatalogue((p / "x",)), "x: no such catalogue"),
    "text for h5": (lambda p: FashionGenCatalogue((p / "text",)), "text: cannot be read as HDF5: "),
    "text for a tar": (lambda p: WebDatasetCatalogue((p / "text",)), "a packed tar is unpacked first"),
    "no text beside": (lambda p: FolderCatalogue(p), "no photograph with a text beside it; expected NAME.jpg and NAME.txt"),
    "no folder": (lambda p: FolderCatalogue(p / "x"), "x: no such folder"),
    "a tar of texts": (lambda p: WebDatasetCatalogue((_tar(p / "t", a_json=b'{"id": 1, "t": "x"}'),), text=("t",), category="",
                                                     subcategory=""), "no photograph there; expected members ending with jpg"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "text").write_text("hello, this is no table\n")
    make, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message):
        list(make(tmp_path).products(Skipped()))


@pytest.mark.parametrize(("package", "catalogue", "message"), [
    ("pyarrow", lambda p: ParquetCatalogue((p,)), r"need pyarrow: pip install 'kaleido_fast\[parquet\]'"),
    ("h5py", lambda p: FashionGenCatalogue((p,)), r"need h5py: pip install 'kaleido_fast\[h5\]'"),
])
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, catalogue: Callable[[Path], Any], message: str
) -> None:
    (tmp_path / "x").write_bytes(b"x")
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=message):
        list(catalogue(tmp_path / "x").products(Skipped()))


def test_what_is_packed_leaves_nothing_behind(tmp_path: Path) -> None:
    pa.parquet.write_table(_table([_jpeg(n) for n in range(3)]), tmp_path / "t.parquet")
    code = ("from pathlib import Path; from kaleido_fast.data.catalogue.formats.parquet_catalogue import ParquetCatalogue; "
            "from kaleido_fast.data.catalogue.skipping import Skipped; "
            f"p = list(ParquetCatalogue((Path({str(tmp_path / 't.parquet')!r}),), image='image', text=('title',), category='', "
            "subcategory='').products(Skipped())); print(p[2].photographs[0].file)")
    spool = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert "kaleido-photographs-" in spool and not Path(spool).exists()
