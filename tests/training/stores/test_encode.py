"""kaleido-fast encode: the stores hold what the step computes, finished ones are kept, others are refused by name."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kaleido_fast.authors.prepare_tsv import KaleidoTsvOptions, prepare_kaleido_tsv
from kaleido_fast.cli import main
from kaleido_fast.config import Config, load_config
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import Loader
from kaleido_fast.data.batches.patches import StoreRows
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.store.feature_store import ENDING, HEADER_BYTES, FeatureStore, read_store_header
from kaleido_fast.data.store.photograph_store import PhotographStore
from kaleido_fast.model.kaleido_tasks import stored_rows
from kaleido_fast.model.patch_encoders.efficientnet_lite0 import EfficientnetLite0Encoder
from kaleido_fast.model.settings import KaleidoSettings
from kaleido_fast.model.task_table import TASKS, KaleidoTask
from kaleido_fast.training.build import build_step
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.stores import encode as encode_module
from kaleido_fast.training.stores.encode import encode
from kaleido_fast.training.stores.open import open_source
from kaleido_fast.training.stores.recipe import weights_fingerprint
from tests.places import DEMO, GOLDEN, REPO
from tests.small import RUN

SMALL = (*RUN, "train.steps=2", "data.store_dtype=fp32")


def _overrides(shards: Path, store: Path, *more: str) -> list[str]:
    return [*SMALL, f"data.shards={shards}", f"data.store={store}", *more]


def _config(shards: Path, store: Path, *more: str) -> Config:
    return load_config(DEMO, _overrides(shards, store, *more))


@pytest.fixture(scope="module")
def encoded(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the tiny shards in fp32, read only; by one thread, as workers have one: the last bits depend on it."""
    folder, threads = tmp_path_factory.mktemp("encoded") / "store", torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert encode(_config(tiny_shards, folder)) == 0
    finally:
        torch.set_num_threads(threads)
    return folder


@pytest.fixture
def store(encoded: Path, tmp_path: Path) -> Path:
    """The same, to be changed at will."""
    return shutil.copytree(encoded, tmp_path / "store")


