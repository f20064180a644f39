"""`kaleido-fast index` and `search` as a user types them."""

import json
import shutil
from pathlib import Path

import pytest

from kaleido_fast.cli import main
from kaleido_fast.search.index import KaleidoIndex


def _says(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_an_index_is_made_searched_and_changed(
    search_model: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "index", tmp_path / "page.html"
    code, said, _ = _says(capsys, "index", search_model, "--shards", tiny_shards, "--splits", "test", "--out", out)
    assert code == 0 and said.startswith(f"{out}: ") and " photographs embedded in " in said
    code, said, _ = _says(capsys, "index", "--shards", tiny_shards, "--out", out, "--add", "--approximate")
    assert code == 0 and f"{out}: 60 products, " in said and "approximate index made in " in said
    code, said, _ = _says(capsys, "search", out, "red shirt", "-k", "3", "--html", page, "--approximate")
    lines = said.splitlines()
    assert code == 0 and len(lines) == 5 and lines[0].split() == ["score", "id", "category", "text"] and lines[4] == str(page)
    expected = KaleidoIndex.open(out).search("red shirt", k=3)
    assert [line.split()[2] for line in lines[1:4]] == [hit.id for hit in expected]
    assert page.read_text().count("data:image/jpeg;base64,") == 3 and "<h1>red shirt</h1>" in page.read_text()
    image = tiny_shards.parent / "catalogue" / "images" / f"{expected[0].id}.jpg"
    code, said, _ = _says(capsys, "search", out, "--image", image, "--json", "--rerank", "2")
    assert code == 0 and [hit["is_reranked"] for hit in json.loads(said)] == [True] * 2 + [False] * 10
    code, said, _ = _says(capsys, "index", "--out", out, "--remove", expected[0].id, expected[1].id)
    assert code == 0 and said.endswith("; 2 products taken out\n")
    code, said, _ = _says(capsys, "search", out, "red shirt", "--json", "-k", "99")
    assert not {hit.id for hit in expected[:2]} & {hit["id"] for hit in json.loads(said)}


def test_pictures_without_a_catalogue(
    search_model: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = Path(shutil.copytree(tiny_shards.parent / "catalogue" / "images", tmp_path / "images"))
    code, said, _ = _says(capsys, "index", search_model, "--images", images, "--out", tmp_path / "index")
    assert code == 0 and ", 0 texts, 8 numbers each" in said
    catalogue = tiny_shards.parent / "catalogue" / "styles.csv"
    code, said, _ = _says(capsys, "index", search_model, "--images", images, "--catalog", catalogue, "--out", tmp_path / "two")
    assert code == 0 and f"{tmp_path / 'two'}: 60 products, " in said and ", 60 texts, " in said


@pytest.mark.parametrize(("arguments", "message"), [
    (("index", "MODEL", "--out", "x"), "give either --shards DIR, or --images DIR"),
    (("index", "MODEL", "--out", "x", "--shards", "SHARDS", "--images", "y"), "give either --shards DIR, or --images DIR"),
    (("index", "MODEL", "--out", "x", "--shards", "SHARDS", "--catalog", "y"), "--catalog goes with --images, not with --sh"),
    (("index", "MODEL", "--out", "x", "--images", "SHARDS", "--splits", "y"), "--splits goes with --shards, not with --images"),
    (("index", "--out", "x", "--shards", "SHARDS"), "MODEL: not given; name an exported folder or a run that was trained"),
    (("index", "MODEL", "--out", "x", "--remove", "1"), "--remove takes products out and does nothing else; leave out MODEL"),
    (("index", "MODEL", "--out", "x", "--shards", "SHARDS", "--batch", "9"), "--batch=9 must be a multiple of 16"),
    (("index", "MODEL", "--out", "x", "--images", "nowhere"), "nowhere: no such folder of pictures; give --images"),
    (("search", "x", "red"), "x: no such index; make one with `kaleido-fast index`"),
    (("search", "INDEX"), "a query is a text, a picture (--image), or both, or the id of a product (--like); give one of them"),
    (("search", "INDEX", "red", "-k", "0"), "-k=0 must be at least 1"),
    (("search", "INDEX", "red", "--category", "nothing"), "category 'nothing': not in this index (it has "),
])
def test_wrong_arguments_are_one_line(
    arguments: tuple[str, ...], message: str, search_model: Path, tiny_shards: Path, index_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"MODEL": search_model, "SHARDS": tiny_shards, "INDEX": index_folder}
    code, _, said = _says(capsys, *(places.get(word, word) for word in arguments))
    assert code == 2 and said.startswith(f"kaleido-fast {arguments[0]}: {message}") and said.count("\n") == 1, said
