"""Files that are replaced whole, and JSON files whose error says what to do."""

import os
import threading
from pathlib import Path

import pytest

from kaleido_fast import files
from kaleido_fast.files import is_torn, read_json, replace_text, written_beside
from kaleido_fast.folder_lock import LOCK, FolderLock


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


def test_two_that_replace_a_text_at_the_same_time_both_do(tmp_path: Path) -> None:
    """Two `evaluate` of a run: the one that ends last stays, and neither meets the other's half."""
    file, texts, start = tmp_path / "eval.json", [letter * 100_000 for letter in "ab"], threading.Barrier(2)
    errors: list[Exception] = []

    def write(text: str) -> None:
        start.wait()
        try:
            for _ in range(100):
                replace_text(file, text)
                assert file.read_text() in texts
        except (ValueError, AssertionError) as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and list(tmp_path.iterdir()) == [file]


def test_a_folder_is_written_beside(tmp_path: Path) -> None:
    out = tmp_path / "made" / "out"
    with written_beside(out, "export") as beside:
        (beside / "inside").mkdir()
        assert beside.parent == out.parent and not out.exists()
    assert [path.name for path in out.iterdir()] == ["inside"] and list(out.parent.iterdir()) == [out]


def test_a_folder_that_fails_goes_with_what_was_made_for_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="made/out: cannot be written: No space left on device; nothing was left there; "), \
            written_beside(tmp_path / "made" / "out", "export") as beside:
        (beside / "file").write_text("half")
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_one_process_at_a_time_writes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    with written_beside(out, "prepare") as beside:
        (beside / "file").write_text("first")
        refused = rf"out: process {os.getpid()} on .* works there \(prepare, since .* or give another out"
        with pytest.raises(ValueError, match=refused), written_beside(out, "export"):
            pass
        assert (beside / "file").read_text() == "first"
    assert [path.name for path in out.iterdir()] == ["file"] and list(tmp_path.iterdir()) == [out]
    assert capsys.readouterr().err == ""


def test_what_a_killed_process_left_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, child = tmp_path / "out", os.fork()
    if not child:
        with written_beside(out, "prepare") as beside:
            (beside / "old").write_text("")
            (beside / "folder").mkdir()
            os._exit(0)
    os.waitpid(child, 0)
    with written_beside(out, "prepare") as beside:
        assert [path.name for path in beside.iterdir()] == [LOCK]
    assert not list(out.iterdir()) and list(tmp_path.iterdir()) == [out]
    assert capsys.readouterr().err.startswith(f"{out}: taken over from process {child} (since ")


def test_who_was_followed_leaves_the_other_s_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderLock, "require_held", lambda self: (_ for _ in ()).throw(ValueError("taken over")))
    monkeypatch.setattr(FolderLock, "is_held", False)
    with pytest.raises(ValueError, match="taken over"), written_beside(tmp_path / "out", "prepare") as beside:
        (beside / "theirs").write_text("")
    assert (beside / "theirs").exists() and not (tmp_path / "out").exists()


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
