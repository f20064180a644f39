"""Shards with alignments that were made, and the run that made them."""

import shutil
from pathlib import Path

import pytest

from tests.alignment.small_align import again


@pytest.fixture(scope="session")
def made(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Shards with forced alignments under the name `aag-generated`, and the run that made them.

    A captioner of two steps says nothing that the texts have; forced alignments it always has."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(tiny_shards, folder / "shards")
    assert again(folder / "shards", folder / "run") == 0
    return folder / "shards", folder / "run"


@pytest.fixture
def shards(made: tuple[Path, Path], tmp_path: Path) -> Path:
    return shutil.copytree(made[0], tmp_path / "shards")


@pytest.fixture
def run(made: tuple[Path, Path], tmp_path: Path) -> Path:
    return shutil.copytree(made[1], tmp_path / "run")
