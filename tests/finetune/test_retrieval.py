"""Retrieval: clean pairs, texts that contrast finds alike from the first step on, and what is measured of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kaleido_fast.cli import main
from kaleido_fast.config import Config, load_config
from kaleido_fast.data.batches.loader import Loader
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import Split
from kaleido_fast.finetune.finetune import finetune, prepare_config
from kaleido_fast.finetune.table import DOWNSTREAM
from kaleido_fast.training.build import build_step
from kaleido_fast.training.stores.open import open_source
from kaleido_fast.training.workers.stream_blocks import StreamBlocks
from tests.finetune.conftest import STEPS
from tests.places import REPO
from tests.small import MODEL, WITHOUT_CONTRAST


def retrieval_config(shards: Path, out: Path, *more: str) -> Config:
    return prepare_config(load_config(REPO / "configs" / "finetune" / "retrieval_demo.yaml", [
        *(word for word in MODEL if word not in WITHOUT_CONTRAST), *STEPS, "model.itc_dim=8", "train.itc_block=16",
        "data.mine_count=4", "init.weights=random",
        f"data.shards={shards}", f"run.out={out}", *more]))[0]


@pytest.fixture(scope="module")
def run(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps, of which the last begins the second epoch."""
    out = tmp_path_factory.mktemp("retrieval") / "run"
    assert finetune(retrieval_config(tiny_shards, out, "train.steps=6")) == 0
    return out


def test_every_mismatched_text_was_mined_before_the_first_step_and_in_each_epoch(run: Path, tiny_shards: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    mined = {line["step"]: line["mining"] for line in lines if "mining" in line}
    number = Split.open(tiny_shards, "train").num_samples
    assert {step: one["epoch"] for step, one in mined.items()} == {1: 0, number // 16 + 1: 1}
    trained = [line for line in lines if "losses" in line]
    assert [set(line["losses"]) for line in trained] == [{"total", "itm", "itc"}] * 6
    for line in trained:
        assert line["mined"] >= 1 - mined[1]["empty_share"] - 0.2 > 0
        losses = line["losses"]
        assert losses["total"] == pytest.approx(5 * losses["itm"] + 2 * losses["itc"])


def test_it_is_the_pretraining_step_with_nothing_masked(tiny_shards: Path, tmp_path: Path) -> None:
    config = retrieval_config(tiny_shards, tmp_path, "kaleido.tasks=[]", "kaleido.max_masked_tokens=0", "model.dropout=0")
    manifest = Manifest.read(tiny_shards)
    plain = build_step(config, manifest)
    ours = DOWNSTREAM["retrieval"].build(config, manifest, False, StreamBlocks())
    assert not ours.model.load_state_dict(plain.model.state_dict()).missing_keys  # type: ignore[union-attr]
    source = open_source(config, Split.open(tiny_shards, "train"))
    batch = next(Loader(source, config.data, seed=0, micro_batch=16, device=torch.device("cpu"), own_texts=True))
    assert not batch.match.all()
    results = [step(batch, step.count(batch), step.count(batch), None) for step in (plain, ours)]  # type: ignore[operator]
    for name in ("itm", "itc"):
        torch.testing.assert_close(results[1].loss_sums[name], results[0].loss_sums[name])
        assert results[1].correct[name] == results[0].correct[name]
    assert ours.count(batch) == {"itm": 16, "itc": 16}  # type: ignore[operator]


def test_ranks_of_each_query_give_the_recalls(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "queries.jsonl"
    assert main(["evaluate", str(run), "--per-sample", str(file), "eval.queries=10", "eval.draws=2"]) == 0
    report, queries = json.loads((run / "eval.json").read_text()), [json.loads(line) for line in file.read_text().splitlines()]
    assert "category" not in report and report["itr"]["pool"] == "subcategory" and len(queries) == 2 * 2 * 10
    for direction in ("itr", "tir"):
        for ranking, suffix in (("itm", ""), ("itc", "_itc"), ("both", "_both")):
            ranks = np.array([one["ranks"][ranking] for one in queries if one["direction"] == direction])
            assert report[direction + suffix]["R@5"] == pytest.approx((ranks <= 5).mean())
            assert ranks.max() <= max(one["candidates"] for one in queries)


def test_without_texts_there_is_nothing_to_learn(tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Split.rows

    def without_words(split: Split, samples: np.ndarray) -> np.ndarray:
        table = rows(split, samples)
        table["num_tokens"] = 0
        return table

    monkeypatch.setattr(Split, "rows", without_words)
    split, config = Split.open(tiny_shards, "train"), retrieval_config(tiny_shards, tmp_path)
    with pytest.raises(ValueError, match="finetune.task=retrieval: no product of split 'train' of .* has a text, so there is "
                                         "nothing to find photographs by; prepare a catalogue with texts"):
        DOWNSTREAM["retrieval"].check(config, split, split)
    assert DOWNSTREAM["category"].check(config, split, split) == \
        f"{tiny_shards}: no product of split 'train' has a text; the photograph alone is shown"