def _bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_every_split_is_stored_and_a_batch_reads_what_the_step_computes(tiny_shards: Path, encoded: Path) -> None:
    manifest, config = Manifest.read(tiny_shards), _config(tiny_shards, encoded, "model.features=stored")
    assert sorted(_bytes(encoded)) == sorted(
        f"{shard}{ENDING}" for entry in manifest.splits.values() for shard in entry.shards)
    split, step = Split.open(tiny_shards, "train"), build_step(config, manifest)
    options = {"seed": 3, "micro_batch": 32, "device": torch.device("cpu")}
    stored, computed = (Loader(one, config.data, **options) for one in (open_source(config, split), FromPhotographs(split)))
    for _ in range(3):
        ours, theirs = next(stored), next(computed)
        for name in ("tokens", "lengths", "alignment", "keys", "image_products", "match", "present", "epochs"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
        assert isinstance(ours.patches, StoreRows) and ours.patches.packed.shape[:2] == (32, 74)
        plan = step.plan_of(ours)
        assert len(plan.labels[:, 0].unique()) == 4
        expected = step.model.features(theirs.images, plan)
        found, targets = ours.patches.features_and_targets(step.model, plan)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
        assert targets is found


def test_finished_shards_are_kept_and_damaged_ones_written_anew(
    tiny_shards: Path, store: Path, encoded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, kept = _bytes(encoded), store / f"train-000000{ENDING}"
    before = kept.stat().st_mtime_ns
    (store / f"test-000000{ENDING}").write_bytes(whole[f"test-000000{ENDING}"][:-5])
    (store / f"validation-000000{ENDING}").unlink()
    (store / f".validation-000000{ENDING}.writing").write_bytes(b"what a kill leaves")
    assert encode(_config(tiny_shards, store)) == 0
    assert _bytes(store) == whole and kept.stat().st_mtime_ns == before
    assert "39 photographs of 2 shards encoded" in capsys.readouterr().out
    assert encode(_config(tiny_shards, store)) == 0
    assert "0 photographs of 0 shards encoded" in (said := capsys.readouterr().out) and "3 shards were there" in said


# What is changed, and how the refusal names it; both by encode and by pretrain.
DIFFERENCES = [
    (["kaleido.patch_size=15"], "made with kaleido.patch_size=12, found kaleido.patch_size=15; set kaleido.patch_size=12"),
    (["data.image_size=120"], "made with data.image_size=60, found data.image_size=120; set data.image_size=60"),
    (["data.image_size=120", "kaleido.patch_size=15"], "made with data.image_size=60, found data.image_size=120"),  # the first
    (["kaleido.grids=[2,1,3,4,5]"], r"made with kaleido.grids=\[1, 2, 3, 4, 5\], found kaleido.grids=\[2, 1, 3, 4, 5\]"),
    (["kaleido.mean=[0.5,0.5,0.5]"], r"made with kaleido.mean=\[0.485, 0.456, 0.406\], found kaleido.mean=\[0.5, 0.5, 0.5\]"),
    (["kaleido.std=[1,1,1]"], r"made with kaleido.std=\[0.229, 0.224, 0.225\], found kaleido.std=\[1.0, 1.0, 1.0\]"),
    (["data.store_dtype=fp16"], "made with data.store_dtype=fp32, found data.store_dtype=fp16; set data.store_dtype=fp32"),
    (["model.patch_encoder=efficientnet_lite0", "kaleido.patch_size=17", "model.patch_encoder_weights=random"],
     "made with model.patch_encoder=dct, found model.patch_encoder=efficientnet_lite0"),
]


@pytest.mark.parametrize(("overrides", "message"), DIFFERENCES)
def test_a_store_made_otherwise_is_refused(
    overrides: list[str], message: str, tiny_shards: Path, encoded: Path, tmp_path: Path
) -> None:
    before = _bytes(encoded)
    for work in (encode, pretrain):
        config = _config(tiny_shards, encoded, "model.features=stored", f"run.out={tmp_path / 'run'}", *overrides)
        with pytest.raises(ValueError, match=rf"-000000\.features: {message}.*give another data.store, or remove") as error:
            work(config)
        assert "\n" not in str(error.value)
    assert _bytes(encoded) == before and not (tmp_path / "run").exists()


def test_a_store_without_the_rows_of_a_further_task_is_refused(
    tiny_shards: Path, encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "grey_thirds", KaleidoTask("grey_thirds", 3, "grey", 1))
    further = ["kaleido.tasks=[rotation,jigsaw,grey_thirds,grey_to_color,blank_to_color]", f"run.out={tmp_path / 'run'}"]
    refused = "holds 74 rows a photograph, kaleido.tasks and kaleido.grids ask for 83; give another"
    with pytest.raises(ValueError, match=refused):
        encode(_config(tiny_shards, encoded, *further))
    with pytest.raises(ValueError, match="rows a sample 74, expected 83 for kaleido.tasks and kaleido.grids; set them as they"):
        pretrain(_config(tiny_shards, encoded, "model.features=stored", *further))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("change", "message"), [
    ({"data.shards": "f" * 64}, r"made of other photographs than data.shards=.*fingerprint f{16}….*; give the shards it"),
    ({"model.patch_encoder_weights": "f" * 64},
     r"made with other weights of dct \(SHA-256 ffffffffffffffff…, found e3b0c44298fc1c14… in model.patch_encoder_weights="),
    ({"version": 0}, r"made by another version of kaleido_fast \(features 0, expected 1\); use that version"),
])
def test_other_photographs_weights_and_versions_are_refused(
    change: dict, message: str, tiny_shards: Path, store: Path, tmp_path: Path
) -> None:
    for file in store.glob(f"*{ENDING}"):
        header = read_store_header(file)
        data = bytearray(file.read_bytes())
        data[:HEADER_BYTES] = dataclasses.replace(header, recipe=header.recipe | change).encoded()
        file.write_bytes(data)
    for work in (encode, pretrain):
        with pytest.raises(ValueError, match=rf"-000000\.features: {message}"):
            work(_config(tiny_shards, store, "model.features=stored", f"run.out={tmp_path / 'run'}"))
    assert not (tmp_path / "run").exists()


def test_weights_are_told_apart_by_a_single_value() -> None:
    encoder = EfficientnetLite0Encoder(24, (0.5, 0.5, 0.5), (1, 1, 1))
    encoder.draw()
    before = weights_fingerprint(encoder)
    assert weights_fingerprint(encoder) == before
    with torch.no_grad():
        encoder._conv_head.weight[0, 0] += 1e-3
    assert weights_fingerprint(encoder) != before


@pytest.mark.parametrize(("name", "change", "message"), [
    ("missing", lambda file: file.unlink(),
     "no store of this shard there; run 'kaleido-fast encode' with the same settings, or set model.features=computed"),
    ("short", lambda file: file.write_bytes(file.read_bytes()[:-1]),
     "cut short or changed; prepare or encode the shards again"),
    ("no store", lambda file: file.write_bytes(b"x" * 5000), "its first 4096 bytes are not the header of a feature store"),
    ("another shard's", lambda file: shutil.copy(file.with_name(f"test-000000{ENDING}"), file),
     "samples 34, expected 77 as the"),
])
def test_files_that_do_not_fit_are_named(
    name: str, change, message: str, tiny_shards: Path, store: Path, tmp_path: Path
) -> None:
    change(store / f"train-000000{ENDING}")
    with pytest.raises(ValueError, match=f"train-000000{ENDING}: .*{message}"):
        pretrain(_config(tiny_shards, store, "model.features=stored", f"run.out={tmp_path / 'run'}"))


def _break(shards: Path, sample: int) -> None:
    """Change a byte inside the photograph of a training sample."""
    row = np.load(shards / "train-000000.table.npy")[sample]
    tar = shards / "train-000000.tar"
    data = bytearray(tar.read_bytes())
    data[int(row["offset"]) + int(row["length"]) // 2] ^= 1
    tar.write_bytes(data)


def test_an_unreadable_photograph_is_a_hole_and_too_many_stop(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards, store = shutil.copytree(tiny_shards, tmp_path / "shards"), tmp_path / "store"
    _break(shards, 3)
    assert encode(_config(shards, store)) == 0
    assert "1 photographs could not be read (train sample 3:" in capsys.readouterr().out
    split = Split.open(shards, "train")
    photographs = PhotographStore(split, store, stored_rows(KaleidoSettings()))
    out, present = torch.full((2, 74, 4 * 192), 7, dtype=torch.uint8), np.ones(2, bool)
    assert photographs.fetch(np.array([3, 4]), present, out) == {3: "its photograph could not be read when it was encoded"}
    assert present.tolist() == [False, True] and not out[0].any() and out[1].any()
    _break(shards, 7)
    with pytest.raises(ValueError, match="2 photographs could not be read, more than data.max_holes=0.01 allows; "
                                         "train sample 3"):
        encode(_config(shards, tmp_path / "other"))
    assert not list((tmp_path / "other").glob("*train*"))


def test_a_changed_block_is_a_hole(tiny_shards: Path, store: Path) -> None:
    path = store / f"train-000000{ENDING}"
    data = bytearray(path.read_bytes())
    data[4096 + 5 * FeatureStore(path).header.block_bytes + 100] ^= 1
    path.write_bytes(data)
    config = _config(tiny_shards, store, "model.features=stored")
    split = Split.open(tiny_shards, "train")
    loader = Loader(open_source(config, split), config.data, seed=0, micro_batch=96, device=torch.device("cpu"))
    batch = next(loader)
    assert set(batch.host.samples[~batch.host.present]) == {5} and not batch.patches.packed[~batch.present].any()
    assert loader.holes == {"train sample 5": f"its features in train-000000{ENDING} do not match their CRC32; remove that "
                                              "file and run 'kaleido-fast encode' with the same settings"}


def test_a_full_disk_leaves_nothing_half_written(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encode_module.os, "replace", full)
    with pytest.raises(ValueError, match=r"cannot be written: No space left on device; make room, then run the same command"):
        encode(_config(tiny_shards, tmp_path / "store"))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("overrides", "message"), [
    (["model.patch_encoder=linear"], "model.patch_encoder=linear: encode needs a frozen patch encoder"),
    (["data.shards="], "data.shards: not given"),
    (["data.shards=nowhere"], "nowhere: no manifest.json there"),
])
def test_what_cannot_be_encoded(overrides: list[str], message: str, tiny_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        encode(_config(tiny_shards, tmp_path / "store", *overrides))
    assert not (tmp_path / "store").exists()


def test_a_store_that_cannot_be_made_is_named(tiny_shards: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="file/store: cannot be written: Not a directory; give another data.store"):
        encode(_config(tiny_shards, tmp_path / "file" / "store"))


def test_shards_of_features_have_nothing_to_encode(tmp_path: Path) -> None:
    rows = GOLDEN / "kaleido_bert_small.tsv"
    prepare_kaleido_tsv(KaleidoTsvOptions((rows,), tmp_path / "shards", processes=1))
    with pytest.raises(ValueError, match="shards: encode needs photographs; these shards hold the features of the authors'"):
        encode(_config(tmp_path / "shards", tmp_path / "store"))


def test_without_data_store_it_lies_with_the_shards(tiny_shards: Path, tmp_path: Path, monkeypatch) -> None:
    shards = shutil.copytree(tiny_shards, tmp_path / "shards")
    assert main(["encode", str(DEMO), *SMALL, f"data.shards={shards}"]) == 0
    assert len(list((shards / "features").glob(f"*{ENDING}"))) == 3
    assert main(["encode", str(DEMO), *SMALL, f"data.shards={shards}", "kaleido.patch_size=10"]) == 2


@pytest.mark.slow
def test_two_workers_write_the_same_bytes_and_speak_with_one_voice(tiny_shards: Path, encoded: Path, tmp_path: Path) -> None:
    def run(*overrides: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "kaleido_fast",
                   "encode", "configs/demo.yaml", *_overrides(tiny_shards, tmp_path / "store"), *overrides]
        return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300,
                              env=os.environ | {"OMP_NUM_THREADS": "1"})

    done = run()
    assert done.returncode == 0, done.stderr[-3000:]
    assert _bytes(tmp_path / "store") == _bytes(encoded)
    assert done.stdout.count("116 photographs of 3 shards encoded") == 1
    refused = run("kaleido.patch_size=15")
    assert refused.returncode != 0 and refused.stderr.count("made with kaleido.patch_size=12") == 1
