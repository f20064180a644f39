"""Checkpoints that TensorFlow wrote, and those of our writer: every value, bit for bit; what is refused, by one line."""

import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from kaleido_fast.authors.tensorflow.checkpoint import TfCheckpoint
from kaleido_fast.authors.tensorflow.table import read_table

SCOPE = "kaleido_bert_pre_trained_model/"


def test_what_tensorflow_wrote_bit_for_bit(golden: Path) -> None:
    checkpoint, expected = TfCheckpoint.open(golden), np.load(golden.parents[1] / "kaleido_bert_small.npz")
    assert len(checkpoint) == 228 and list(checkpoint) == sorted(checkpoint)
    names = {}
    for name in checkpoint:
        group = "adam_m/" if name.endswith("/Adam") else "adam_v/" if name.endswith("/Adam_1") else \
            "weights/" if name.startswith(SCOPE) else ""
        names[f"steps/4/{group}{name.removesuffix('_1').removesuffix('/Adam')}"] = name
    stored = {key for key in expected.files if key.startswith(("steps/4/weights/", "steps/4/adam_", "steps/4/beta"))}
    assert names.keys() == stored | {"steps/4/global_step"}
    for key, name in names.items():
        _assert_same(checkpoint[name], expected[key])


def test_every_type_in_several_data_files(tmp_path: Path, writer: ModuleType, values: dict[str, np.ndarray]) -> None:
    for num_shards in (1, 3, 30):
        checkpoint = TfCheckpoint.open(writer.write_checkpoint(tmp_path / f"c-{num_shards}", values, num_shards))
        assert list(checkpoint) == sorted(values)
        for name, value in values.items():
            _assert_same(checkpoint[name], value)


def test_bfloat16_is_widened(tmp_path: Path, writer: ModuleType) -> None:
    bits = np.array([[0x3F80, 0xC000, 0x7F80], [0x0001, 0x8000, 0x4049]], np.uint16)
    checkpoint = TfCheckpoint.open(writer.write_checkpoint(tmp_path / "b", {"half": writer.Bfloat16(bits)}))
    expected = np.array([[1, -2, np.inf], [2.0**-133, -0.0, 3.140625]], np.float32)
    _assert_same(checkpoint["half"], expected)


def test_any_of_its_files_names_it(golden: Path) -> None:
    for end in (".index", ".data-00000-of-00001", ".meta", ""):
        assert TfCheckpoint.open(golden.with_name(golden.name + end)).prefix == golden


