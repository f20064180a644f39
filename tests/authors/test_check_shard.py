"""data check and data show on shards with stored features."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kaleido_fast.authors.check_shard import FeaturePartCheck
from kaleido_fast.authors.prepare_tsv import KaleidoTsvOptions, prepare_kaleido_tsv
from kaleido_fast.cli import main
from kaleido_fast.data.check.folder import check_folder
from kaleido_fast.data.store.feature_store import ENDING, HEADER_BYTES
from tests.authors import feature_files

BLOCK = 57 * 96 * 4


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    file = feature_files.write_feature_file(folder / "rows.tsv", 12)
    prepare_kaleido_tsv(KaleidoTsvOptions((file,), folder / "s", processes=1))
    return folder / "s"


@pytest.fixture
def shards(prepared: Path, tmp_path: Path) -> Path:
    shutil.copytree(prepared, tmp_path / "s")
    return tmp_path / "s"


def _findings(shards: Path) -> tuple[list[str], str]:
    lines: list[str] = []
    summary = check_folder(shards, lines.append, FeaturePartCheck, processes=1)
    return [line.removeprefix(f"{shards}/") for line in lines], summary.describe()


def test_whole_shards_have_nothing_wrong(shards: Path) -> None:
    findings, said = _findings(shards)
    assert not findings and "nothing wrong; 12 rows of stored features of 12 products looked at" in said


def test_who_checks_features_must_be_handed_in(shards: Path) -> None:
    with pytest.raises(ValueError, match="these shards hold stored features; hand check_folder what checks them, "
                                         "FeaturePartCheck"):
        check_folder(shards, print, processes=1)


def test_what_was_opened_is_not_kept_for_the_next_check(shards: Path) -> None:
    """Two checks in one process: the second must see what changed after the first."""
    assert not _findings(shards)[0]
    _array("train.products.npy", "id", b"zz")(shards)
    assert any("the record says" in line for line in _findings(shards)[0])


def _byte(name: str, place: int) -> Callable[[Path], None]:
    def change(shards: Path) -> None:
        data = bytearray((shards / name).read_bytes())
        data[place] ^= 1
        (shards / name).write_bytes(data)
    return change


def _array(name: str, column: str, value: object, place: int = 2) -> Callable[[Path], None]:
    def change(shards: Path) -> None:
        rows = np.load(shards / name)
        rows[column][place] = value
        np.save(shards / name, rows)
    return change


def _cut(name: str) -> Callable[[Path], None]:
    return lambda shards: (shards / name).write_bytes((shards / name).read_bytes()[:-1])


STORE, TABLE, PLAN, RECORDS = f"train-000000{ENDING}", "train-000000.table.npy", "train-000000.plan.npy", "train-000000.jsonl"


@pytest.mark.parametrize(("change", "message"), [
    (_byte(STORE, HEADER_BYTES + 2 * BLOCK + 5), rf"{STORE}, sample 2, product \w+: CRC32 of block 2 is 0x\w+, expected 0x\w+"),
    (_cut(STORE), rf"{STORE}: [\d,]+ bytes, expected [\d,]+ by its header: cut short or changed"),
    (_byte(STORE, 3), rf"{STORE}: its first 4096 bytes are not the header of a feature store"),
    (_byte(RECORDS, 20), rf"{RECORDS}, sample 0, product \w+: CRC32 0x\w+ of \d+ bytes at byte 0, expected 0x\w+ of"),
    (_cut(RECORDS), rf"{RECORDS}: [\d,]+ bytes, expected [\d,]+ by the table"),
    (_array(PLAN, "rotation", 7), rf"{PLAN}, sample 2, product \w+: row 2 holds numbers that cannot be"),
    (_array(TABLE, "key", 7), rf"{TABLE}, sample 2, product \w+: key 0x0+7, expected 0x"),
    (_array(TABLE, "side", 7), rf"{TABLE}, sample 2, product \w+: side 7, expected 0\.\.0"),
    (_array(TABLE, "photo", 1), rf"{TABLE}, sample 2, product \w+: photo 1, the record says 0"),
    (_array(TABLE, "tokens", -3), rf"{TABLE}, sample 2, product \w+: token id -3, expected 0\.\.30521"),
    (lambda shards: (shards / "train-000000.locations.npy").unlink(), "train-000000.locations.npy: missing; the manifest"),
    (lambda shards: (shards / STORE).unlink(), rf"{STORE}: missing; the manifest names it"),
    (_array("train.products.npy", "num_samples", 3), "train.products.npy: its products have 13 rows, the manifest says 11"),
])
def test_what_is_wrong_is_named(change: Callable[[Path], None], message: str, shards: Path) -> None:
    change(shards)
    findings, _ = _findings(shards)
    assert any(re.match(message, finding) for finding in findings), findings
    assert len(findings) <= 3, findings


def test_a_changed_location_changes_the_fingerprint(shards: Path) -> None:
    _byte("train-000000.locations.npy", -1)(shards)
    assert re.fullmatch(r"manifest.json: fingerprint .*: a file was changed since they were written", _findings(shards)[0][0])


def test_show_says_what_they_are(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(shards), "--out", str(tmp_path / "contact.png")]) == 0
    said = capsys.readouterr().out
    assert f"{shards}: features of the authors' pretraining files, no photographs" in said
    assert "train              11 rows of 11 photographs" in said and "F = 96, 57 rows of fp32 each (21.9 kB)" in said
    assert "masked words: least 1" in said and "match: 0: 6, 1: 6" in said and "no contact sheet" in said
    assert not (tmp_path / "contact.png").exists()


def test_other_verbs_say_that_they_need_photographs(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(shards), "--out", str(tmp_path / "x.png")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"kaleido-fast explain: {shards}: explain needs photographs; these shards hold the features of the authors' "
        "pretraining files alone"]


def test_an_unknown_part_of_the_manifest_is_refused(shards: Path) -> None:
    values = json.loads((shards / "manifest.json").read_text())
    values["features"]["colour"] = "red"
    (shards / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="manifest.json: not a manifest of format 2"):
        check_folder(shards, print, FeaturePartCheck, processes=1)
