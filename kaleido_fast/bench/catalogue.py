"""The loader, the loop and the store's losses on a catalogue: given shards, or those of a drawn catalogue."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from kaleido_fast.bench.loop import bench_end_to_end, bench_loader
from kaleido_fast.bench.step_shape import installed_ways
from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.prepare import PrepareOptions, prepare
from kaleido_fast.data.drawn.write import generate_catalogue
from kaleido_fast.data.shards.split import Split
from kaleido_fast.training.settings import RunConfig
from kaleido_fast.training.stores.encode import encode

ConfigReader = Callable[[Path, Sequence[str]], RunConfig]  # of a YAML file, with key=value laid over

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PRODUCTS = 600  # of the drawn catalogue
GPU_SETTINGS = {  # configs whose features are stored and computed, as they are timed on a GPU
    "store": ("base.yaml", "model.patch_encoder_weights=random", "train.micro_batch=256", "data.pin_store=true"),
    "photographs": ("base_computed.yaml", "model.patch_encoder_weights=random", "train.micro_batch=256",
                    "data.decode_threads=8"),
}
CPU_SETTINGS = {"store": ("demo.yaml", "model.features=stored"), "photographs": ("demo.yaml", "model.features=computed")}
TIMED_STEPS = {"cpu": 40, "cuda": 80}


@contextmanager
def some_shards(given: Path | None, products: int = PRODUCTS) -> Iterator[Path]:
    """`given`, or shards of a drawn catalogue that go at the end."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        catalogue, shards = Path(folder) / "catalogue", Path(folder) / "shards"
        generate_catalogue(catalogue, products, seed=0)
        prepare(PrepareOptions(CsvCatalogue(catalogue / "styles.csv", catalogue / "images"), shards))
        yield shards


def config_of(load: ConfigReader, kind: str, device: torch.device, shards: Path, store: Path) -> RunConfig:
    """That of "store" or "photographs" on this device."""
    name, *settings = (GPU_SETTINGS if device.type == "cuda" else CPU_SETTINGS)[kind]
    if device.type == "cuda":
        settings += [f"model.{key}={str(value).lower()}" for key, value in installed_ways().items()]
    return load(CONFIGS / name, [*settings, f"data.shards={shards}", f"data.store={store}", f"run.device={device.type}"])


def fill_store(config: RunConfig) -> dict[str, Any]:
    """Run `encode`; photographs/s of the whole command, zero where the store was there."""
    start = time.perf_counter()
    if encode(config):
        raise ValueError(f"bench: {config.data.store} could not be filled")
    photographs = sum(Split.open(config.data.shards, name).num_samples for name in ("train", "validation", "test"))
    return {"photographs": photographs, "photographs_per_s": photographs / (time.perf_counter() - start)}


def loop_figures(
    load: ConfigReader, tool: str, device: torch.device, given: Path | None, products: int = PRODUCTS
) -> dict[str, Any]:
    """What `kaleido-fast bench loader` or `end-to-end` measures, from the store and from photographs; how fast the store fills.

    Args:
        load: `config.load_config`.
    Returns:
        {"encode", "store", "photographs", "catalogue": "given" or "drawn"}.
    """
    measure = bench_loader if tool == "loader" else bench_end_to_end
    with some_shards(given, products) as shards, tempfile.TemporaryDirectory() as folder:
        configs = {kind: config_of(load, kind, device, shards, Path(folder)) for kind in ("store", "photographs")}
        filled = fill_store(configs["store"])
        figures = {kind: measure(config, TIMED_STEPS[device.type]) for kind, config in configs.items()}
    return {"catalogue": "drawn" if given is None else "given", "encode": filled} | figures
