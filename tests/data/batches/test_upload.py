"""Arrays of a batch in one piece: values, shapes, dtypes; and that it is one piece."""

import numpy as np
import pytest
import torch

from kaleido_fast.data.batches.upload import ALIGNED, Upload

ARRAYS = {
    "flags": np.array([True, False, True]), "none": np.zeros((0, 4), np.int64), "scalar": np.array(7, np.int64),
    "words": np.arange(10, dtype=np.int32).reshape(2, 5), "strided": np.arange(12, dtype=np.int64).reshape(3, 4)[:, ::2],
    "field": np.array([(1, 2.5), (3, -1.0)], [("a", "i2"), ("b", "f4")])["b"], "bytes": np.arange(5, dtype=np.uint8),
}


def test_values_shapes_and_dtypes_arrive() -> None:
    tensors = Upload(torch.device("cpu"))(ARRAYS)
    assert list(tensors) == list(ARRAYS)
    for name, values in ARRAYS.items():
        assert tensors[name].shape == values.shape and tensors[name].numpy().dtype == values.dtype
        np.testing.assert_array_equal(tensors[name].numpy(), values)


def test_one_piece_and_every_array_aligned() -> None:
    tensors = Upload(torch.device("cpu"))(ARRAYS)
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors.values()}) == 1
    assert all(tensor.storage_offset() * tensor.element_size() % ALIGNED == 0 for tensor in tensors.values())


def test_the_source_may_change_afterwards() -> None:
    source = np.arange(4)
    there = Upload(torch.device("cpu"))({"x": source})["x"]
    source[:] = -1
    assert there.tolist() == [0, 1, 2, 3]


@pytest.mark.gpu
def test_nothing_waits_and_nothing_is_overwritten_on_a_gpu() -> None:
    """A hundred copies in flight beside work that is still to be done."""
    device = torch.device("cuda")
    upload, busy = Upload(device), torch.randn(4096, 4096, device=device)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        sums = []
        for number in range(100):
            busy = busy @ busy / 64
            there = upload({"x": np.full(1 << 18, number, np.int64), "y": np.array([True])})
            sums.append(there["x"].sum())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(sums).tolist() == [number << 18 for number in range(100)]
