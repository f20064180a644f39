"""encode: a store's folder has one writer."""

import os
from pathlib import Path

import pytest

from kaleido_fast.config import load_config
from kaleido_fast.data.store.feature_store import ENDING
from kaleido_fast.folder_lock import FolderLock
from kaleido_fast.training.stores.encode import encode
from tests.places import DEMO
from tests.small import RUN


def read_files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_one_process_at_a_time_writes_a_store(tiny_shards: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    config = load_config(DEMO, [*RUN, "train.steps=2", f"data.shards={tiny_shards}", f"data.store={store}"])
    assert encode(config) == 0
    before = read_files(store)
    lock = FolderLock(store, "encode", "data.store").take()
    assert encode(config) == 0, "it is whole, nothing is written"
    (store / f"test-000000{ENDING}").unlink()
    theirs = store / f".test-000000{ENDING}.writing"
    theirs.write_bytes(b"half of it")
    with pytest.raises(ValueError, match=rf"store: process {os.getpid()} on .* works there \(encode, since .*\); wait for its "
                                         "end, stop it, or give another data.store"):
        encode(config)
    assert theirs.read_bytes() == b"half of it"
    theirs.unlink()
    lock.release()
    assert encode(config) == 0
    assert read_files(store) == before
