"""The approximate index finds most of what exact search finds, of the same state, and says how many."""

import builtins
import shutil
from pathlib import Path

import numpy as np
import pytest

from kaleido_fast.search import approximate
from kaleido_fast.search.approximate import make_approximate
from kaleido_fast.search.build import remove_products
from kaleido_fast.search.encoder import Encoder
from kaleido_fast.search.folder import Entry, Header, Source, read_contents
from kaleido_fast.search.index import KaleidoIndex
from kaleido_fast.search.writer import Writer


@pytest.fixture(scope="module")
def drawn(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,200 products around 40 centres, some of two photographs, every fifth without a text."""
    out, draw = tmp_path_factory.mktemp("drawn") / "index", np.random.default_rng(0)
    out.mkdir()
    encoder.write(out / "model")
    centres = draw.normal(size=(40, encoder.size))
    with Writer(out, Header(encoder.fingerprint, encoder.size, sources=(Source("images", "/nowhere"),))) as writer:
        for number in range(1200):
            rows = centres[number % 40] + 0.4 * draw.normal(size=(3, encoder.size))
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            text, count = "" if number % 5 == 0 else "red shirt", 1 + number % 2
            files = tuple(f"{number}_{one}.jpg" for one in range(count))
            entry = Entry(f"p{number}", text, f"kind {number % 40}", "", 0, files)
            writer.add(entry, rows[:count], rows[2] if text else np.zeros(encoder.size))
        writer.commit()
    return out


def test_it_finds_what_exact_search_finds(drawn: Path, encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="index: no approximate index, none was made; make one with `make_approximate`"):
        KaleidoIndex.open(drawn, approximate=True)
    contents = read_contents(drawn)
    summary = make_approximate(drawn, contents)
    assert summary.queries == 960 and set(summary.recall) == {"photographs", "texts"}
    assert 0.95 <= min(summary.recall.values()) and max(summary.recall.values()) < 1
    assert f"{summary.recall['photographs']:.1%} of photographs, " in summary.describe()
    exact, nearly = KaleidoIndex.open(drawn), KaleidoIndex.open(drawn, approximate=True)
    for against in ("photographs", "texts", "both"):
        common = 0
        for word in ("red", "blue", "green shoes"):
            ours, theirs = (index.search(word, k=10, against=against) for index in (exact, nearly))
            common += len({hit.id for hit in ours} & {hit.id for hit in theirs})
            scores = {hit.id: hit.score for hit in ours}
            for hit in theirs:
                assert hit.score == pytest.approx(scores.get(hit.id, hit.score), abs=1e-5)
        assert common >= 24, against
    kinds = [index.search("red", k=99, category="kind 3") for index in (exact, nearly)]
    assert [hit.id for hit in kinds[0]] == [hit.id for hit in kinds[1]] and len(kinds[0]) == 30


def test_one_of_another_state_is_refused(drawn: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(drawn, tmp_path / "index"))
    make_approximate(out, read_contents(out))
    KaleidoIndex.open(out, approximate=True)
    remove_products(out, ["p7"])
    with pytest.raises(ValueError, match="no approximate index, made before the index was changed; make one with "):
        KaleidoIndex.open(out, approximate=True)


def test_without_faiss_it_says_what_to_install(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", lambda name, *more: _absent() if name == "faiss" else real(name, *more))
    with pytest.raises(ValueError, match=r"^approximate search needs the package faiss-cpu, .*pip install 'kaleido_fast"):
        approximate.make_approximate(drawn, read_contents(drawn))


def _absent() -> None:
    raise ImportError
