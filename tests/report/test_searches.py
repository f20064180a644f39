"""Searches in the report: the products that the index finds, in their order, and refusals."""

import base64
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from kaleido_fast.cli import main
from kaleido_fast.search.index import KaleidoIndex
from tests.search.conftest import encoder, index, index_folder, search_model  # noqa: F401 - fixtures


def test_the_first_products_of_each_text_are_shown(made_run: Path, index_folder: Path, index: KaleidoIndex) -> None:  # noqa: F811
    texts = ["red shirt", "blue shoes <b>"]
    assert main(["report", str(made_run), "--index", str(index_folder), "--queries", *texts]) == 0
    page = (made_run / "report.html").read_text(encoding="utf-8")
    section = page.partition("<h2>Searches</h2>")[2].partition("</section>")[0]
    shown = section.split('<div class="example">')[1:]
    assert len(shown) == 2 and "blue shoes &lt;b&gt;" in shown[1]
    for text, part in zip(texts, shown, strict=True):
        hits = index.search(text, k=6)
        assert re.findall('alt="([^"]*)"', part) == [hit.text for hit in hits]
        assert re.findall(r"(\d)\. \((\S+)\)", part) == [(str(place), f"{hit.score:.2f}") for place, hit in enumerate(hits, 1)]
        for data in re.findall('base64,([^"]*)"', part):
            assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) <= 160
    assert main(["report", str(made_run)]) == 0
    assert "<h2>Searches</h2>" not in (made_run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("arguments", "message"), [
    (["--queries", "red"], "--index and --queries go together: an index, and texts to search it for"),
    (["--index", "INDEX"], "--index and --queries go together"),
    (["--index", "INDEX", "--queries", "☃"], "query '☃': the model knows none of its words"),
    (["--index", "nowhere", "--queries", "red"], "nowhere: no such index; make one with `kaleido-fast index`"),
])
def test_what_cannot_be_searched_is_one_line(
    arguments: list[str], message: str, made_run: Path, index_folder: Path, capsys: pytest.CaptureFixture[str]  # noqa: F811
) -> None:
    assert main(["report", str(made_run), *(str(index_folder) if one == "INDEX" else one for one in arguments)]) == 2
    assert message in capsys.readouterr().err and not (made_run / "report.html").exists()