def test_a_large_variable_is_mapped_not_copied(tmp_path: Path, writer: ModuleType) -> None:
    checkpoint = TfCheckpoint.open(writer.write_checkpoint(tmp_path / "c", {"a": np.ones((300, 300), np.float32)}))
    assert not checkpoint["a"].flags.owndata and not checkpoint["a"].flags.writeable


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("folder", r"there: a folder; give the prefix of the checkpoint's files, such as .*there/model"),
        ("empty folder", r"there: a folder; .* but no .index file is there"),
        ("nothing", r"none.index: no such file; give the prefix that a checkpoint's .index and .data files share"),
        ("v1 file", r"there/v1: one file without v1.index: no V2 checkpoint; a V1 checkpoint .* is not read"),
        ("v1 index", r"a table without a V2 checkpoint's header \(field 1 should be a number\); V1 checkpoints are not read"),
        ("empty", r"model.index: not the index of a TensorFlow checkpoint, or cut at its end; it is empty"),
        ("text", r"model.index: not the index of a TensorFlow checkpoint, or cut at its end$"),
        ("short", r"model.index: not the index of a TensorFlow checkpoint, or cut at its end$"),
        ("hdf5", r"it is an HDF5 file$"),
        ("pickle", r"it is a pickle$"),
        ("zip", r"it is a zip archive, such as torch.save writes$"),
        ("index is a data file", r"not the index of a TensorFlow checkpoint, or cut at its end$"),
        ("data file absent", r"model.data-00001-of-00003: missing; the index names it as data file 2 of 3"),
        ("data file empty", r"model.data-00002-of-00003: cut: 0 bytes, '.*' ends at \d+; copy it again"),
        ("data file cut", r"model.data-00000-of-00003: cut: \d+ bytes, '.*' ends at \d+; copy it again"),
        ("data file changed", r"model.data-00001-of-00003: damaged: '.*' \(bytes .*\) has another checksum than the index"),
        ("data files swapped", r"model.data-0000\d-of-00003: (damaged|cut)"),
        ("another number of data files", r"model.data-00000-of-00002: missing"),
        ("no header", r"without a V2 checkpoint's header \(it has none\)"),
        ("no data files", r"names 0 data files, expected 1 to 99999"),
        ("endless data files", r"names 18446744073709551615 data files"),
        ("big endian", r"written on a big-endian machine"),
        ("later version", r"format version 2, only versions to 1 are read"),
        ("snappy", r"the block at byte 0 is compressed with snappy, only plain blocks are read"),
        ("unknown block", r"the block at byte 0 is of an unknown type 9"),
        ("unordered", r"its keys are not in order"),
        ("slices", r"'sliced' is stored in slices, which are not read"),
        ("string", r"'text' is string; only float32, float64, int32, int64, bfloat16, float16 are read"),
        ("unknown type", r"'text' is of type 77; only"),
        ("size", r"'text': 8 bytes are not float32 \(3,\)"),
        ("longer", r"'text': 8 bytes are not float32 \(1,\)"),
        ("65 bits", r"'text': a number has more than 64 bits"),
        ("endless number", r"'text': a number has more than 64 bits"),
        ("unknown rank", r"'text': a shape of unknown rank"),
        ("unknown size", r"'text': a shape \(-1,\) of unknown size"),
        ("far data file", r"'text': lies in data file 5 of 1, counted from 0"),
        ("far offset", r"model.data-00000-of-00001: cut: \d+ bytes, 'text' ends at 4,611,686,018,427,387,912"),
        ("entry cut", r"'text': field 2 is cut"),
        ("entry is text", r"'text': field \d+ has wire type \d"),
        ("shape is a number", r"'text': field 2 should be a message"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, writer: ModuleType, values, golden: Path, kind: str, message: str
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    prefix = writer.write_checkpoint(folder / "model", values, 3)
    given = _spoil(kind, prefix, writer, golden) or prefix
    with pytest.raises(ValueError, match=message) as caught:
        list(TfCheckpoint.open(given).values())
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def _spoil(kind: str, prefix: Path, w: ModuleType, golden: Path) -> Path | None:
    index, folder = Path(f"{prefix}.index"), prefix.parent
    shards = [Path(f"{prefix}.data-0000{number}-of-00003") for number in range(3)]
    files = {"empty": b"", "text": b"a checkpoint, as I was told\n" * 9, "short": b"\0" * 47,
             "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(90), "pickle": b"\x80\x02}q\0" + bytes(90), "zip": b"PK\x03\x04" + bytes(90)}
    tables = {"no header": {b"name": b""}, "no data files": {b"": w.header(0)}, "endless data files": {b"": w.header(-1)},
              "big endian": {b"": w.header(1, big_endian=1)}, "later version": {b"": w.header(1, least_version=2)},
              "v1 index": {b"": w.part(1, w.part(1, b"name"))}, "unordered": {b"": w.header(1), b"b": b"", b"a": b""},
              "another number of data files": {b"": w.header(2)}}
    crc, shape = w.masked(b"\0" * 8), w.part(2, w.number(1, 2))
    bad_entries = {
        "string": w.entry(7, (2,), 0, 0, 8, crc), "unknown type": w.entry(77, (2,), 0, 0, 8, crc),
        "size": w.entry(1, (3,), 0, 0, 8, crc), "longer": w.entry(1, (1,), 0, 0, 8, crc),
        "65 bits": b"\x08" + b"\xff" * 9 + b"\x02", "endless number": b"\x08" + b"\xff" * 10 + b"\x01",
        "unknown rank": w.number(1, 1) + w.part(2, shape + w.number(3, 1)),
        "unknown size": w.entry(1, (-1,), 0, 0, 8, crc), "far data file": w.entry(1, (2,), 5, 0, 8, crc),
        "far offset": w.entry(1, (2,), 0, 2**62, 8, crc), "entry cut": w.entry(1, (2,), 0, 0, 8, crc)[:4],
        "entry is text": b"gibberish", "shape is a number": w.number(2, 7)}
    if kind in files:
        index.write_bytes(files[kind])
    elif kind in tables:
        w.write_table(index, tables[kind])
    elif kind in bad_entries or kind == "slices":
        one = folder / "model-1"
        Path(f"{one}.data-00000-of-00001").write_bytes(bytes(8))
        named = {b"text": bad_entries[kind]} if kind in bad_entries else {
            b"\0sliced": w.entry(1, (2,), 0, 0, 8, crc), b"sliced": w.entry(1, (2,), 0, 0, 0, 0) + w.part(7, b"")}
        w.write_table(Path(f"{one}.index"), {b"": w.header(1)} | named)
        Path(f"{one}.index").rename(index)
        Path(f"{one}.data-00000-of-00001").rename(f"{prefix}.data-00000-of-00001")
    elif kind in ("snappy", "unknown block"):
        w.write_table(index, read_table(index), kind={"snappy": 1}.get(kind, 9))
    elif kind == "folder":
        return folder
    elif kind == "empty folder":
        index.unlink()
        return folder
    elif kind == "nothing":
        return folder / "none"
    elif kind == "v1 file":
        return Path(shutil.copyfile(golden.with_name("config.json"), folder / "v1"))
    elif kind == "index is a data file":
        shutil.copyfile(shards[0], index)
    elif kind == "data file absent":
        shards[1].unlink()
    elif kind == "data file empty":
        shards[2].write_bytes(b"")
    elif kind == "data file cut":
        shards[0].write_bytes(shards[0].read_bytes()[:-1])
    elif kind == "data file changed":
        data = bytearray(shards[1].read_bytes())
        data[-1] ^= 4
        shards[1].write_bytes(data)
    else:
        assert kind == "data files swapped"
        first, last = shards[0].read_bytes(), shards[2].read_bytes()
        shards[0].write_bytes(last)
        shards[2].write_bytes(first)
    return None


def _assert_same(value: np.ndarray, expected: np.ndarray) -> None:
    """Type, shape and bits."""
    assert value.dtype == expected.dtype and value.shape == expected.shape and value.tobytes() == expected.tobytes()
