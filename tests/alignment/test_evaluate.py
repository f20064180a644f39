"""What align-eval compares with, and what it says."""

import json
from pathlib import Path

import numpy as np
import pytest

from kaleido_fast.alignment.evaluate import MODES, Truth, describe_scores, evaluate_alignments, kind_of_word
from kaleido_fast.config import load_align_config
from kaleido_fast.data.shards.split import Split


def test_the_truth_is_that_of_the_shards(tiny_shards: Path) -> None:
    """What align-eval compares with is the alignment that prepare took from the same boxes; touched patches hold it."""
    split = Split.open(tiny_shards, "test")
    truth = Truth(split, tiny_shards.parent / "catalogue" / "truth.jsonl")
    samples = np.arange(split.num_samples)
    for sample, row, masks in zip(samples, split.rows(samples), split.alignment(samples, "truth"), strict=True):
        found = truth.of(int(sample), row)
        assert [found.get(token, (0, 0))[0] for token in range(row["num_tokens"])] == masks[: row["num_tokens"]].tolist()
        assert all(covered & ~touched == 0 and touched for covered, touched in found.values())


def test_evaluation_scores_both_modes(made: tuple[Path, Path], tiny_shards: Path, tmp_path: Path) -> None:
    shards, run = made
    truth, out = tiny_shards.parent / "catalogue" / "truth.jsonl", tmp_path / "results" / "alignment.json"
    result = evaluate_alignments(run, load_align_config(run, [f"data.shards={shards}"]), truth, out, samples=20)
    assert json.loads(out.read_text()) == result
    for mode in MODES:
        values = result[mode]
        assert {"pointing_accuracy", "precision", "recall", "f1", "f1_random", "f1_centre"} <= values.keys()
        assert values["words"] == sum(part["words"] for part in values["by_kind"].values()) > 100
        assert mode in describe_scores(result)
    assert 0 < result["forced"]["f1"] < 1 and result["forced"]["aligned_share"] == 1
    assert result["about"]["samples"] == 20 and result["about"]["captioner"]["steps"] == 2


def test_another_catalogues_truth_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "truth.jsonl").write_text('{"id": "1", "photo": 0, "size": [9, 9], "parts": []}\n')
    with pytest.raises(ValueError, match="has no photograph 0 of product '.*', which the shards have; give the truth.jsonl of"):
        evaluate_alignments(made[1], load_align_config(made[1], [f"data.shards={made[0]}"]), tmp_path / "truth.jsonl")


def test_kinds_of_words() -> None:
    assert [kind_of_word(word) for word in ("navy", "dots", "collar", "heart", "shirt", "cloth")] == [
        "colour", "pattern", "part", "part", "", ""]
