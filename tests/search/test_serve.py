"""The page's server, asked without a browser: what it answers, what it refuses, and that nothing leaves the index."""

import io
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from kaleido_fast import verbs_serve
from kaleido_fast.cli import main
from kaleido_fast.search.build import remove_products
from kaleido_fast.search.encoder import Encoder
from kaleido_fast.search.index import KaleidoIndex
from kaleido_fast.search.page.limits import Limits
from kaleido_fast.search.page.reasons import reasons
from kaleido_fast.search.result import Query

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
from fastapi.testclient import TestClient  # noqa: E402

from kaleido_fast.search.page.app import TooBusy, Turns, create_app  # noqa: E402

SMALL = Limits(upload_mib=0.05, pixels=300_000, query_letters=100)


@pytest.fixture(scope="module")
def client(index: KaleidoIndex) -> TestClient:
    return TestClient(create_app(index, SMALL), raise_server_exceptions=False)


def test_it_answers_as_the_index_does(client: TestClient, index: KaleidoIndex, tiny_shards: Path) -> None:
    expected = [hit.values() for hit in index.search("a red shirt", k=5)]
    assert client.get("/api/search", params={"text": "a red shirt", "k": 5}).json() == {"hits": expected}
    assert client.post("/api/search", data={"text": "a red shirt", "k": "5"}).json() == {"hits": expected}
    kind = expected[0]["subcategory"]
    hits = client.get("/api/search", params={"text": "a red shirt", "category": kind, "k": 50}).json()["hits"]
    assert {hit["subcategory"] for hit in hits} == {kind}
    one = index.entries([7])[0]
    file = tiny_shards.parent / "catalogue" / "images" / f"{one.id}.jpg"
    hits = client.post("/api/search", data={"k": "4"}, files={"image": ("a.jpg", file.read_bytes())}).json()["hits"]
    assert hits == [hit.values() for hit in index.search(image=file, k=4)]
    like = client.get("/api/search", params={"like": one.id, "k": 3}).json()["hits"]
    assert [hit["id"] for hit in like] == [hit.id for hit in index.search(like=one.id, k=3)]
    health = client.get("/health").json()
    assert health["status"] == "ok" and health["products"] == 60 and health["model"] == index.header.model[:16]


def test_the_page_and_its_files_load_nothing_from_elsewhere(client: TestClient, index: KaleidoIndex) -> None:
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        answer = client.get(path)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
        assert not re.search(r"https?:|[\"'(]//", answer.text)
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "60 products" in client.get("/").text and "<option>" in client.get("/").text
    for path, size in (("/photographs/3/0", None), ("/squares/3/0", (60, 60))):
        image = Image.open(io.BytesIO(client.get(path).content))
        assert image.format == "JPEG" and (size is None or image.size == size)


@pytest.mark.parametrize(("request_", "status", "message"), [
    ({"data": {"text": "a " * 100}}, 400, "a query of 200 letters; at most 100 are read"),
    ({"data": {}}, 400, "a query is a text, a picture"),
    ({"data": {"text": "red", "k": "101"}}, 400, "k=101 must be between 1 and 100"),
    ({"data": {"text": "red", "category": "nothing"}}, 400, "category 'nothing': not in this index"),
    ({"files": {"image": ("a.jpg", b"just words")}}, 400, "the photograph cannot be used: not a JPEG, PNG, WebP"),
    ({"files": {"image": ("a.jpg", b"")}}, 400, "the photograph is empty"),
    ({"files": {"image": ("a.jpg", b"x" * 60_000)}}, 400, "a photograph of more than 0.05 MiB; send a smaller one"),
    ({"files": {"image": ("a.jpg", b"x" * 200_000)}}, 413, "a photograph of more than 0.05 MiB; send a smaller one"),
    ({"files": {"image": ("a.jpg", b"x" * 3_000_000)}}, 413, "a photograph of more than 0.05 MiB; send a smaller one"),
])
def test_what_is_too_much_is_refused_in_a_sentence(client: TestClient, request_: dict, status: int, message: str) -> None:
    answer = client.post("/api/search", **request_)
    assert answer.status_code == status and answer.json()["error"].startswith(message)


def test_a_picture_of_many_pixels_in_few_bytes_is_not_decoded(client: TestClient) -> None:
    out = io.BytesIO()
    Image.new("1", (600, 600)).save(out, "PNG")
    answer = client.post("/api/search", files={"image": ("a.png", out.getvalue())})
    assert answer.json() == {"error": "a photograph of 600 x 600 pixels; at most 300,000 pixels are read: send a smaller one"}


def test_no_path_leaves_the_index(client: TestClient, index: KaleidoIndex) -> None:
    for path in ("/photographs/60/0", "/photographs/-1/0", "/photographs/3/64", "/photographs/..%2f..%2fetc/passwd",
                 "/files/page.js", "/../setup.py", "/squares/0/-1"):
        answer = client.get(path)
        assert answer.status_code in (400, 404, 422) and str(index.folder.parent) not in answer.text


def test_only_so_many_search_at_once() -> None:
    turns = Turns(Limits(running=1, waiting=0))
    with turns.one(), pytest.raises(TooBusy), turns.one():
        pass
    with turns.one():  # the place is free again
        pass


def test_too_many_searches_are_sent_away(index: KaleidoIndex) -> None:
    busy = TestClient(create_app(index, Limits(running=0, waiting=0)))
    answer = busy.get("/api/search", params={"text": "red"})
    assert answer.status_code == 503 and answer.json() == {"error": "too many searches at once; try again in a moment"}


def test_the_reasons_are_what_the_cosine_loses(index: KaleidoIndex, encoder: Encoder, client: TestClient) -> None:
    why = reasons(index, Query("a red shirt"), 5, 0)
    photograph, text = encoder.squares(index.square(5)[None])[0], encoder.texts(["a red shirt", "a shirt"])
    assert why.cosine == pytest.approx(float(photograph @ text[0]), abs=1e-5) and why.words_of == "query"
    assert [word for word, _ in why.words] == ["a", "red", "shirt"]
    assert why.words[1][1] == pytest.approx(float(photograph @ (text[0] - text[1])), abs=1e-5)
    assert (why.grid, len(why.places)) == (5, 25) and len({round(loss, 6) for loss in why.places}) > 20
    like = client.post("/api/reasons", data={"product": "5", "like": index.entries([2])[0].id}).json()
    assert like["words_of"] == "product" and [word for word, _ in like["words"]] == index.entries([5])[0].text.split()[:40]
    assert client.post("/api/reasons", data={"product": "60", "text": "red"}).json()["error"].startswith("no product 60")


def test_an_empty_index_says_so(encoder: Encoder, index_folder: Path, tmp_path: Path) -> None:

    folder = tmp_path / "index"
    shutil.copytree(index_folder, folder)
    remove_products(folder, [entry.id for entry in KaleidoIndex.open(folder).entries(range(60))])
    empty = TestClient(create_app(KaleidoIndex.open(folder)))
    assert "0 products" in empty.get("/").text and empty.get("/health").json()["products"] == 0
    answer = empty.get("/api/search", params={"text": "red"})
    assert answer.status_code == 400 and "this index holds no products" in answer.json()["error"]


def test_missing_packages_are_named(index_folder: Path, monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(verbs_serve, "PACKAGES", {"no_such_module": "no-such-package"})
    assert main(["serve", str(index_folder)]) == 2
    assert "serve needs the packages no-such-package, not found: no-such-package; pip install 'kaleido_fast[serve]'" \
        in capsys.readouterr().err
