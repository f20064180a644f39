"""What an opened index answers, against a plain product of embeddings, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest

from kaleido_fast import KaleidoBert
from kaleido_fast.data.shards.split import Split
from kaleido_fast.search.encoder import Encoder
from kaleido_fast.search.folder import read_entries
from kaleido_fast.search.index import KaleidoIndex
from tests.exported import exported_model


def _images(shards: Path) -> Path:
    return shards.parent / "catalogue" / "images"


def test_the_files_hold_what_the_api_encodes(index: KaleidoIndex, index_folder: Path, search_model: Path,
                                             tiny_shards: Path) -> None:
    """Read as a stranger would, with NumPy alone."""
    photographs, texts = (np.load(index_folder / name) for name in ("photographs.npy", "texts.npy"))
    entries = index.entries(range(len(index)))
    assert photographs.dtype == texts.dtype == np.float16 and len(entries) == len(texts) == 60
    assert len(photographs) == sum(len(entry.photographs) for entry in entries)
    model = KaleidoBert.from_pretrained(search_model)
    expected = model.encode_text([entry.text for entry in entries]).numpy()
    assert np.abs(texts - expected).max() < 2e-3
    firsts = np.cumsum([0, *(len(entry.photographs) for entry in entries)])[:-1]
    expected = model.encode_image([_images(tiny_shards) / f"{entry.id}.jpg" for entry in entries]).numpy()
    assert np.abs(photographs[firsts] - expected).max() < 2e-3
    assert [row["id"].decode() for row in index.table] == [entry.id for entry in entries]
    split = Split.open(tiny_shards, "test")
    assert {split.products["id"][0].decode()} <= {entry.id for entry in entries}


@pytest.mark.parametrize("against", ["photographs", "texts", "both"])
def test_it_ranks_as_a_product_of_embeddings(index: KaleidoIndex, encoder: Encoder, against: str) -> None:
    query = encoder.texts(["a red shirt"])[0]
    photographs, texts = np.asarray(index.photographs, np.float32) @ query, np.asarray(index.texts, np.float32) @ query
    best = np.array([photographs[row["first_photograph"]:][: row["num_photographs"]].max() for row in index.table])
    expected = {"photographs": best, "texts": texts, "both": (best + texts) / 2}[against]
    hits = index.search(" a red shirt", k=7, against=against)
    assert [hit.product for hit in hits] == np.argsort(-expected, kind="stable")[:7].tolist()
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(expected)[::-1][:7], atol=1e-5)
    assert [hit.cosine for hit in hits] == [hit.score for hit in hits] and not any(hit.is_reranked for hit in hits)
    assert len(index.search("a red shirt", k=1000)) == 60


def test_a_photograph_finds_itself_and_goes_with_a_text(index: KaleidoIndex, encoder: Encoder, tiny_shards: Path) -> None:
    entry = index.entries([17])[0]
    file = _images(tiny_shards) / f"{entry.id}.jpg"
    first = index.search(image=file, k=1, against="photographs")[0]
    assert (first.id, first.text) == (entry.id, entry.text) and first.score == pytest.approx(1, abs=2e-3)
    parts = encoder.texts(["blue shoes"])[0], encoder.pictures_of([file])[0][0]
    both = sum(parts) / np.linalg.norm(sum(parts))
    scores = np.maximum.reduceat(np.asarray(index.photographs, np.float32) @ both, index.table["first_photograph"])
    hits = index.search("blue shoes", image=file, k=5, against="photographs")
    assert [hit.product for hit in hits] == np.argsort(-scores, kind="stable")[:5].tolist()
    like = index.search(like=entry.id, k=60)
    assert len(like) == 59 and entry.id not in {hit.id for hit in like}


def test_the_first_are_ranked_again_by_both(index: KaleidoIndex, search_model: Path, tiny_shards: Path) -> None:
    model = KaleidoBert.from_pretrained(search_model)
    plain, hits = (index.search("green bag", k=9, rerank=rerank, against="photographs") for rerank in (0, 6))
    files = [_images(tiny_shards) / (f"{hit.id}_{hit.photograph}.jpg" if hit.photograph else f"{hit.id}.jpg") for hit in hits]
    both = model.score(files[:6], ["green bag"] * 6, by="both").numpy()
    np.testing.assert_allclose([hit.score for hit in hits[:6]], both, atol=2e-2)  # cosines in fp16 over a temperature of 0.07
    assert both.argsort()[::-1].tolist() == list(range(6)) and [hit.is_reranked for hit in hits] == [True] * 6 + [False] * 3
    assert {hit.id for hit in hits[:6]} == {hit.id for hit in plain[:6]} and hits[6:] == plain[6:]
    by_picture = index.search(image=files[0], k=3, rerank=3)
    expected = model.score([files[0]] * 3, [hit.text for hit in by_picture], by="itm").numpy()
    np.testing.assert_allclose([hit.score - hit.cosine / 0.07 for hit in by_picture], expected, atol=2e-2)


def test_a_category_is_a_category_or_a_kind_in_any_case(index: KaleidoIndex) -> None:
    kinds = {entry.subcategory for entry in index.entries(range(60))}
    kind = sorted(kinds)[0]
    assert {hit.subcategory for hit in index.search("red", k=60, category=kind.upper())} == {kind}
    group = index.entries([0])[0].category
    assert {hit.category for hit in index.search("red", k=60, category=f" {group.lower()} ")} == {group}
    with pytest.raises(ValueError, match=rf"^category '{kind}e': not in this index; did you mean '{kind}'\? \(it has "):
        index.search("red", category=f"{kind}e")


@pytest.mark.parametrize("against", ["photographs", "texts", "both"])
def test_a_few_products_are_scored_as_among_all(index: KaleidoIndex, encoder: Encoder, against: str) -> None:
    """Fewer than a twentieth are gathered for the query."""
    query, members = encoder.texts(["a red shirt"])[0], np.zeros(len(index), bool)
    members[[23, 41]] = True
    few, whole = (index._cosines(query, against, some) for some in (members, np.ones(len(index), bool)))
    np.testing.assert_allclose(few[members], whole[members], atol=1e-6)
    assert np.isneginf(few[~members]).all()


def test_what_cannot_be_looked_for_is_refused_in_a_sentence(index: KaleidoIndex, tmp_path: Path) -> None:
    (tmp_path / "no.jpg").write_text("no picture")
    for query, message in (
        ({}, r"^a query is a text, a picture \(image\), or both, or the id of a product \(like\); give one of them$"),
        ({"text": "a", "like": "1"}, "^a query is a text"),
        ({"text": "☃ ☃"}, "^query '☃ ☃': the model knows none of its words; use words that its catalogue used"),
        ({"image": tmp_path / "no.jpg"}, "^the query's picture: .*no.jpg: not a JPEG, PNG"),
        ({"image": tmp_path / "gone.jpg"}, "^the query's picture: .*gone.jpg: no such photograph"),
        ({"like": "nobody"}, "no product 'nobody'$"),
        ({"text": "red", "k": 0}, "^k=0 must be at least 1"),
        ({"text": "red", "rerank": -1}, "^rerank=-1 must be at least 0"),
        ({"text": "red", "against": "words"}, "^against=words: unknown; use both, photographs, texts"),
    ):
        with pytest.raises(ValueError, match=message):
            index.search(**query)


def test_queries_of_another_model_are_refused(index_folder: Path, tiny_shards: Path, tmp_path: Path) -> None:
    other = exported_model(tmp_path / "other", tiny_shards, seed=1, itc_dim=8)
    with pytest.raises(ValueError, match="index: made by another model .*so its embeddings mean nothing here; give that model"):
        KaleidoIndex.open(index_folder, model=other)
    without = exported_model(tmp_path / "without", tiny_shards)
    with pytest.raises(ValueError, match="^this model was trained without contrast"):
        KaleidoIndex.open(index_folder, model=without)


def test_photographs_are_read_from_where_they_lie(index: KaleidoIndex, tiny_shards: Path) -> None:
    entry = index.entries([3])[0]
    assert index.photograph(3) == (_images(tiny_shards) / f"{entry.id}.jpg").read_bytes()
    assert index.square(3).shape == (60, 60, 3)
    with pytest.raises(ValueError, match=f"^product {entry.id}: no photograph 64, it has "):
        index.photograph(3, 64)
    assert read_entries(index._contents, [3]) == [entry]
