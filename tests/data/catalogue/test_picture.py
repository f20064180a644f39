"""Squares of pictures as users have them equal those that DALI makes of the same catalogue's shards, bit for bit."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.picture import picture_square
from kaleido_fast.data.catalogue.prepare import PrepareOptions, prepare
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import Split

SIZE, MAX_SIDE = 60, 96
Made = dict[str, tuple[Path, np.ndarray, bytes]]


def _files(folder: Path, photograph: Callable[..., Image.Image]) -> dict[str, Path]:
    """A catalogue's photographs of every kind that prepare accepts."""
    folder.mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    block = photograph((200, 30, 30), (60, 80))
    glass = block.convert("RGBA")
    glass.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 60).astype(np.uint8), (80, 1))))
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (70, 50, 3), dtype=np.uint8))
    files = {
        "plain": (block, "JPEG", {"quality": 90}), "wide": (photograph((20, 40, 190), (90, 50), 1), "JPEG", {}),
        "grey": (block.convert("L"), "JPEG", {}), "turned": (photograph((30, 150, 40), (80, 50), 2), "JPEG", {"exif": turned}),
        "png": (block, "PNG", {}), "alpha": (glass, "PNG", {}), "palette": (block.quantize(16), "PNG", {}),
        "cmyk": (block.convert("CMYK"), "JPEG", {}), "busy": (noise, "JPEG", {"quality": 95}),
        "large": (photograph((20, 20, 20), (130, 180), 4), "JPEG", {}),  # not so large that the decoder halves it
        "larger": (photograph((90, 30, 60), (400, 300), 5), "JPEG", {}),
    }
    for name, (image, kind, options) in files.items():
        image.save(folder / f"{name}.jpg", kind, **options)
    return {name: folder / f"{name}.jpg" for name in files}


@pytest.fixture(scope="module")
def photograph() -> Callable[..., Image.Image]:
    def draw(colour: tuple[int, int, int], size: tuple[int, int] = (60, 80), seed: int = 0) -> Image.Image:
        pixels = np.full((size[1], size[0], 3), 250) + np.random.default_rng(seed).integers(-3, 3, (size[1], size[0], 3))
        pixels[size[1] // 4 : -size[1] // 4, size[0] // 5 : -size[0] // 4] += np.array(colour) - 250
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    return draw


@pytest.fixture(scope="module")
def by_dali(photograph, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """File, (S, S, 3) uint8 square and stored JPEG of each photograph, by its name."""
    folder = tmp_path_factory.mktemp("pictures")
    files = _files(folder / "images", photograph)
    rows = ["id,masterCategory,articleType,productDisplayName,description,split"]
    rows += [f"{name},Cat,Kind,a {name} thing,described,{'test' if number else 'train'}" for number, name in enumerate(files)]
    (folder / "styles.csv").write_text("\n".join(rows) + "\n")
    catalogue = CsvCatalogue(folder / "styles.csv", folder / "images", split="split")
    prepare(PrepareOptions(catalogue, folder / "shards", max_side=MAX_SIDE, processes=1, vocab_size=100))
    found: Made = {}
    for name in ("train", "test"):
        split = Split.open(folder / "shards", name)
        assert split.manifest.max_side == MAX_SIDE
        samples = np.arange(split.num_samples)
        batches = evaluation_batches(FromPhotographs(split), samples, DataSettings(image_size=SIZE), seed=0, micro_batch=16,
                                     device=torch.device("cpu"), draw_text=False)
        for sample, square in zip(samples, next(batches).images.numpy(), strict=False):
            key = split.record(sample)["id"]
            found[key] = (files[key], square, split.read(sample))
    assert set(found) == set(files)
    return found


KINDS = ("plain", "wide", "grey", "turned", "png", "alpha", "palette", "cmyk", "busy", "large", "larger")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_gives_what_prepare_and_dali_give(by_dali, kind: str) -> None:
    file, expected, stored = by_dali[kind]
    assert np.array_equal(picture_square(file, MAX_SIDE, SIZE), expected)
    assert np.array_equal(picture_square(str(file), MAX_SIDE, SIZE), expected)
    if kind != "larger":  # of a JPEG several times too large the decoder's own halving comes first
        assert np.array_equal(picture_square(Image.open(file), MAX_SIDE, SIZE), expected)
    decoded = Image.open(io.BytesIO(stored)).convert("RGB")
    assert np.array_equal(picture_square(decoded, MAX_SIDE, SIZE), expected)
    assert np.array_equal(picture_square(np.asarray(decoded), MAX_SIDE, SIZE), expected)


def test_another_largest_side_is_another_picture(by_dali) -> None:
    """The negative control: what must matter does."""
    file, expected, _ = by_dali["larger"]
    assert not np.array_equal(picture_square(file, 200, SIZE), expected)
    assert not np.array_equal(picture_square(file, MAX_SIDE, SIZE)[::-1], expected)


def test_a_grey_array_is_three_equal_channels(by_dali) -> None:
    file, expected, _ = by_dali["grey"]
    assert np.array_equal(picture_square(np.asarray(Image.open(file)), MAX_SIDE, SIZE), expected)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), r"uint8 \(H, W, 3\) or \(H, W\), found float32 \(8, 8, 3\)"),
        (np.zeros((8, 8, 4), np.uint8), r"found uint8 \(8, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), r"found uint8 \(0, 8, 3\)"),
        (np.zeros((8, 300, 3), np.uint8), "a picture of 300 x 8 pixels; each side needs at least 16"),
        (Image.new("RGB", (1, 1)), "a picture of 1 x 1 pixels; each side needs at least 16"),
        (7, "a picture is a path, a PIL image or a uint8 array, found int"),
        ("none.jpg", "none.jpg: no such photograph"),
    ],
)
def test_what_is_no_picture_is_named(picture, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        picture_square(picture, MAX_SIDE, SIZE)


def test_a_damaged_file_is_named(by_dali, tmp_path: Path) -> None:
    file = by_dali["busy"][0]
    (tmp_path / "cut.jpg").write_bytes(file.read_bytes()[:1500])
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match="cut.jpg: truncated or damaged image"):
        picture_square(tmp_path / "cut.jpg", MAX_SIDE, SIZE)
    with pytest.raises(ValueError, match="text.jpg: not a"):
        picture_square(tmp_path / "text.jpg", MAX_SIDE, SIZE)
    with pytest.raises(ValueError, match="cut.jpg: .*truncated"):
        picture_square(Image.open(tmp_path / "cut.jpg"), MAX_SIDE, SIZE)
