"""Embeddings, rankings, kept features and unreadable pictures, by a model of random weights; one without contrast refuses."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kaleido_fast import KaleidoBert
from tests.exported import exported_model

TEXTS = ["a red shirt", "blue shoes", "green bag of leather", "shirt"]


@pytest.fixture(scope="module")
def folder(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory.mktemp("contrast") / "model", tiny_shards, itc_dim=8)


@pytest.fixture(scope="module")
def model(folder: Path) -> KaleidoBert:
    return KaleidoBert.from_pretrained(folder, batch_size=3)


@pytest.fixture
def files(tiny_shards: Path, tmp_path: Path) -> list[Path]:
    """Copies of four photographs."""
    images = sorted((tiny_shards.parent / "catalogue" / "images").glob("*.jpg"))[:4]
    return [Path(shutil.copy(file, tmp_path / file.name)) for file in images]


def test_embeddings_have_length_one_and_their_products_rank(model: KaleidoBert, files: list[Path]) -> None:
    pictures, words = model.encode_image(files), model.encode_text(TEXTS)
    assert pictures.shape == words.shape == (4, 8) and pictures.dtype == torch.float32
    for side in (pictures, words):
        torch.testing.assert_close(side.norm(dim=1), torch.ones(4))
        assert torch.pdist(side).min() > 1e-3
    matching, cosines, both = (model.score(files, TEXTS, all_pairs=True, by=by) for by in ("itm", "itc", "both"))
    torch.testing.assert_close(cosines, pictures @ words.T)
    torch.testing.assert_close(both, matching + cosines / 0.07)
    assert model.temperature == pytest.approx(0.07)
    torch.testing.assert_close(model.score(files, TEXTS, by="both"), both.diagonal())
    assert torch.equal(model.score(files, TEXTS, all_pairs=True), matching)
    torch.testing.assert_close(model.encode_image(files[2]), pictures[2:3])
    assert model.encode_image([]).shape == model.encode_text([]).shape == (0, 8)
    assert model.pooled_image(files).shape == model.pooled_text(TEXTS).shape == (4, 32)
    with pytest.raises(ValueError, match="score: by='cosine': unknown; use itm, itc, both"):
        model.score(files, TEXTS, by="cosine")


def test_a_model_without_contrast_refuses_what_would_mean_nothing(tiny_shards: Path, tmp_path: Path, files: list[Path]) -> None:
    """As an older export, whose settings do not know of it."""
    folder = exported_model(tmp_path / "model", tiny_shards)
    settings = (folder / "model.json").read_text()
    assert '"itc_dim": 0' in settings
    (folder / "model.json").write_text(settings.replace('"itc_dim": 0,', ""))
    model = KaleidoBert.from_pretrained(folder)
    for what, call in (("encode_image", lambda: model.encode_image(files)), ("encode_text", lambda: model.encode_text("a")),
                       ("score.by='both'.", lambda: model.score(files, TEXTS, by="both")),
                       ("temperature", lambda: model.temperature)):
        with pytest.raises(ValueError, match=f"^{what}: this model was trained without contrast, .*; use score for pairs, "
                           "pooled_image and pooled_text for a classifier's inputs, or train with model.itc_dim=128 "):
            call()
    assert model.score(files, TEXTS).shape == (4,) and model.pooled_image(files).shape == (4, 32)


def test_features_are_kept_and_a_changed_file_is_read_again(folder: Path, files: list[Path]) -> None:
    model = KaleidoBert.from_pretrained(folder, batch_size=3)
    features = model.picture_features
    first = model.encode_image(files)
    assert (features.computed, features.found) == (4, 0)
    assert torch.equal(model.encode_image(files), first) and model.score([str(file) for file in files], TEXTS).shape == (4,)
    assert (features.computed, features.found) == (4, 8)
    shutil.copy(files[1], files[0])
    os.utime(files[0], ns=(1, 1))
    changed = model.encode_image(files)
    torch.testing.assert_close(changed[0], first[1])
    assert (features.computed, features.found) == (5, 11)
    pixels = [np.asarray(Image.open(file)) for file in files[:2]]
    opened = [Image.open(file) for file in files[:2]]
    for some in (pixels, opened, [picture.copy() for picture in pixels], [Image.open(file) for file in files[:2]]):
        torch.testing.assert_close(model.encode_image(some), changed[:2])
    assert (features.computed, features.found) == (9, 15)
    flipped = pixels[0][:, ::-1].copy()
    assert not torch.equal(model.encode_image(flipped), changed[:1])


def test_a_model_may_be_loaded_and_asked_in_inference_mode(folder: Path, files: list[Path], model: KaleidoBert) -> None:
    with torch.inference_mode():
        loaded = KaleidoBert.from_pretrained(folder, batch_size=3)
        torch.testing.assert_close(loaded.encode_image(files), model.encode_image(files))


def test_what_is_kept_is_bounded_and_goes_with_the_patch_encoder(tiny_shards: Path, tmp_path: Path, files: list[Path]) -> None:
    folder = exported_model(tmp_path / "model", tiny_shards, itc_dim=8, patch_encoder="linear")
    nothing, two = (KaleidoBert.from_pretrained(folder, kept_features_mib=size) for size in (0, 2.5 * 55 * 32 * 4 / 2**20))
    expected = nothing.encode_image(files)
    assert torch.equal(nothing.encode_image(files), expected) and nothing.picture_features.found == 0
    two.encode_image(files)
    two.encode_image(files[2:])
    assert (two.picture_features.computed, two.picture_features.found) == (4, 2)
    two.encode_image(files[:1])
    assert (two.picture_features.computed, two.picture_features.found) == (5, 2)
    before = two.encode_image(files[0])
    with torch.no_grad():
        next(two.model.patch_encoder.parameters()).mul_(-2)
    assert not torch.allclose(two.encode_image(files[0]), before)
    with pytest.raises(ValueError, match="kept_features_mib=-1 must be at least 0"):
        KaleidoBert.from_pretrained(folder, kept_features_mib=-1)


def test_a_model_goes_to_another_process_without_what_it_keeps(model: KaleidoBert, files: list[Path]) -> None:
    pictures = model.encode_image(files)
    other = pickle.loads(pickle.dumps(model))
    assert torch.equal(other.encode_image(files), pictures) and other.picture_features.found == model.picture_features.found
    assert other.picture_features.computed == model.picture_features.computed + 4


def test_unreadable_pictures_are_named_or_left_out(model: KaleidoBert, files: list[Path]) -> None:
    damaged, missing = files[1].with_name("damaged.jpg"), files[0].with_name("none.jpg")
    damaged.write_bytes(files[1].read_bytes()[:200])
    given = [files[0], damaged, files[1], missing, missing, missing, files[2]]
    with pytest.raises(ValueError, match="image 1: .*damaged.jpg: "):
        model.encode_image(given)
    for encode in (model.encode_image, model.pooled_image):
        encoded = encode(given, errors="skip")
        assert encoded.kept == [0, 2, 6] and list(encoded.skipped) == [1, 3, 4, 5]
        assert "damaged.jpg" in encoded.skipped[1] and encoded.skipped[3].endswith("none.jpg: no such photograph")
        torch.testing.assert_close(encoded.outputs, encode(files[:3]))
    nothing = model.encode_image([missing], errors="skip")
    assert nothing.outputs.shape == (0, 8) and not nothing.kept
    with pytest.raises(ValueError, match="errors='ignore': unknown; use raise or skip"):
        model.encode_image(given, errors="ignore")
