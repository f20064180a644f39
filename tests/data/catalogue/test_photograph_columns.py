"""Photographs that a column names, rows gathered into products, sub-folders, near misses, colours of a profile."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from kaleido_fast.data.catalogue.colour import srgb_transform
from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.photograph import store_photograph
from kaleido_fast.data.catalogue.photograph_columns import id_of_path, paths_of
from kaleido_fast.data.catalogue.photograph_files import photographs_by_id
from kaleido_fast.data.catalogue.picture import picture_square
from kaleido_fast.data.catalogue.product import PhotographBytes
from kaleido_fast.data.catalogue.skipping import Skipped


def _read(folder: Path, table: str, files: tuple[str, ...], **columns: object) -> tuple[dict[str, list[str]], Skipped, list]:
    """Photographs of each product, relative to the folder of photographs."""
    images = folder / "images"
    for name in files:
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes(b"x")
    (folder / "t.csv").write_text(table)
    skipped = Skipped()
    given = {"text": ("title",), "category": "", "subcategory": ""} | columns
    products = list(CsvCatalogue(folder / "t.csv", images, **given).products(skipped))
    return {p.id: [s.path.relative_to(images).as_posix() for s in p.photographs] for p in products}, skipped, products


def test_a_column_names_the_photographs_and_may_be_the_ids(tmp_path: Path) -> None:
    seen, skipped, _ = _read(tmp_path, "filepath,title\na/1.jpg,bag\nb/1.jpg,hat\n", ("a/1.jpg", "b/1.jpg"),
                             id="filepath", image="filepath")
    assert seen == {"a_1": ["a/1.jpg"], "b_1": ["b/1.jpg"]} and not skipped.total()


def test_several_rows_and_several_in_a_cell(tmp_path: Path) -> None:
    table = 'id,pic,title\n7,1.jpg,\n7,"2.png|deep.jpg",bag\n8,"[""3.avif"", ""1.jpg""]",hat\n9,none,cap\n'
    seen, skipped, products = _read(tmp_path, table, ("1.jpg", "2.png", "x/y/deep.jpg", "3.avif"), image="pic")
    assert seen == {"7": ["1.jpg", "2.png", "x/y/deep.jpg"], "8": ["3.avif", "1.jpg"]}
    assert [p.text for p in products] == ["bag", "hat"], "the first cell that is not empty"
    assert skipped.examples == {"no photograph": ["row 5: id 9"]}


def test_a_path_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    table = "id,pic,title\n1,gone.jpg,a\n2,http://x.org/2.jpg,b\n3,../t.csv,c\n4,two.jpg,d\n5,five.jpg,e\n6,five.jpg;no.jpg,f\n"
    seen, skipped, _ = _read(tmp_path, table, ("a/two.jpg", "b/two.jpg", "five.jpg"), image="pic")
    assert seen == {"5": ["five.jpg"], "6": ["five.jpg"]} and skipped.total() == 5
    said = "\n".join(skipped.examples["no photograph"])
    assert f"row 2: id 1; row 2: gone.jpg, looked for under {tmp_path / 'images'}" in said
    assert "a web address; fetch the photographs first" in said and "two.jpg, of which 2 lie in sub-folders" in said
    assert "row 7: no.jpg, looked for" in said


def test_rows_are_gathered_into_products(tmp_path: Path) -> None:
    table = "id,code,title\n10,1,bag\n11,1,bag in red\n20,2,hat\n"
    seen, _, products = _read(tmp_path, table, ("10.jpg", "11.jpg", "11_1.jpg", "20.jpg"), product="code")
    assert seen == {"1": ["10.jpg", "11.jpg", "11_1.jpg"], "2": ["20.jpg"]} and products[0].text == "bag"


def test_sub_folders_and_leftovers(tmp_path: Path) -> None:
    table = "id,title\n0108775015,bag\n0208775015,hat\nnamed.jpg,cap\n"
    seen, skipped, _ = _read(tmp_path, table, ("010/0108775015.jpg", "020/0208775015_1.jfif", "named.jpg", "010/x-2.jpg"))
    assert seen == {"0108775015": ["010/0108775015.jpg"], "0208775015": ["020/0208775015_1.jfif"], "named.jpg": ["named.jpg"]}
    assert skipped.notices == {"files of no product": (1, "010/x-2.jpg")} and not skipped.total()


def test_a_photograph_above_is_not_doubled_by_a_thumbnail_below(tmp_path: Path) -> None:
    for name in ("7.jpg", "small/7.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    skipped = Skipped()
    assert photographs_by_id(tmp_path, {"7"}, skipped) == {"7": (tmp_path / "7.jpg",)} and not skipped.total()
    assert list(skipped.notices.values()) == [(1, "small/7.jpg")]


@pytest.mark.parametrize(("product", "why"), [
    ("108", "a file 010/0108.jpg is there: the id's leading zero is lost; read and write it as text"),
    ("108.0", "a file 010/0108.jpg is there: the id became a fraction"),
    ("A7", "a file a7.jpg is there: name both alike"),
])
def test_a_near_miss_is_named(tmp_path: Path, product: str, why: str) -> None:
    _, skipped, _ = _read(tmp_path, f"id,title\n{product},bag\n", ("010/0108.jpg", "a7.jpg"))
    assert f"row 2: id {product}; {why}" in skipped.examples["no photograph"][0]


def test_an_id_that_is_a_path_is_refused_with_what_to_do(tmp_path: Path) -> None:
    _, skipped, _ = _read(tmp_path, "id,title\na/1.jpg,bag\n", ("a/1.jpg",))
    assert "give its column as that of the photographs too" in skipped.examples["unusable id"][0]


def test_cells_and_ids_of_paths(tmp_path: Path) -> None:
    assert paths_of("['a.jpg', 'b.jpg']", tmp_path) == ["a.jpg", "b.jpg"] and paths_of(r"\N", tmp_path) == []
    assert paths_of("a, b.jpg", tmp_path) == ["a", "b.jpg"]
    (tmp_path / "a, b.jpg").touch()
    assert paths_of("a, b.jpg", tmp_path) == ["a, b.jpg"]
    assert id_of_path("./images/14.5.jpg") == "images_14.5"


def _jpeg(image: Image.Image, profile: bytes | None) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95, subsampling=0, icc_profile=profile)
    return out.getvalue()


def test_a_profile_other_than_srgb_is_stored_as_srgb(photograph: Callable[..., Image.Image], tmp_path: Path) -> None:
    image = photograph((200, 30, 30))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (None, srgb, b"no profile"):
        data = _jpeg(image, profile)
        assert store_photograph(PhotographBytes("x", data), 1024).data == data
    # A wider space, as a display's: the same profile with red and green exchanged.
    red, green = srgb.index(b"rXYZ"), srgb.index(b"gXYZ")
    other = bytearray(srgb)
    other[red : red + 4], other[green : green + 4] = b"gXYZ", b"rXYZ"
    (tmp_path / "x.jpg").write_bytes(data := _jpeg(image, bytes(other)))
    assert srgb_transform(Image.open(io.BytesIO(data))) is not None
    stored = store_photograph(PhotographBytes("x", data), 1024)
    pixels = np.asarray(Image.open(io.BytesIO(stored.data)).convert("RGB"))[40, 30]
    assert pixels[1] > 150 > 80 > pixels[0], "red numbers meant green"
    squares = [picture_square(picture, 1024, 32) for picture in (tmp_path / "x.jpg", Image.open(tmp_path / "x.jpg"))]
    assert (squares[0] == squares[1]).all() and (squares[0][16, 16, 1] > 150)
