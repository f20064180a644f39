"""Texts as catalogues have them: markup, words for nothing, lone quotes, long fields, Excel; each is made plain or refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kaleido_fast.data.catalogue.cell_text import is_nothing, plain_text
from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.skipping import Skipped
from kaleido_fast.data.shards.tokenizer import SPECIAL, Tokenizer, train_vocabulary


@pytest.mark.parametrize(("text", "plain"), [
    ('<p style="text-align: justify;"><strong>A</strong>kurti &ndash; red&nbsp;<br />Wash &amp; care: 30&deg;C</p>',
     "Akurti – red Wash & care: 30°C"),
    ("<style>body{font-family:Arial}</style>soft<!-- note --> wool<script>x = '<p>'</script>", "soft wool"),
    ("&lt;p&gt;a&amp;nbsp;b&lt;/p&gt;", "a b"),
    ('<a title="a > b" href=x>sale</a>', "sale"),
    ("one<li>two<LI>three", "one two three"),
])
def test_markup_becomes_plain_text(text: str, plain: str) -> None:
    assert plain_text(text) == plain


@pytest.mark.parametrize("text", ["H&M  jeans", "size <30 cm > 5", "Q&A; more", "a < b", "<3 bag", "two  spaces", "<brand>"])
def test_what_is_no_markup_stays_letter_by_letter(text: str) -> None:
    assert plain_text(text) is text


def test_words_for_nothing() -> None:
    assert all(map(is_nothing, ("nan", "NaN", r"\N", "None", "NULL", "N/A", "<NA>", "NaT")))
    assert not any(map(is_nothing, ("", "nana", "Na", "no", "null set", "nonesuch")))


def _read(file: Path, content: str, **settings: object) -> tuple[list, Skipped]:
    (file.parent / "images").mkdir(exist_ok=True)
    for number in range(6):
        (file.parent / "images" / f"p{number}.jpg").write_bytes(b"x")
    file.write_text(content, encoding="utf-8")
    skipped = Skipped()
    given = {"text": ("title", "more"), "category": "", "subcategory": ""} | settings
    return list(CsvCatalogue(file, file.parent / "images", **given).products(skipped)), skipped


def test_cells_of_nothing_are_empty_and_html_goes_or_stays(tmp_path: Path) -> None:
    content = "id,title,more,kind\np0,nan,NULL,a\np1,bag,\\N,None\np2,<b>red</b> &amp; blue,N/A,b\n"
    products, skipped = _read(tmp_path / "t.csv", content, category="kind")
    assert [(p.id, p.text, p.category) for p in products] == [("p1", "bag", ""), ("p2", "red & blue", "b")]
    assert skipped.counts == {"empty text": 1}
    assert _read(tmp_path / "t.csv", content, html="keep")[0][1].text == "<b>red</b> &amp; blue"
    with pytest.raises(ValueError, match="html='drop' must be strip or keep"):
        _read(tmp_path / "t.csv", content, html="drop")


LONE = "id\ttitle\tmore\np0\t\"Foo bag\tx\np1\tb\ty\np2\tc\tz\np3\t\"Bar bag\tw\np4\td\tv\n"


def test_a_quote_that_swallowed_rows_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"t.tsv, line 2: a quoted field holds 3 lines that look like rows; give quoting none "
                                         "if quotes are letters there, quoting quotes if the field is meant so"):
        _read(tmp_path / "t.tsv", LONE, delimiter="tab")
    products, skipped = _read(tmp_path / "t.tsv", LONE, delimiter="tab", quoting="none")
    assert [p.text for p in products][:2] == ['"Foo bag. x', "b. y"] and len(products) == 5 and not skipped.total()
    assert _read(tmp_path / "t.tsv", LONE, delimiter="tab", quoting="quotes")[0][0].text.count("\n") == 3
    with pytest.raises(ValueError, match="quoting='all' must be one of auto, quotes, none"):
        _read(tmp_path / "t.tsv", LONE, quoting="all")


def test_prose_of_several_lines_is_no_swallowed_row(tmp_path: Path) -> None:
    products, _ = _read(tmp_path / "t.csv", 'id,title,more\np0,bag,"soft, light, warm, red\nblue, white, and, much, more"\n')
    assert products[0].text == "bag. soft, light, warm, red\nblue, white, and, much, more"


def test_a_long_field_passes(tmp_path: Path) -> None:
    products, _ = _read(tmp_path / "t.csv", f"id,title,more,x\np0,bag,,{'A' * 200_000}\np1,hat,,\n")
    assert [p.text for p in products] == ["bag", "hat"]


@pytest.mark.parametrize("head", [b"PK\x03\x04rest", b"\xd0\xcf\x11\xe0\xa1\xb1"])
def test_excel_is_refused_with_what_to_do(make_catalogue: Callable[..., Path], head: bytes) -> None:
    folder = make_catalogue(3)
    (folder / "styles.csv").write_bytes(head)
    with pytest.raises(ValueError, match="styles.csv: an Excel file; save its sheet as CSV UTF-8 and give that"):
        list(CsvCatalogue(folder / "styles.csv", folder / "images").products(Skipped()))


def test_marks_that_carry_meaning_stay_where_the_vocabulary_is_trained_on_them() -> None:
    texts = ["バック", "パック", "ハック", "เสื้อผู้หญิง", "में", "Café Ä İstanbul Йод"]
    tokenizer = Tokenizer(train_vocabulary(texts, 200))
    assert len({tuple(tokenizer.encode(text)) for text in texts[:3]}) == 3
    assert all(tokenizer.words.index("[UNK]") not in tokenizer.encode(text) for text in texts)
    assert tokenizer.encode("Café Йод İstanbul") == tokenizer.encode("cafe иод istanbul")
    assert tokenizer.encode_with_offsets("Crème パック")[1][-1][1] == 9
    other = Tokenizer(["[PAD]", "[unused0]", *SPECIAL[1:], *tokenizer.words[5:]])
    assert other.encode("パック") == other.encode("ハック"), "a BERT's vocabulary stays as BERT reads it"


def test_a_vocabulary_of_no_such_text_is_what_it_was() -> None:
    words = train_vocabulary(["Café bag", "한국 bag", "Ä Йод"], 100)
    assert "한국" not in words and "cafe" in words
    assert not any("가" <= letter <= "힣" for word in words for letter in word), "syllables stay apart, as before"
