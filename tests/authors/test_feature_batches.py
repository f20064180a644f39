"""Batches of the authors' features: the file's rows in the stream's order, holes for what is broken, the same on any worker."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kaleido_fast.authors.feature_batches import FromFeatureFiles
from kaleido_fast.authors.feature_samples import FeatureSamples
from kaleido_fast.authors.fixed_plan import BLANK, GREY
from kaleido_fast.authors.prepare_tsv import KaleidoTsvOptions, prepare_kaleido_tsv
from kaleido_fast.authors.tsv_columns import PRETRAINING
from kaleido_fast.authors.tsv_rows import parse_row
from kaleido_fast.data.batches.loader import Loader, evaluation_batches
from kaleido_fast.data.batches.patches import ReadyRows
from kaleido_fast.data.batches.stream import sample_order
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.store.feature_store import ENDING, HEADER_BYTES
from kaleido_fast.kernels.philox import EVALUATION_EPOCH
from kaleido_fast.model.counts import RowCounter
from kaleido_fast.model.kaleido_tasks import plan_rules
from kaleido_fast.model.settings import KaleidoSettings
from tests.authors import feature_files

CPU = torch.device("cpu")
SETTINGS = DataSettings()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return feature_files.write_feature_file(tmp_path_factory.mktemp("rows") / "rows.tsv", 40)


@pytest.fixture(scope="module")
def prepared(file: Path) -> Path:
    prepare_kaleido_tsv(KaleidoTsvOptions((file,), file.with_name("s"), shard_size=16, processes=1))
    return file.with_name("s")


@pytest.fixture
def shards(prepared: Path, tmp_path: Path) -> Path:
    """36 rows to train on and 4 to validate, to be changed at will."""
    shutil.copytree(prepared, tmp_path / "s")
    return tmp_path / "s"


def _loader(shards: Path, settings: DataSettings = SETTINGS, **more) -> Loader:
    source = FromFeatureFiles(Split.open(shards, "train"))
    return Loader(source, settings, **({"seed": 1, "micro_batch": 16, "device": CPU} | more))


def _same(a, b) -> bool:
    tensors = [(getattr(x, f.name), getattr(y, f.name)) for x, y in ((a, b), (a.patches, b.patches))
               for f in dataclasses.fields(x) if f.name not in ("host", "patches", "plan", "own_texts")]
    pairs = [*tensors, *zip(a.plan.tensors, b.plan.tensors, strict=True)]
    return all(x is y is None or torch.equal(x, y) for x, y in pairs)


def test_a_batch_is_the_files_rows_in_stream_order(shards: Path, file: Path) -> None:
    split, batch = Split.open(shards, "train"), next(_loader(shards))
    samples, epochs = sample_order(np.arange(16), split.num_samples, seed=1)
    assert batch.host.samples.tolist() == samples.tolist() and batch.epochs.tolist() == epochs.tolist()
    lines, vocabulary = file.read_bytes().splitlines(), split.manifest.vocabulary
    for index, sample in enumerate(samples):
        row = parse_row(lines[split.record(int(sample))["line"] - 1], PRETRAINING, vocabulary)
        values, grey = row.values, row.values["img_grey_lm_ids"].tolist()
        assert batch.tokens[index].tolist() == values["input_ids"].tolist() and int(batch.lengths[index]) == row.length
        assert batch.match[index] == bool(values["nx_sent_labels"][0])
        assert batch.patches.locations[index].tolist() == row.locations.tolist()
        assert batch.plan.part(GREY).slots[index].tolist() == grey
        assert batch.plan.part(BLANK).slots[index].tolist() == values["img_blank_lm_ids"].tolist()
        blanks = {30 + slot for slot in values["img_blank_lm_ids"].tolist()}
        assert set(torch.nonzero(batch.plan.source[index] == -1).ravel().tolist()) == blanks
        read = batch.patches.features.flatten(0, 1)[batch.plan.source[index].long().clamp(min=0)].numpy()
        shown = [position for position in range(55) if position not in blanks]
        assert np.array_equal(read[shown], row.features[:55][shown])  # each position reads what the file has there
        clean = batch.patches.features[index, [14 + slot for slot in grey]].numpy()
        assert np.array_equal(clean, row.features[55:])  # targets of the greyed slots
        counted = values["masked_lm_weights"] == 1
        assert batch.plan.masked_positions[index].tolist() == np.where(counted, values["masked_lm_positions"], -1).tolist()
        assert batch.plan.masked_labels[index].tolist() == np.where(counted, values["masked_lm_ids"], -100).tolist()
        assert batch.host.num_masked[index] == counted.sum() == batch.plan.num_masked[index]
    assert isinstance(batch.patches, ReadyRows) and batch.present.all()


def test_workers_share_the_stream_and_a_position_resumes_it(shards: Path) -> None:
    alone = _loader(shards)
    batches = [next(alone) for _ in range(6)]
    for worker in (0, 1):
        own = _loader(shards, worker=worker, num_workers=2)
        assert all(_same(next(own), batches[number]) for number in range(worker, 6, 2))
    later = _loader(shards, position=48)
    assert all(_same(next(later), batch) for batch in batches[3:])


@pytest.mark.parametrize("prefetch", [1, 5])
def test_how_far_the_thread_runs_ahead_changes_nothing(prefetch: int, shards: Path) -> None:
    one, other = _loader(shards), _loader(shards, dataclasses.replace(SETTINGS, prefetch=prefetch))
    assert all(_same(next(one), next(other)) for _ in range(4))


def test_evaluation_gives_each_sample_once_and_absent_ones_count_nowhere(shards: Path) -> None:
    split = Split.open(shards, "train")
    batches = list(evaluation_batches(FromFeatureFiles(split), np.arange(split.num_samples), SETTINGS, seed=0, micro_batch=16,
                                      device=CPU, draw_text=True))
    present = np.concatenate([batch.host.samples[batch.host.present] for batch in batches])
    assert present.tolist() == list(range(split.num_samples)) and (batches[0].epochs == EVALUATION_EPOCH).all()
    absent = ~batches[-1].present
    assert absent.any() and not batches[-1].patches.features[absent].any() and (batches[-1].lengths[absent] == 2).all()
    plan = batches[-1].plan
    assert (plan.labels[absent] == -100).all() and (plan.slots[absent] == -1).all()
    assert (plan.masked_positions[absent] == -1).all()
    host, rules = batches[-1].host, plan_rules(KaleidoSettings(), mask_id=103, ordinary_first=999, ordinary_last=30521)
    rows = RowCounter(KaleidoSettings(), rules, ("amlm",)).count(
        lengths=host.lengths, match=host.match, present=host.present, image_products=host.image_products,
        num_masked=host.num_masked)
    here, matched = host.present, host.present & host.match
    assert rows == {"itm": here.sum(), "amlm": host.num_masked[here].sum(), "rotation": matched.sum(),
                    "jigsaw": matched.sum(), "camouflage": matched.sum(), "grey_to_color": 2 * matched.sum(),
                    "blank_to_color": 3 * matched.sum()}


def _flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def _store(shards: Path) -> str:
    _flip(shards / f"train-000000{ENDING}", HEADER_BYTES + 3 * 57 * 96 * 4 + 10)
    return "its features do not match their CRC32"


def _plan(column: str, value: int) -> Callable[[Path], str]:
    def change(shards: Path) -> str:
        plans = np.load(shards / "train-000000.plan.npy")
        plans[column][3] = value
        np.save(shards / "train-000000.plan.npy", plans)
        return "its row in the table or in the plan holds numbers that cannot be"
    return change


def _table(shards: Path) -> str:
    rows = np.load(shards / "train-000000.table.npy")
    rows["num_tokens"][3] = 63
    np.save(shards / "train-000000.table.npy", rows)
    return "its row in the table or in the plan holds numbers that cannot be"


@pytest.mark.parametrize(
    "change", [_store, _table, _plan("masked_positions", 64), _plan("masked_labels", 30522), _plan("rotation", 4),
               _plan("permutation", 24), _plan("camouflage", -1), _plan("grey_slots", 16), _plan("blank_slots", 3),
               _plan("match", 2)])
def test_a_broken_sample_is_a_hole(change: Callable[[Path], str], shards: Path) -> None:
    reason, split = change(shards), Split.open(shards, "train")
    holes: dict[str, str] = {}
    batches = evaluation_batches(FromFeatureFiles(split), np.arange(16), SETTINGS, seed=0, micro_batch=16, device=CPU,
                                 draw_text=True, holes=holes)
    batch = next(batches)
    assert batch.host.present.tolist() == [sample != 3 for sample in range(16)] == batch.present.tolist()
    assert list(holes) == ["train sample 3"] and holes["train sample 3"].startswith(reason)
    assert not batch.patches.features[3].any() and batch.host.num_masked[3] == 0 and int(batch.lengths[3]) == 2


@pytest.mark.parametrize(("change", "message"), [
    (lambda shards: (shards / f"train-000001{ENDING}").write_bytes(b""), f"train-000001{ENDING}: its first 4096 bytes are"),
    (lambda shards: (shards / f"train-000001{ENDING}").unlink(), f"train-000001{ENDING}: cannot be read: No such file"),
    (lambda shards: (shards / f"train-000001{ENDING}").write_bytes((shards / f"validation-000000{ENDING}").read_bytes()),
     f"train-000001{ENDING}: samples 4, expected 16 by the manifest"),
    (lambda shards: np.save(shards / "train-000001.plan.npy", np.zeros(3)), "train-000001.plan.npy: rows of another kind"),
    (lambda shards: np.save(shards / "train-000000.locations.npy", np.zeros((16, 54, 5), "<i4")),
     r"train-000000.locations.npy: shape \(16, 54, 5\), expected \(16, 55, 5\)"),
])
def test_files_that_do_not_fit_are_named_at_the_start(change, message: str, shards: Path) -> None:
    change(shards)
    with pytest.raises(ValueError, match=message):
        FeatureSamples(Split.open(shards, "train"))


def test_a_cut_text_is_refused(shards: Path) -> None:
    with pytest.raises(ValueError, match="data.max_tokens=40: the masked texts of .* are 64 wide; set data.max_tokens to that"):
        _loader(shards, DataSettings(max_tokens=40))
