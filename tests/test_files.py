"""Files that are replaced whole, and JSON files whose error says what to do."""

from pathlib import Path

import pytest

from kaleido_fast import files
from kaleido_fast.files import is_torn, read_json, replace_text


def test_a_text_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "eval.json"
    replace_text(file, "old")
    replace_text(file, "new")
    assert file.read_text() == "new" and list(tmp_path.iterdir()) == [file]

    def full_disk(source: Path, target: Path) -> None:
        assert is_torn(source) and target.read_text() == "new"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full_disk)
    with pytest.raises(ValueError, match=r"eval.json: cannot be written: No space left on device; make room and start again"):
        replace_text(file, "half")
    assert file.read_text() == "new" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("data", "message"), [
    (None, "x.json: no such file; make it again"),
    (b"", "x.json: not JSON: Expecting value: line 1 column 1"),
    (b"{", "x.json: not JSON: .*; make it again"),
    (b"\xff\xfe{}", "x.json: not JSON: .*can't decode byte 0xff"),
    (b"[1]", "x.json: holds a JSON list, expected an object of keys and values; make it again"),
    (b"null", "x.json: holds a JSON NoneType"),
])
def test_a_json_file_that_cannot_be_used_is_named_with_what_to_do(tmp_path: Path, data: bytes | None, message: str) -> None:
    if data is not None:
        (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / "x.json", "make it again")
    with pytest.raises(ValueError, match=r"cannot be read: Is a directory; make it again"):
        read_json(tmp_path, "make it again")


def test_a_json_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": [1, "é"]}', encoding="utf-8")
    assert read_json(tmp_path / "x.json", "") == {"a": [1, "é"]}
