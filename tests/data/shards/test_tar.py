"""The tars of shards: what Python's tarfile reads, in whole blocks; a header that is not there is an error."""

import os
import tarfile
from pathlib import Path

import pytest

from kaleido_fast.data.shards.tar import BLOCK, END, header, next_offset, read_header, whole_blocks

FILES = {"a.jpg": b"x" * 700, "a.json": b"{}", "b.jpg": b"y" * BLOCK, "empty": b""}


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    data = b"".join(header(name, len(content)) + content.ljust(whole_blocks(len(content)), b"\0")
                    for name, content in FILES.items())
    (tmp_path / "x.tar").write_bytes(data + END)
    return tmp_path / "x.tar"


def test_python_reads_them(tar: Path) -> None:
    with tarfile.open(tar) as archive:
        assert {member.name: archive.extractfile(member).read() for member in archive} == FILES
        offsets = [member.offset_data for member in archive.getmembers()]
    expected, lengths = [BLOCK], [len(content) for content in FILES.values()]
    for length in lengths[:-1]:
        expected.append(next_offset(expected[-1], length))
    assert offsets == expected
    descriptor = os.open(tar, os.O_RDONLY)
    assert [(read_header(descriptor, offset).name, read_header(descriptor, offset).size) for offset in offsets] == [
        (name, len(content)) for name, content in FILES.items()]
    os.close(descriptor)


@pytest.mark.parametrize(("offset", "message"), [
    (0, "no member"), (-3, "no member"), (BLOCK + 1, r"no member \(bad checksum\)"), (1 << 40, r"no member \(empty header\)"),
    (9 * BLOCK, r"no member \(end of file header\)"),
])
def test_no_header_is_an_error(tar: Path, offset: int, message: str) -> None:
    descriptor = os.open(tar, os.O_RDONLY)
    with pytest.raises(ValueError, match=message):
        read_header(descriptor, offset)
    os.close(descriptor)
