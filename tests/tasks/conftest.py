"""Tiny models with random weights, small shards, a batch with everything in it: holes, one product twice."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kaleido_fast.config import Config, build_config
from kaleido_fast.data.batches.batch import Batch, HostBatch
from kaleido_fast.data.batches.patches import Pixels
from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.prepare import PrepareOptions, prepare
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.model.weights import save_weights
from kaleido_fast.settings import as_yaml

IMAGE_SIZE = 60
MASK_ID, ORDINARY = 4, (5, 90)


@pytest.fixture(scope="session")
def tiny_model() -> KaleidoBertModel:
    torch.manual_seed(0)
    settings = ModelSettings(
        hidden=32, layers=2, heads=2, intermediate=64, dropout=0.1, initializer_range=0.2
    )
    model = KaleidoBertModel(settings, KaleidoSettings(patch_size=12), VocabularySettings(91, 128), IMAGE_SIZE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="session")
def photographs() -> torch.Tensor:
    """(40, S, S, 3) uint8: soft random shapes."""
    noise = torch.rand(40, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.interpolate(noise, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear")
    return (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@pytest.fixture(scope="session")
def matched_batch(photographs: torch.Tensor) -> Batch:
    """Two groups: in the first rows 3 and 9 are holes, rows 0-1 one product; the second is one product."""
    random = np.random.default_rng(2)
    lengths = random.integers(2, 15, 32).astype(np.int32)
    tokens = np.zeros((32, 16), np.int32)
    for row, length in enumerate(lengths):
        tokens[row, :length] = random.integers(*ORDINARY, length)
    products = np.concatenate([[0, 0], np.arange(2, 16), np.full(16, 99)]).astype(np.int64)
    present = np.ones(32, bool)
    present[[3, 9]] = False
    match = np.ones(32, bool)
    host = HostBatch(np.arange(32), products, products, lengths, match, present)
    ranks = torch.from_numpy(products)
    return Batch(
        patches=Pixels(photographs[:32]),
        tokens=torch.from_numpy(tokens),
        lengths=torch.from_numpy(lengths),
        alignment=torch.from_numpy(random.integers(0, 1 << 54, (32, 16))),
        keys=torch.from_numpy(random.integers(-(1 << 62), 1 << 62, 32)),
        image_products=ranks,
        match=torch.from_numpy(match),
        present=torch.from_numpy(present),
        epochs=torch.full((32,), (1 << 28) - 1),
        host=host,
    )


@pytest.fixture(scope="session")
def small_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 drawn products, one or two photographs each: the sub-category is the colour, the words name it."""
    folder = tmp_path_factory.mktemp("catalogue")
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    colours = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (40, 60, 190), "brown": (120, 80, 40)}
    rows = ["id,productDisplayName,description,masterCategory,articleType"]
    for number in range(1000, 1240):
        name = list(colours)[number % 4]
        kind = "Warm" if name in ("red", "brown") else "Cold"
        rows.append(
            f"{number},{name} shirt {number % 7},worn {number % 11} times size {number % 13},{kind},{name}"
        )
        for photo in range(1 + number % 2):
            image = Image.new("RGB", (80, 100), "white")
            side = int(random.integers(30, 60))
            image.paste(colours[name], (10, 12, 10 + side, 20 + side))
            image.save(folder / "images" / (f"{number}_{photo}.jpg" if photo else f"{number}.jpg"))
    (folder / "styles.csv").write_text("\n".join(rows) + "\n")
    shards = folder / "shards"
    prepare(PrepareOptions(CsvCatalogue(folder / "styles.csv", folder / "images"), shards, vocab_size=200, processes=1))
    return shards


@pytest.fixture(scope="session")
def small_config(small_shards: Path) -> Config:
    return build_config(
        {
            "data": {"shards": str(small_shards), "image_size": IMAGE_SIZE, "max_tokens": 16},
            "kaleido": {"patch_size": 12},
            "model": {
                "hidden": 32,
                "layers": 1,
                "heads": 2,
                "intermediate": 64,
                "dropout": 0.0,
                "initializer_range": 0.2,
            },
            "train": {"steps": 1},
            "eval": {
                "queries": 20,
                "draws": 2,
                "batch_photographs": 16,
                "batch_pairs": 50,
                "examples": 3,
                "probe_iterations": 30,
                "kaleido_samples": 40,
            },
            "run": {"device": "cpu"},
        }
    )


@pytest.fixture(scope="session")
def small_model(small_config: Config) -> KaleidoBertModel:
    """Random weights, as wide as the small shards' vocabulary."""
    vocabulary = Manifest.read(Path(small_config.data.shards)).vocabulary
    torch.manual_seed(1)
    return KaleidoBertModel(
        small_config.model,
        small_config.kaleido,
        VocabularySettings(vocabulary.size, vocabulary.padded_size, vocabulary.fingerprint),
        IMAGE_SIZE,
    ).eval()


@pytest.fixture
def small_run(tmp_path: Path, small_model: KaleidoBertModel, small_config: Config) -> Path:
    """A run folder as `pretrain` leaves it, without DeepSpeed's part."""
    folder = tmp_path / "run"
    checkpoint = folder / "checkpoints" / "step-00000001"
    save_weights(checkpoint / "weights", small_model, dict(small_model.state_dict()))
    hashes = {
        str(file.relative_to(checkpoint)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in checkpoint.rglob("*")
        if file.is_file()
    }
    (checkpoint / "files.json").write_text(json.dumps(hashes))
    (folder / "checkpoints" / "latest").write_text(checkpoint.name)
    (folder / "config.yaml").write_text(as_yaml(small_config))
    return folder
