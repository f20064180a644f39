"""What every test gets: quiet threads, a reason where a GPU test is skipped, small shards of a drawn catalogue."""

import os
import signal

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from pathlib import Path

import pytest
import torch


def pytest_sessionstart() -> None:
    """Ctrl-C is what it is to a program: pytest-xdist ignores it in its processes, and so would all that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, none found"))


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 60 drawn products, with their true alignment; read only."""
    # here: tests on a GPU machine need no package but torch, triton and numpy
    from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
    from kaleido_fast.data.catalogue.prepare import PrepareOptions, prepare
    from kaleido_fast.data.drawn.write import generate_catalogue

    folder = tmp_path_factory.mktemp("tiny")
    generate_catalogue(folder / "catalogue", 60, seed=0, image_size=96)
    catalogue = CsvCatalogue(folder / "catalogue" / "styles.csv", folder / "catalogue" / "images")
    prepare(PrepareOptions(catalogue, folder / "shards", processes=1))
    return folder / "shards"
