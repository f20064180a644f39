"""Dirty input: a small good catalogue to spoil, and the command line as a user meets it."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kaleido_fast.cli import main

HEADER = "id,masterCategory,articleType,productDisplayName,description,part"


@dataclass(frozen=True)
class Answer:
    """What a verb said: exit code, stdout, and stderr without the progress bars."""

    code: int
    out: str
    err: str


@pytest.fixture
def kaleido(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """kaleido(verb, ...) -> Answer; never a traceback, and a refusal is one line."""

    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        said = [line for line in err.replace("\r", "\n").splitlines() if line.startswith("kaleido-fast ")]
        assert "Traceback" not in err and code in (0, 1, 2)
        assert len(said) == (code == 2), err
        return Answer(code, out, "\n".join(said))

    return run


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """styles.csv and images/ of 15 plain products (few enough to be read in this process), twelve of them in train."""
    folder = tmp_path / "catalogue"
    (folder / "images").mkdir(parents=True)
    lines = [HEADER]
    for number in range(15):
        part = {12: "validation", 13: "test", 14: "test"}.get(number, "train")
        lines.append(f"p{number},Cat{number % 2},Kind{number % 3},red thing {number},one of many,{part}")
        pixels = np.full((64, 64, 3), 250, np.uint8)
        pixels[16:48, 16:48] = (200, 30, 10 * number)
        Image.fromarray(pixels).save(folder / "images" / f"p{number}.jpg", quality=95)
    (folder / "styles.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def prepare(kaleido: Callable[..., Answer], catalogue: Path, tmp_path: Path) -> Callable[..., Answer]:
    """prepare(flags...) -> Answer, of `catalogue` into tmp_path/shards; a refusal leaves nothing anywhere."""

    def run(*flags: object) -> Answer:
        with only_inside(tmp_path, "shards"):
            answer = kaleido("prepare", "--catalog", catalogue / "styles.csv", "--images", catalogue / "images", "--out",
                             tmp_path / "shards", "--split", "part", *flags)
        assert (tmp_path / "shards" / "manifest.json").exists() == (tmp_path / "shards").exists() == (answer.code == 0)
        return answer

    return run


@contextlib.contextmanager
def only_inside(folder: Path, *names: str) -> Iterator[None]:
    """Nothing in `folder` is added, changed or removed but what lies under `names`."""
    before = _listing(folder, names)
    yield
    assert _listing(folder, names) == before


@pytest.fixture(name="only_inside")
def only_inside_fixture() -> Callable[..., contextlib.AbstractContextManager[None]]:
    return only_inside


def _listing(folder: Path, without: tuple[str, ...]) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*")) if path.relative_to(folder).parts[0] not in without
    }
