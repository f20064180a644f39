"""The authors' feature files: corrupt rows are named, files of any size are read in pieces, and become whole shards."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kaleido_fast.authors import tsv_files
from kaleido_fast.authors.feature_samples import FeatureSamples
from kaleido_fast.authors.prepare_tsv import KaleidoTsvOptions, prepare_kaleido_tsv
from kaleido_fast.authors.tsv_columns import CATEGORY, PRETRAINING, RETRIEVAL, TsvLayout
from kaleido_fast.authors.tsv_files import ReadRow, read_rows
from kaleido_fast.authors.tsv_rows import BadRow, parse_row
from kaleido_fast.cli import main
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import Split, sample_key
from kaleido_fast.data.shards.tokenizer import Tokenizer, bert_ids
from tests.authors import feature_files
from tests.places import GOLDEN

FILES = {PRETRAINING: "kaleido_bert_small.tsv", RETRIEVAL: "kaleido_bert_small_retrieval.tsv",
         CATEGORY: "kaleido_bert_small_category.tsv"}
VOCABULARY = Tokenizer(bert_ids()).vocabulary()


def _line(layout: TsvLayout, row: int = 1) -> bytes:
    return (GOLDEN / FILES[layout]).read_bytes().splitlines()[row]


def _changed(line: bytes, layout: TsvLayout, column: str, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """The line with the values of one column changed."""
    cells = line.split(b"\t")
    place = [known.name for known in layout.columns].index(column)
    cells[place] = b",".join(change(cells[place].split(b",")))
    return b"\t".join(cells)


def _set(place: int, value: bytes) -> Callable[[list[bytes]], list[bytes]]:
    return lambda values: [*values[:place], value, *values[place + 1 :]]


# Row 1 of the pre-training file: 5 tokens 101, 476, 103, 244, 102; one masked, at place 2; grey slots 15, 12.
CORRUPT = [
    (PRETRAINING, "input_ids", lambda values: values[:63], "63 values, expected 64"),
    (PRETRAINING, "input_ids", _set(1, b"30522"), "value 2 is 30522, expected 0..30,521"),
    (PRETRAINING, "input_ids", _set(1, b"-1"), "value 2 is -1, expected 0..30,521"),
    (PRETRAINING, "input_ids", _set(1, b"99999999999999999999"), "value 2 is 9223372036854775807, expected 0"),
    (PRETRAINING, "input_ids", _set(1, b"4.5"), "value 2 is '4.5', expected an integer"),
    (PRETRAINING, "input_ids", _set(0, b"5"), r"5 and 102 of 5 tokens, expected \[CLS\] 101 and \[SEP\] 102"),
    (PRETRAINING, "input_ids", _set(4, b"5"), r"101 and 5 of 5 tokens, expected \[CLS\] 101 and \[SEP\] 102"),
    (PRETRAINING, "input_ids", _set(9, b"5"), r"ids behind the 5 tokens of input_mask, expected \[PAD\] 0 alone"),
    (PRETRAINING, "input_mask", _set(2, b"0"), r"4 ones in places 1..5, expected at least 2, then zeros alone"),
    (PRETRAINING, "input_mask", lambda values: [b"0"] * 64, "0 ones in places 1..0, expected at least 2"),
    (PRETRAINING, "input_mask", _set(2, b"2"), "value 3 is 2, expected 0..1"),
    (PRETRAINING, "segment_ids", _set(2, b"1"), "value 3 is 1, expected 0..0"),
    (PRETRAINING, "masked_lm_positions", _set(0, b"5"), r"\[5\] of weight 1, expected different places among the 5"),
    (PRETRAINING, "masked_lm_weights", _set(1, b"1.0"), None),  # place 0, [CLS], with label 0: odd, and possible
    (PRETRAINING, "masked_lm_weights", lambda values: [b"1.0"] * 3 + values[3:], r"\[2, 0, 0\] of weight 1, expected",
     "masked_lm_positions"),
    (PRETRAINING, "masked_lm_weights", _set(1, b"0.5"), "0.5, expected 0 or 1"),
    (PRETRAINING, "masked_lm_ids", lambda values: [], "0 values, expected 10"),
    (PRETRAINING, "img_feature_convert_rotation", lambda values: values[1:],
     "384 values, expected 380 .4 x F = 95.", "img_feature_convert_jigsaw"),
    (PRETRAINING, "img_feature_convert_jigsaw", lambda values: values[1:], "383 values, expected 384 .4 x F = 96."),
    (PRETRAINING, "img_feature_convert_camouflage", _set(7, b"nan"), "value 8 is nan, expected a finite number"),
    (PRETRAINING, "img_feature_convert_camouflage", _set(7, b"1e39"), "value 8 is inf, expected a finite number"),
    (PRETRAINING, "img_feature_convert_grey_mask", _set(7, b""), "value 8 is '', expected a number"),
    (PRETRAINING, "img_feature_convert_grey_mask", _set(1535, b""), "value 1536 is '', expected a number"),
    (PRETRAINING, "img_feature_convert_blank_mask", _set(7, b"1_0"), "value 8 is '1_0', expected a number"),
    (PRETRAINING, "img_feature_convert_blank_mask", _set(7, b"1;2"), "value 8 is '1;2', expected a number"),
    (PRETRAINING, "img_feature_convert_blank_mask", _set(7, b"\xff"), r"value 8 is '\\xff', expected a number"),
    (PRETRAINING, "image_mask", lambda values: values[1:], "54 values, expected 55"),
    (PRETRAINING, "img_loc_position_camouflage", lambda values: values[:35],
     "35 values, expected 45; their published schema says 35, a misprint: 9 patches have 45 numbers"),
    (PRETRAINING, "img_loc_position_camouflage", lambda values: values[:34], "34 values, expected 45$"),
    (PRETRAINING, "img_loc_position_grey_mask", _set(3, b"-4"), "value 4 is -4, expected 0..16,777,216"),
    (PRETRAINING, "img_grey_lm_ids", _set(0, b"16"), "value 1 is 16, expected 0..15"),
    (PRETRAINING, "img_grey_lm_ids", _set(0, b"12"), r"\[12, 12\], expected different slots"),
    (PRETRAINING, "img_blank_lm_ids", _set(2, b"25"), "value 3 is 25, expected 0..24"),
    (PRETRAINING, "img_rotate_gt", _set(0, b"4"), "value 1 is 4, expected 0..3"),
    (PRETRAINING, "img_jigsaw_gt", _set(0, b"24"), "value 1 is 24, expected 0..23"),
    (PRETRAINING, "img_camouflage_gt", _set(0, b"9"), "value 1 is 9, expected 0..8"),
    (PRETRAINING, "img_grey_mask_gt", lambda values: values[:96], "96 values, expected 192 .2 x F = 96."),
    (PRETRAINING, "nx_sent_labels", _set(0, b"2"), "value 1 is 2, expected 0..1"),
    (RETRIEVAL, "nx_sent_labels", _set(0, b"x"), "value 1 is 'x', expected an integer"),
    (RETRIEVAL, "image_prod_id", _set(0, b""), "'', expected 1..200 printable bytes"),
    (RETRIEVAL, "text_prod_id", _set(0, b"a" * 201), "expected 1..200 printable bytes"),
    (RETRIEVAL, "prod_desc", _set(0, b"caf\xe9"), "byte 4 is not UTF-8"),
    (CATEGORY, "img_category_id", _set(0, b"10000"), "value 1 is 10000, expected 0..9,999"),
    (CATEGORY, "img_subcategory", _set(0, b"  "), "expected 1..200 printable bytes"),
]


@pytest.mark.parametrize("case", CORRUPT, ids=lambda case: f"{case[1]}-{case[3]}"[:60])
def test_a_corrupt_row_is_named(case: tuple) -> None:
    layout, column, change, message, *blamed = case
    line = _changed(_line(layout), layout, column, change)
    assert line != _line(layout)
    if message is None:
        parse_row(line, layout, VOCABULARY)
        return
    with pytest.raises(BadRow, match=f"^{blamed[0] if blamed else column}: .*{message}") as error:
        parse_row(line, layout, VOCABULARY)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layout", FILES, ids=lambda layout: layout.name)
def test_every_missing_column_is_refused(layout: TsvLayout) -> None:
    cells = _line(layout).split(b"\t")
    for place in range(len(cells)):
        with pytest.raises(BadRow, match=f"number of columns: {len(cells) - 1}, expected {len(cells)} of a {layout.name} file"):
            parse_row(b"\t".join(cells[:place] + cells[place + 1 :]), layout, VOCABULARY)


@pytest.mark.parametrize("size", [1, 1000, 40_000, 1 << 24])
def test_pieces_of_any_size_give_the_same_rows(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (GOLDEN / FILES[PRETRAINING]).read_bytes().splitlines()
    file = tmp_path / "rows.tsv"
    file.write_bytes(b"\r\n".join([lines[0], b"", *lines[1:5], lines[5]]))  # other line ends, an empty line, no last one
    monkeypatch.setattr(tsv_files, "PIECE_BYTES", max(size, 2000))
    found = [pair for _, _, rows in read_rows([file, GOLDEN / FILES[PRETRAINING]], PRETRAINING, VOCABULARY, 1) for pair in rows]
    assert [number for number, _ in found] == [1, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5, 6]
    for (_, first), (_, second) in zip(found[:6], found[6:], strict=True):
        assert isinstance(first, ReadRow) and np.array_equal(first.features, second.features)
        assert np.array_equal(first.plan, second.plan) and first.photograph == second.photograph


def _many(folder: Path, count: int = 40, broken: tuple[int, ...] = ()) -> Path:
    return feature_files.write_feature_file(folder / "many.tsv", count, broken)


def _prepare(out: Path, *files: Path, **more) -> Manifest:
    prepare_kaleido_tsv(KaleidoTsvOptions(files, out, **({"processes": 1} | more)))
    return Manifest.read(out)


def test_the_golden_file_becomes_shards(tmp_path: Path) -> None:
    manifest = _prepare(tmp_path / "s", GOLDEN / FILES[PRETRAINING])
    assert {name: entry.samples for name, entry in manifest.splits.items()} == {"train": (5,), "validation": (1,), "test": ()}
    assert (manifest.format, manifest.features.num_features, manifest.features.rows) == (2, 96, 57)
    lines = (GOLDEN / FILES[PRETRAINING]).read_bytes().splitlines()
    seen = []
    for name in ("train", "validation"):
        split = Split.open(tmp_path / "s", name)
        stored, samples = FeatureSamples(split), np.arange(split.num_samples)
        for sample, table in enumerate(split.rows(samples)):
            record = split.record(sample)
            row = parse_row(lines[record["line"] - 1], PRETRAINING, VOCABULARY)
            seen.append(record["line"])
            assert np.array_equal(stored.features(samples[sample : sample + 1])[0], row.features)
            assert np.array_equal(stored.locations(samples)[sample], row.locations)
            plan = stored.plans(samples)[sample]
            assert plan["grey_slots"].tolist() == row.values["img_grey_lm_ids"].tolist()
            assert plan["blank_slots"].tolist() == row.values["img_blank_lm_ids"].tolist()
            assert table["key"] == sample_key(row.photograph, 0) and record["id"] == row.photograph
            assert table["tokens"][: table["num_tokens"]].tolist() == row.values["input_ids"][1 : row.length - 1].tolist()
            with pytest.raises(ValueError, match="JPEG needs photographs; these shards hold the features of the authors'"):
                split.read(sample)
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]


def test_two_rows_of_a_photograph_share_their_split(tmp_path: Path) -> None:
    file = _many(tmp_path, 120)
    manifest = _prepare(tmp_path / "s", file, file, shard_size=64)
    found = {name: sum(entry.samples) for name, entry in manifest.splits.items()}
    assert found["train"] + found["validation"] == 240 and found["test"] == 0
    assert found["validation"] == 2 * manifest.splits["validation"].products and 0 < found["validation"] < 12
    assert all(samples == 64 for samples in manifest.splits["train"].samples[:-1])
    train = Split.open(tmp_path / "s", "train")
    assert (train.products["num_samples"] == 2).all()
    rows = train.rows(np.arange(train.num_samples))
    assert len(np.unique(rows["key"])) == train.num_samples and set(rows["photo"].tolist()) == {0, 1}
    assert not set(train.products["id"]) & set(Split.open(tmp_path / "s", "validation").products["id"])


@pytest.mark.slow  # starts processes
def test_processes_and_pieces_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _many(tmp_path)
    whole = _prepare(tmp_path / "a", file)
    monkeypatch.setattr(tsv_files, "PIECE_BYTES", 100_000)
    monkeypatch.setattr(tsv_files, "BYTES_A_PROCESS", 1_000_000)
    assert _prepare(tmp_path / "b", file, processes=2).fingerprint == whole.fingerprint


def test_a_bad_row_is_skipped_counted_and_named(tmp_path: Path) -> None:
    file = _many(tmp_path, broken=(7, 20))
    manifest = _prepare(tmp_path / "s", file, max_skipped=0.05)
    assert manifest.skipped_counts == {"number of columns": 2}
    assert manifest.skipped["number of columns"] == [
        f"{file}, line {number}: number of columns: 24, expected 25 of a pretraining file" for number in (8, 21)]
    assert sum(sum(entry.samples) for entry in manifest.splits.values()) == 38


def test_too_many_bad_rows_stop_it_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _many(tmp_path, broken=(3,))
    with pytest.raises(ValueError, match=r"1 of 40 rows cannot be used, more than the limit of 1.0% "
                                         r"\(max_skipped\): 1 x number of columns \(.*many.tsv, line 4: number"):
        _prepare(tmp_path / "s", file)
    monkeypatch.setattr(tsv_files, "PIECE_BYTES", 100_000)
    file = _many(tmp_path, 40, broken=tuple(range(10)))
    with pytest.raises(ValueError, match=r"^(?:3|6) of (?:3|6) rows"):  # long before the end
        _prepare(tmp_path / "s", file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many.tsv"]


def test_rows_of_another_width_or_name_are_skipped(tmp_path: Path) -> None:
    lines = (GOLDEN / FILES[CATEGORY]).read_bytes().splitlines()
    renamed = _changed(lines[0], CATEGORY, "img_category", _set(0, b"Other"))
    narrow = b"\t".join(
        b",".join(cell.split(b",")[: column.width * 95]) if column.per_feature else cell
        for column, cell in zip(CATEGORY.columns, lines[1].split(b"\t"), strict=True))
    file = tmp_path / "c.tsv"
    file.write_bytes(b"\n".join([*lines, renamed, narrow, b""]))
    manifest = _prepare(tmp_path / "s", file, max_skipped=0.5)
    assert manifest.skipped == {
        "img_category_id: two names": [f"{file}, line 7: img_category_id: 3 is 'Other', expected 'C3' as in rows before"],
        "img_feature_convert_rotation: another F": [
            f"{file}, line 8: img_feature_convert_rotation: F = 95, expected 96 as in the first row"]}
    assert manifest.categories[3] == "C3" and manifest.categories[1] == "" and len(manifest.subcategories) == 122
    assert [sum(manifest.splits[name].samples) for name in ("train", "validation", "test")] == [0, 0, 6]
    record = Split.open(tmp_path / "s", "test").record(1)
    expected = {"id": "p1", "text": "row 1", "text_prod_id": "t1", "prod_img_id": "p1_0", "category": "C0", "subcategory": "S0",
                "line": 2}
    assert {name: record[name] for name in expected} == expected


def _write(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize(("files", "message"), [
    (lambda folder: [folder / "none.tsv"], "none.tsv: cannot be read: No such file"),
    (lambda folder: [_write(folder, "e.tsv", b"")], "e.tsv: empty; expected one row a line"),
    (lambda folder: [_write(folder, "x.tsv", b"a,b\n")],
     r"x.tsv, line 1: 1 tab-separated columns; the authors' feature files have 25 \(pretraining\), 19 \(retrieval\), 22"),
    (lambda folder: [GOLDEN / FILES[RETRIEVAL], GOLDEN / FILES[CATEGORY]],
     "files of different layouts .*retrieval, .*category"),
    (lambda folder: [_write(folder, "one.tsv", _line(PRETRAINING) + b"\n")], "one.tsv: rows of one photograph alone"),
])
def test_unusable_files_are_named(files, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        _prepare(tmp_path / "s", *files(tmp_path))
    assert not (tmp_path / "s").exists()


def test_a_line_without_end_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsv_files, "MOST_LINE_BYTES", 1000)
    with pytest.raises(ValueError, match="l.tsv: a line of more than 1,000 bytes at byte 0"):
        _prepare(tmp_path / "s", _write(tmp_path, "l.tsv", b"1" * 5000))


def test_ids_without_words_do_not_tokenise() -> None:
    tokenizer = Tokenizer(bert_ids())
    assert (VOCABULARY.size, VOCABULARY.mask_id, VOCABULARY.ordinary_first) == (30522, 103, 999)
    assert (tokenizer.words[1], tokenizer.words[104], tokenizer.words[998]) == ("[unused0]", "[unused99]", "[unused993]")
    with pytest.raises(ValueError, match="vocab.txt holds ids without their words"):
        tokenizer.encode("a red shirt")


def test_shards_of_photographs_keep_their_format(tiny_shards: Path) -> None:
    values = json.loads((tiny_shards / "manifest.json").read_text())
    assert values["format"] == 1 and "features" not in values
    with pytest.raises(ValueError, match=re.escape("these shards hold photographs and no stored features")):
        FeatureSamples(Split.open(tiny_shards, "train"))


TSV = str(GOLDEN / FILES[PRETRAINING])


@pytest.mark.parametrize(("flags", "message"), [
    (["--catalog", TSV], "--images: not given; --from csv needs it: folder of <id>.jpg, <id>_1.jpg"),
    (["--catalog", TSV, TSV, "--images", "x"],
     "--catalog: 2 files, but --from csv reads one; several go with --from parquet, fashiongen-h5, webdataset, kaleido-tsv"),
    (["--catalog", TSV, "--from", "kaleido-tsv", "--images", "x"],
     "--images: --from kaleido-tsv does not take it; it takes --catalog, --out, --vocab, --max-skipped"),
    (["--catalog", TSV, "--from", "kaleido-tsv", "--max-side", "9"], "--max-side: --from kaleido-tsv does not take it"),
    (["--catalog", TSV, "--from", "jsonl", "--images", "x", "--encoding", "latin-1"],
     "--encoding: --from jsonl does not take it; it takes --catalog, --out, --id, --text, --field, "),
    (["--catalog", TSV, "--from", "kaleido-tsv", "--max-skipped", "2"], "--max-skipped=2.0 must lie in 0..1"),
])
def test_flags_that_do_not_go_together(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", *flags, "--out", str(tmp_path / "s")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith(f"kaleido-fast prepare: {message}")
    assert not (tmp_path / "s").exists()


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "s"
    assert main(["prepare", "--from", "kaleido-tsv", "--catalog", TSV, TSV, "--out", str(out)]) == 0  # in this process
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{out}: train 10 rows of 5 photographs, validation 2 rows of 1 photographs, test 0 rows of 0 photographs"
    assert said[1].startswith("pretraining layout, F = 96, 57 rows each; skipped: none; ")
    assert said[2].startswith("no vocabulary given: ids are taken as BERT's 30,522 uncased ones")
