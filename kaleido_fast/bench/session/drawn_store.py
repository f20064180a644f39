"""Shards and a feature store drawn without a photograph: what the training loop reads under `model.features=stored`.

Texts have the lengths that a catalogue's have (bench/batches.py); the store's blocks are noise with their CRC32s, so that the
first epoch compares them as it does real ones.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kaleido_fast.bench.batches import ROW_DRAWS, drawn_lengths
from kaleido_fast.bench.loop import bench_end_to_end
from kaleido_fast.bench.step_shape import Shape, installed_ways
from kaleido_fast.data.shards.manifest import VOCABULARY, Manifest, SplitEntry, Vocabulary
from kaleido_fast.data.shards.split import SPLITS, sample_key
from kaleido_fast.data.shards.writer import Sample, ShardWriter, write_products
from kaleido_fast.data.store.feature_store import StoreWriter
from kaleido_fast.data.store.photograph_store import store_file
from kaleido_fast.model.kaleido_tasks import stored_rows
from kaleido_fast.parity.drawn_batch import drawn_vocabulary
from kaleido_fast.training.build import build_step
from kaleido_fast.training.settings import RunConfig
from kaleido_fast.training.stores.recipe import store_recipe, with_weights

CONFIG = Path(__file__).resolve().parents[3] / "configs" / "base.yaml"
SUBCATEGORIES = 8
FEW = 32  # samples of the splits that are not trained on
WHOLE = 4096  # samples of a shard at most


def loop_from_drawn_store(
    load: Callable[[Path, Sequence[str]], RunConfig], device: torch.device, samples: int, steps: int, micro_batch: int,
    tell: Callable[[dict[str, Any]], None],
) -> None:
    """`bench_end_to_end` of configs/base.yaml on `samples` drawn products.

    Args:
        load: config.load_config.
        tell: takes the figures, with "stored_samples", whenever there are better ones.
    """
    with tempfile.TemporaryDirectory() as folder:
        shards, store = Path(folder) / "shards", Path(folder) / "store"
        ways = installed_ways() if device.type == "cuda" else {"attention": "auto", "compile": False}
        config = load(CONFIG, [
            f"data.shards={shards}", f"data.store={store}", f"run.device={device.type}", f"run.out={Path(folder) / 'run'}",
            f"train.micro_batch={micro_batch}", "model.patch_encoder_weights=random",
            *(f"model.{key}={str(value).lower()}" for key, value in ways.items())])
        draw_shards(shards, Shape.of(config), samples)
        draw_store(config, store)
        tell({"stored_samples": samples})
        bench_end_to_end(config, steps, tell)


def draw_shards(folder: Path, shape: Shape, samples: int) -> Manifest:
    """Products of one photograph each, which is not there: `samples` to train on, few in the other splits."""
    folder.mkdir(parents=True)
    words, width = drawn_vocabulary(shape.model.hidden), shape.data.max_tokens
    splits = {name: _draw_split(folder, name, samples if name == "train" else FEW, shape, words) for name in SPLITS}
    (folder / VOCABULARY).write_text("".join(f"word{number}\n" for number in range(words.size)), encoding="utf-8")
    names = tuple(f"kind {number}" for number in range(SUBCATEGORIES))
    manifest = Manifest(words, ("things",), names, splits, token_width=width - 2, fingerprint="drawn")
    manifest.write(folder)
    return manifest


def _draw_split(folder: Path, name: str, samples: int, shape: Shape, words: Vocabulary) -> SplitEntry:
    draw, lengths = np.random.default_rng(len(name)), drawn_lengths(shape, samples, seed=len(name)) - 2
    shards, counts, products = list[str](), list[int](), list[tuple[bytes, int, int, int, int]]()
    for first in range(0, samples, WHOLE):
        shards.append(f"{name}-{len(shards):06d}")
        writer = ShardWriter(folder, shards[-1], shape.data.max_tokens - 2, "")
        for number in range(first, min(first + WHOLE, samples)):
            product, kind = f"{name}-{number:09d}", number % SUBCATEGORIES
            products.append((product.encode(), number, 1, 0, kind))
            tokens = draw.integers(words.ordinary_first, words.ordinary_last + 1, lengths[number]).tolist()
            row = {"key": sample_key(product, 0), "product": number, "subcategory": kind, "side": 1}
            writer.add(Sample(f"{number:09d}", b"-", {}, row, tokens, None))
        counts.append(writer.close())
    write_products(folder, name, shards, products)
    return SplitEntry(tuple(shards), tuple(counts), len(products))


def draw_store(config: RunConfig, folder: Path) -> None:
    """The store of the drawn shards, of what the config's patch encoder would fill it with: noise."""
    folder.mkdir(parents=True)
    manifest = Manifest.read(Path(config.data.shards))
    torch.manual_seed(config.train.seed)
    encoder = build_step(config, manifest).model.patch_encoder
    recipe, rows = with_weights(store_recipe(config, manifest), encoder), stored_rows(config.kaleido).num_rows
    draw = np.random.default_rng(0)
    noise = draw.standard_normal((ROW_DRAWS, encoder.num_features), dtype=np.float32)
    for entry in manifest.splits.values():
        for shard, samples in zip(entry.shards, entry.samples, strict=True):
            writer = StoreWriter(store_file(folder, shard), config.data.store_dtype, rows, encoder.num_features, recipe)
            for _ in range(samples):
                writer.add(noise[draw.integers(0, ROW_DRAWS, rows)])
            writer.close()
