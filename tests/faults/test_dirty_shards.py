"""Shards that broke after prepare: holes, counted and named; past data.max_holes a stop; lying tables are refused."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kaleido_fast.data.shards.split import Split
from tests.places import DEMO
from tests.small import RUN

EVAL = ["eval.queries=4", "eval.probe_iterations=2", "eval.kaleido_samples=16"]
SHARD = "train-000000"


def _overwrite(folder: Path, samples: list[int], data: bytes = b"damage") -> None:
    """Change bytes inside photographs of the train split."""
    table = np.load(folder / f"{SHARD}.table.npy")
    with (folder / f"{SHARD}.tar").open("r+b") as stream:
        for sample in samples:
            stream.seek(int(table["offset"][sample]) + 200)
            stream.write(data)


def _set(column: str, value: object, sample: int = 3) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        table = np.load(folder / f"{SHARD}.table.npy")
        table[column][sample] = value
        np.save(folder / f"{SHARD}.table.npy", table)

    return change


@pytest.fixture
def shards(tiny_shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_shards, tmp_path / "shards"))


@pytest.fixture
def pretrain(kaleido, tmp_path: Path, shards: Path) -> Callable[..., object]:
    """pretrain(key=value...) of `shards` into tmp_path/run, that writes nowhere else."""

    def run(*more: str) -> object:
        return kaleido("pretrain", DEMO, *RUN, "train.steps=4", f"data.shards={shards}",
                       f"run.out={tmp_path / 'run'}", *more)

    return run


def _summary(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "run" / "summary.json").read_text())


def test_a_broken_photograph_becomes_a_named_hole_and_the_run_goes_on(pretrain, shards, only_inside, tmp_path) -> None:
    _overwrite(shards, [7])
    count = Split.open(shards, "train").num_samples
    with only_inside(tmp_path, "run"):
        answer = pretrain(f"train.steps={-(-count // 16)}", "data.max_holes=0.05")
    assert answer.code == 0
    summary = _summary(tmp_path)
    assert summary["data"]["num_holes"] == 1 and 1 <= summary["progress"]["holes"] <= 2
    assert re.search(r"train-000000\.tar, sample 7: .* do not match their CRC32", summary["data"]["holes"]["train sample 7"])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: _overwrite(folder, list(range(60))), "do not match their CRC32"),
        (lambda folder: (folder / f"{SHARD}.tar").write_bytes((folder / f"{SHARD}.tar").read_bytes()[:100_000]),
         "do not match their CRC32"),
        (lambda folder: (folder / f"{SHARD}.tar").unlink(), "No such file or directory"),
        (_set("offset", 512, slice(None)), "do not match their CRC32"),
    ],
    ids=["many photographs", "a truncated tar", "no tar", "offsets that lie"],
)
def test_too_many_broken_photographs_stop_the_run(spoil, reason: str, pretrain, shards: Path, tmp_path: Path) -> None:
    spoil(shards)
    answer = pretrain()
    assert answer.code == 2 and reason in answer.err
    assert re.search(r"shards: \d+ of 16 samples seen could not be read, more than data\.max_holes=0\.01 allows; train sample "
                     r"\d+: .*; see 'kaleido-fast data check'.*, or raise data\.max_holes and resume", answer.err)
    summary = _summary(tmp_path)
    assert summary["progress"]["holes"] > 1 and len(summary["data"]["holes"]) == summary["data"]["num_holes"] > 1


def test_a_raised_limit_lets_the_stopped_run_go_on(pretrain, shards: Path, tmp_path: Path) -> None:
    _overwrite(shards, list(range(20)))
    assert pretrain("data.max_holes=0").code == 2
    named = set(_summary(tmp_path)["data"]["holes"])
    assert pretrain("data.max_holes=1", "--resume", "auto").code == 0
    assert named <= set(_summary(tmp_path)["data"]["holes"]) and _summary(tmp_path)["progress"]["step"] == 4


LIES = [("product", 10**9), ("product", -1), ("tokens", 10**6), ("num_tokens", 10**6), ("side", 0), ("side", 2**31 - 1),
        ("left", -(2**31)), ("length", -1), ("offset", -512), ("subcategory", 10**6)]


def test_lying_rows_are_holes(pretrain, shards: Path, tmp_path: Path) -> None:
    for sample, (column, value) in enumerate(LIES):
        _set(column, value, sample)(shards)
    count = Split.open(shards, "train").num_samples
    answer = pretrain(f"train.steps={-(-count // 16)}", "data.max_holes=0.5")
    assert answer.code == 0, answer.err
    holes = _summary(tmp_path)["data"]["holes"]
    assert {f"train sample {sample}" for sample in range(len(LIES))} <= set(holes)
    said = "holds numbers that cannot be; see 'kaleido-fast data check'"
    assert all("row" in reason and said in reason for reason in holes.values())


def _products(column: str, value: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        table = np.load(folder / "train.products.npy")
        table[column][0] = value
        np.save(folder / "train.products.npy", table)

    return change


def _rows_less(name: str) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, np.load(folder / name)[:-1])


def _manifest(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        values = json.loads((folder / "manifest.json").read_text())
        change(values)
        (folder / "manifest.json").write_text(json.dumps(values))

    return write


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json there"),
    "half a manifest": (lambda folder: (folder / "manifest.json").write_text('{"format": 1,'), "not JSON"),
    "another format": (_manifest(lambda values: values.update(format=9)),
                       "format 9, this version reads 1, 2, 3; run prepare again"),
    "a manifest without vocabulary": (_manifest(lambda values: values.pop("vocabulary")), "not a manifest of format 1"),
    "a split less": (_manifest(lambda values: values["splits"].pop("train")), "split 'train' has no samples"),
    "no table": (lambda folder: (folder / f"{SHARD}.table.npy").unlink(), f"{SHARD}.table.npy: cannot be read"),
    "half a table": (lambda folder: (folder / f"{SHARD}.table.npy").write_bytes(b"\x93NUMPY\x01\x00"), "cannot be read"),
    "an empty table": (lambda folder: (folder / f"{SHARD}.table.npy").write_bytes(b""), "cannot be read"),
    "a table of objects": (lambda folder: np.save(folder / f"{SHARD}.table.npy", np.array([{}])), "cannot be read"),
    "a row less": (_rows_less(f"{SHARD}.table.npy"), "expected (10"),
    "a product less": (_rows_less("train.products.npy"), "train.products.npy: shape"),
    "rows of another kind": (lambda folder: np.save(folder / "train.products.npy", np.zeros(3)), "rows of another kind"),
    "a product outside": (_products("first_sample", 10**9), "the product table of split 'train' points outside the split"),
    "a sub-category outside": (_products("subcategory", -5), "the product table of split 'train' points outside the split"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_shards_that_cannot_be_opened_are_refused(kind: str, pretrain, shards: Path, only_inside, tmp_path: Path) -> None:
    spoil, message = REFUSED[kind]
    spoil(shards)
    if kind == "a row less":
        message = f"expected ({json.loads((shards / 'manifest.json').read_text())['splits']['train']['samples'][0]},)"
    with only_inside(tmp_path):  # no run folder either
        answer = pretrain()
    assert answer.code == 2 and message in answer.err and str(shards) in answer.err


@pytest.fixture
def other_vocabulary(shards: Path, tmp_path: Path) -> Path:
    """The same shards with as many, but other words."""
    folder = Path(shutil.copytree(shards, tmp_path / "other"))
    _manifest(lambda values: (values.update(fingerprint="1" * 64), values["vocabulary"].update(fingerprint="2" * 64)))(folder)
    return folder


def test_shards_of_another_vocabulary_are_refused(
    pretrain, kaleido, other_vocabulary: Path, only_inside, tmp_path: Path
) -> None:
    assert pretrain().code == 0
    with only_inside(tmp_path):
        resumed = pretrain(f"data.shards={other_vocabulary}", "--resume", "auto")
        evaluated = kaleido("evaluate", tmp_path / "run", f"data.shards={other_vocabulary}", *EVAL)
    assert resumed.code == 2 and "other: not the shards of" in resumed.err
    assert "resume with those, or give another run.out" in resumed.err
    assert evaluated.code == 2 and "its vocabulary has" in evaluated.err
    assert "or prepare others with their vocab.txt as --vocab" in evaluated.err


def test_evaluate_names_broken_photographs_and_stops_past_the_limit(pretrain, kaleido, shards: Path, tmp_path: Path) -> None:
    assert pretrain().code == 0
    _overwrite(shards, [0])
    refused = kaleido("evaluate", tmp_path / "run", *EVAL)
    assert refused.code == 2 and re.search(r"shards: 1 of \d+ photographs of split 'train' cannot be read, more than "
                                           r"data\.max_holes=0\.01 allows", refused.err)
    assert not (tmp_path / "run" / "eval.json").exists()
    assert kaleido("evaluate", tmp_path / "run", "data.max_holes=0.1", *EVAL).code == 0
    assert json.loads((tmp_path / "run" / "eval.json").read_text())["broken"].keys() == {"train sample 0"}
    _set("tokens", 10**6)(shards)
    lying = kaleido("evaluate", tmp_path / "run", "data.max_holes=0.1", *EVAL)
    assert lying.code == 2 and "its row in the table holds numbers that cannot be" in lying.err


def test_explain_refuses_a_product_that_is_not_there(kaleido, shards: Path, only_inside, tmp_path: Path) -> None:
    with only_inside(tmp_path):
        answer = kaleido("explain", shards, "--id", "../p1", "--out", tmp_path / "x.png")
    assert answer.code == 2 and "no product '../p1' there" in answer.err
