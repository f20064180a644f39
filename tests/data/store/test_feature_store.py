"""The feature store: what is written is read back within its dtype's bound; what is no whole store is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from kaleido_fast.data.store.feature_store import HEADER_BYTES, FeatureStore, StoreWriter, recipe_fingerprint
from kaleido_fast.data.store.row_format import STORE_DTYPES, pack_rows, row_bytes, unpack_rows

RECIPE = {"encoder": "resnet50", "patch_size": 224, "grids": [1, 2, 3, 4, 5]}


def _rows(*shape: int) -> np.ndarray:
    """Rows of several scales and both signs, with zeros, a row of one value and a row of zeros."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=shape) * 10.0 ** generator.integers(-6, 4, (*shape[:-1], 1))
    rows[generator.random(shape) < 0.3] = 0
    rows[..., -2, :], rows[..., -1, :] = 0.1, 0
    return rows.astype(np.float32)


def _bound(rows: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "fp32":
        return np.zeros_like(rows)
    if dtype == "fp16":
        return np.abs(rows) / 2048 + 2**-25
    return np.broadcast_to(0.502 * (rows.max(-1, keepdims=True) - rows.min(-1, keepdims=True)) / 255, rows.shape)


def _write(path: Path, rows: np.ndarray, dtype: str = "fp32") -> Path:
    writer = StoreWriter(path, dtype, *rows.shape[1:], RECIPE)
    for block in rows:
        writer.add(block)
    assert writer.close() == len(rows)
    return path


@pytest.mark.parametrize("dtype", STORE_DTYPES)
@pytest.mark.parametrize("width", [1, 7, 96])
def test_a_round_trip_stays_within_the_stated_bound(dtype: str, width: int, tmp_path: Path) -> None:
    rows = _rows(5, 57, width)
    store = FeatureStore(_write(tmp_path / "s.features", rows, dtype))
    assert store.header.block_bytes == 57 * row_bytes(dtype, width)
    block = np.empty(store.header.block_bytes, np.uint8)
    for place in (3, 0, 4):
        assert store.copy(place, block)
        read = unpack_rows(torch.from_numpy(block).reshape(57, -1), dtype)
        assert read.dtype == torch.float32 and read.shape == (57, width)
        assert (np.abs(read.numpy().astype(np.float64) - rows[place]) <= _bound(rows[place], dtype)).all()


def test_rounding_is_not_nothing() -> None:
    """A negative control: the bounds above are near what happens."""
    rows = _rows(50, 57, 96)
    for dtype in ("fp16", "uint8"):
        error = np.abs(unpack_rows(torch.from_numpy(pack_rows(rows, dtype)), dtype).numpy() - rows)
        assert (error > 0.9 * _bound(rows, dtype)).any(), dtype


def test_a_row_of_one_value_is_exact_in_uint8() -> None:
    rows = np.full((1, 9), -3.7, np.float32)
    assert np.array_equal(unpack_rows(torch.from_numpy(pack_rows(rows, "uint8")), "uint8").numpy(), rows)


@pytest.mark.parametrize(("value", "dtype", "message"), [
    (np.nan, "fp32", "not finite"), (-np.inf, "uint8", "not finite"), (7e4, "fp16", "70000 does not fit fp16")])
def test_what_a_dtype_cannot_hold_is_refused(value: float, dtype: str, message: str, tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "s.features", dtype, 2, 3, RECIPE)
    with pytest.raises(ValueError, match=f"feature store: a feature .*{message}"):
        writer.add(np.full((2, 3), value, np.float32))
    with pytest.raises(ValueError, match=re.escape("rows (3, 3), expected (2, 3)")):
        writer.add(np.zeros((3, 3), np.float32))


def test_the_header_names_its_recipe(tmp_path: Path) -> None:
    header = FeatureStore(_write(tmp_path / "s.features", _rows(2, 4, 5), "fp16")).header
    assert (header.dtype, header.samples, header.rows, header.num_features) == ("fp16", 2, 4, 5)
    assert header.recipe == RECIPE and header.fingerprint == recipe_fingerprint(dict(reversed(RECIPE.items())))
    assert header.fingerprint != recipe_fingerprint(RECIPE | {"patch_size": 48})


def test_a_flipped_bit_is_seen(tmp_path: Path) -> None:
    path = _write(tmp_path / "s.features", _rows(3, 4, 5))
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 4 * 5 * 4 + 7] ^= 1  # in block 1
    path.write_bytes(data)
    store, block = FeatureStore(path), np.empty(80, np.uint8)
    assert [store.copy(place, block) for place in range(3)] == [True, False, True]
    assert not store.copy(1, block)  # the second time too


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _other_recipe(data: bytes) -> bytes:
    return data.replace(b"resnet50", b"resnet18")


@pytest.mark.parametrize(("change", "message"), [
    (_cut, "4,347 bytes, expected 4,348 by its header"), (lambda data: data + b"x", "4,349 bytes, expected 4,348"),
    (_other_recipe, "not the header of a feature store"), (lambda data: b"", "not the header of a feature store"),
    (lambda data: data[:HEADER_BYTES].replace(b"fp32", b"fp64"), "not the header of a feature store"),
    (lambda data: bytes(len(data)), "not the header of a feature store")])
def test_what_is_no_whole_store_is_refused(change, message: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "s.features", _rows(3, 4, 5))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=f"s.features: .*{message}"):
        FeatureStore(path)


def test_a_store_that_was_not_closed_is_none(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "s.features", "fp32", 2, 3, RECIPE)
    writer.add(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="not the header"):
        FeatureStore(tmp_path / "s.features")
    with pytest.raises(ValueError, match="cannot be read"):
        FeatureStore(tmp_path / "none.features")
