"""Pre-training with mined negatives: when they are mined, what is drawn, resume bit for bit, what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kaleido_fast.config import Config
from kaleido_fast.data.shards.split import Split
from kaleido_fast.training.mining.mined_negatives import NEGATIVES, MinedNegatives, read_negatives
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.stores.encode import encode
from tests.small import small_config

MINED = ("model.itc_dim=16", "train.itc_block=16", "train.task_weights.itc=2", "data.itm_negatives=mined",
         "data.itm_hard_share=0.75", "data.mine_count=4", "train.micro_batch=16")
TIMES = ("samples_per_s", "data_wait_share", "seconds")


def _config(shards: Path, out: Path, *more: str) -> Config:
    return small_config(shards, out, "train.validate_every=4", *MINED, *more)


def _lines(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for part in (line, line.get("mining", {})):
            for name in TIMES:
                part.pop(name, None)
    return lines


def _checkpoint(out: Path, step: int) -> Path:
    return out / "checkpoints" / f"step-{step:08d}"


def _first_step_with_lists(split: Split) -> int:
    """The number of the step that ends behind epoch 0, from 1."""
    return split.num_samples // 16 + 1


def test_a_run_across_minings_resumes_as_an_undisturbed_one(tiny_shards: Path, tmp_path: Path) -> None:
    """Cut before the first mining, right behind it, and before the second."""
    samples = Split.open(tiny_shards, "train").num_samples
    steps = 2 * samples // 16 + 2
    more = (f"train.steps={steps}", "train.checkpoint_every=1", "model.dropout=0.1", "train.keep_checkpoints=99")
    assert pretrain(_config(tiny_shards, tmp_path / "whole", *more)) == 0
    whole = _lines(tmp_path / "whole")
    mined = {line["step"]: line["mining"] for line in whole if "mining" in line}
    # the first step that holds a sample of epoch 1, 2
    first = [min(step for step in range(steps + 1) if step * 16 > epoch * samples) for epoch in (1, 2)]
    assert list(mined) == first and [line["epoch"] for line in mined.values()] == [1, 2]
    for line in (line for line in whole if "losses" in line):
        assert ("mined" in line) == (line["step"] >= first[0])
    assert 0.2 < np.mean([line["mined"] for line in whole if "mined" in line]) < 0.95
    assert not (_checkpoint(tmp_path / "whole", first[0] - 1) / NEGATIVES).is_file()
    for cut in (first[0] - 1, first[0], first[1] - 1):
        out = shutil.copytree(tmp_path / "whole", tmp_path / f"cut-{cut}")
        (out / "checkpoints" / "latest").write_text(f"step-{cut:08d}")
        assert pretrain(_config(tiny_shards, out, *more), resume=True) == 0
        assert _lines(out) == whole
        for step in range(first[0] + 1, steps + 1):
            lists = [(_checkpoint(folder, step) / NEGATIVES).read_bytes() for folder in (out, tmp_path / "whole")]
            assert lists[0] == lists[1]


def test_lists_hold_other_products_of_the_sub_category(tiny_shards: Path, tmp_path: Path) -> None:
    split = Split.open(tiny_shards, "train")
    steps = _first_step_with_lists(split)
    assert pretrain(_config(tiny_shards, tmp_path, f"train.steps={steps}")) == 0
    lists = read_negatives(_checkpoint(tmp_path, steps), split.num_products, 4)
    assert lists is not None
    kinds = split.products["subcategory"]
    for product, negatives in enumerate(lists):
        drawn = negatives[negatives >= 0]
        assert product not in drawn and len(set(drawn)) == len(drawn) and (kinds[drawn] == kinds[product]).all()
    others = np.bincount(kinds)[kinds] - 1
    assert ((lists >= 0).sum(axis=1) == np.minimum(others, 4)).mean() > 0.9  # fewer where texts are alike
    with pytest.raises(ValueError, match=r"mined_negatives.npy: int32 numbers of shape .*, expected int32 of \(9, 4\); resume"):
        read_negatives(_checkpoint(tmp_path, steps), 9, 4)


def test_before_the_first_mining_a_run_is_that_of_random_negatives(tiny_shards: Path, tmp_path: Path) -> None:
    lines = []
    for kind, share in (("mined", 0.5), ("random", 0)):
        assert pretrain(_config(tiny_shards, tmp_path / kind, "train.steps=2", f"data.itm_negatives={kind}",
                                f"data.itm_hard_share={share}")) == 0
        lines.append([line for line in _lines(tmp_path / kind) if "losses" in line])
    assert lines[0] == lines[1] and len(lines[0]) == 2


def test_the_store_gives_the_lists_of_computed_features(tiny_shards: Path, tmp_path: Path) -> None:
    split = Split.open(tiny_shards, "train")
    steps = _first_step_with_lists(split)
    more = (f"data.store={tmp_path / 'store'}", "data.store_dtype=fp32", f"train.steps={steps}", "train.validate_every=99")
    assert encode(_config(tiny_shards, tmp_path / "stored", *more)) == 0
    lists = []
    for features in ("stored", "computed"):
        out = tmp_path / features
        assert pretrain(_config(tiny_shards, out, *more, f"model.features={features}")) == 0
        lists.append(read_negatives(_checkpoint(out, steps), split.num_products, 4))
    assert lists[0] is not None and (lists[0] == lists[1]).mean() > 0.98  # rounding may turn a near tie


def test_a_checkpoint_without_lists_has_them_mined_at_once(tiny_shards: Path, tmp_path: Path) -> None:
    steps = _first_step_with_lists(Split.open(tiny_shards, "train"))
    assert pretrain(_config(tiny_shards, tmp_path, f"train.steps={steps}")) == 0
    checkpoint = _checkpoint(tmp_path, steps)
    (checkpoint / NEGATIVES).unlink()
    hashes = json.loads((checkpoint / "files.json").read_text())
    del hashes[NEGATIVES]  # where it is, it is hashed as the others are
    (checkpoint / "files.json").write_text(json.dumps(hashes))
    assert pretrain(_config(tiny_shards, tmp_path, f"train.steps={steps + 1}"), resume=True) == 0
    assert [line["step"] for line in _lines(tmp_path) if "mining" in line] == [steps, steps + 1]
    assert (_checkpoint(tmp_path, steps + 1) / NEGATIVES).is_file()


@pytest.mark.parametrize(("every", "position", "samples", "has_lists", "epoch"), [
    (1, 0, 100, False, None), (1, 0, 101, False, 1), (1, 100, 1, False, 1), (1, 101, 1, True, None), (1, 150, 200, True, 3),
    (2, 100, 50, False, None), (2, 199, 2, False, 2), (2, 201, 99, True, None), (2, 201, 99, False, 2), (3, 550, 100, True, 6)])
def test_when_mining_is_due(every: int, position: int, samples: int, has_lists: bool, epoch: int | None) -> None:
    class OfAHundred:
        class split:
            num_samples = 100

    class Every:
        class data:
            mine_every = every

    mining = MinedNegatives(None, OfAHundred, Every, None, np.zeros((1, 1)) if has_lists else None)  # type: ignore[arg-type]
    assert mining.due(position, samples) == epoch


@pytest.mark.parametrize(("more", "message"), [
    (["data.itm_hard_share=0"], "data.itm_negatives=mined: data.itm_hard_share=0 never draws one; set it above 0"),
    (["train.task_weights.itc=0", "model.itc_dim=0"],
     "data.itm_negatives=mined: contrast finds them, and train.task_weights has no itc above 0"),
    (["data.mine_every=0"], "data.mine_every.*1"),
])
def test_settings_that_do_not_go_together_are_refused(tiny_shards: Path, tmp_path: Path, more: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _config(tiny_shards, tmp_path / "run", *more)
