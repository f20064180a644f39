"""align from shards to masks that the loader reads: what is kept, refused, made anew."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kaleido_fast.alignment.align import align, all_shards
from kaleido_fast.alignment.evaluate import MODES, Truth, describe_scores, evaluate_alignments, kind_of
from kaleido_fast.alignment.shard_alignment import ShardFiles
from kaleido_fast.cli import main
from kaleido_fast.config import Config, load_config
from kaleido_fast.data.check import check_folder
from kaleido_fast.data.loader import evaluation_batches
from kaleido_fast.data.manifest import Manifest
from kaleido_fast.data.shards import Split
from kaleido_fast.report.shown_words import computed_words, stored_words
from kaleido_fast.training.pretrain import pretrain

REPO = Path(__file__).parents[2]
NAME = "aag-generated"


def config_of(shards: Path, out: Path, *more: str) -> Config:
    return load_config(REPO / "configs" / "demo.yaml", [
        f"data.shards={shards}", f"run.out={out}", "data.image_size=60", "kaleido.patch_size=12", "align.steps=2",
        "align.minutes=0", "align.micro_batch=16", "align.channels=8", "align.hidden=8", "align.embedding=8", "align.attention=4",
        "align.beam=2", "align.smoothing=0.0", "align.region_share=0.85", *more])


@pytest.fixture(scope="module")
def made(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Shards with forced alignments under the name `aag-generated`, and the run that made them.

    A captioner of two steps says nothing that the texts have; forced alignments it always has."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(tiny_shards, folder / "shards")
    assert align(config_of(folder / "shards", folder / "run", "align.mode=forced", f"align.name={NAME}")) == 0
    return folder / "shards", folder / "run"


@pytest.fixture
def shards(made: tuple[Path, Path], tmp_path: Path) -> Path:
    return shutil.copytree(made[0], tmp_path / "shards")


@pytest.fixture
def run(made: tuple[Path, Path], tmp_path: Path) -> Path:
    return shutil.copytree(made[1], tmp_path / "run")


def again(shards: Path, run: Path, *more: str) -> int:
    return align(config_of(shards, run, "align.mode=forced", f"align.name={NAME}", *more))


def test_the_loader_reads_what_was_made(made: tuple[Path, Path]) -> None:
    shards, _ = made
    split = Split.open(shards, "test")
    samples = np.arange(16)
    masks = split.alignment(samples, NAME)
    rows = split.rows(samples)
    behind = np.arange(masks.shape[1]) >= rows["num_tokens"][:, None]
    assert not masks[behind].any() and (masks[~behind] != 0).mean() > 0.05
    config = config_of(shards, Path("x"), f"data.alignment={NAME}")
    batch = next(evaluation_batches(split, samples, config.data, seed=0, micro_batch=16, device=torch.device("cpu"), draw_text=False))
    firsts = split.products["first_sample"][rows["product"]]
    width = min(masks.shape[1], config.data.max_tokens - 2)
    assert np.array_equal(batch.alignment[:, 1 : width + 1].numpy(), split.alignment(firsts, NAME)[:, :width])
    assert masks.any() and not batch.alignment[:, 0].any()


def test_photographs_of_one_product_have_their_own(made: tuple[Path, Path]) -> None:
    split = Split.open(made[0], "train")
    several = split.products[split.products["num_samples"] > 1][0]
    masks = split.alignment(np.arange(several["first_sample"], several["first_sample"] + 2), NAME)
    assert not np.array_equal(masks[0], masks[1])


def test_only_aligned_levels_and_no_stop_words(made: tuple[Path, Path]) -> None:
    split = Split.open(made[0], "validation")
    samples = np.arange(split.num_samples)
    masks, rows = split.alignment(samples, NAME).view(np.uint64), split.rows(samples)
    assert not (masks & np.uint64(0b11111)).any() and not (masks >> np.uint64(55)).any()
    words = split.vocabulary_file.read_text().splitlines()
    stops = [words.index(word) for word in ("with", "and", "for", ".", "-")]
    inside = np.arange(masks.shape[1]) < rows["num_tokens"][:, None]
    assert (np.isin(rows["tokens"], stops) & inside).any()
    assert not masks[np.isin(rows["tokens"], stops) & inside].any()


def test_the_shards_stay_the_same_shards(made: tuple[Path, Path], tiny_shards: Path) -> None:
    before, after = Manifest.read(tiny_shards), Manifest.read(made[0])
    assert after.fingerprint == before.fingerprint and after.alignments == ("truth", NAME)
    assert after.fingerprint_with("truth") == after.fingerprint_with("none") == before.fingerprint
    assert after.fingerprint_with(NAME) != before.fingerprint
    found: list[str] = []
    assert check_folder(made[0], found.append, processes=1).findings == 0, found


def test_check_finds_changed_and_missing_alignments(shards: Path) -> None:
    file = ShardFiles(shards, "test-000000", NAME).masks
    masks = np.load(file)
    masks[0, 0] ^= 1 << 20
    np.save(file, masks)
    found: list[str] = []
    check_folder(shards, found.append, processes=1)
    assert any(f"of the alignment '{NAME}', expected" in line for line in found), found
    file.unlink()
    found.clear()
    check_folder(shards, found.append, processes=1)
    assert any("missing; the manifest names it" in line for line in found), found


def test_the_summary_says_what_came_of_it(made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((made[1] / "alignment.json").read_text())
    manifest = Manifest.read(made[0])
    assert summary["samples"] == sum(shard.samples for shard in all_shards(manifest))
    masks = np.concatenate([np.load(ShardFiles(made[0], shard.name, NAME).masks).ravel() for shard in all_shards(manifest)])
    assert summary["aligned_tokens"] == (masks != 0).sum()
    assert summary["pairs"] == np.bitwise_count(masks.view(np.uint64)).sum()
    assert summary["most_aligned_words"] and summary["examples"][0]["aligned"][0]["patches"]
    speed = summary["speed"]
    assert speed["workers"] == 1 and speed["training_samples_per_s"] > 0 and 100 < speed["peak_memory_mib"] < 10_000
    generation, samples = speed["generation"], summary["samples"]
    assert generation["samples"] == samples and generation["samples_per_s"] == pytest.approx(samples / generation["seconds"])
    assert generation["products_per_s"] == pytest.approx(60 / generation["seconds"]), "of the 60 products of the catalogue"
    assert again(*made) == 0  # all is there: it only says so again
    said = capsys.readouterr().out
    assert f"data.alignment={NAME}" in said and f"{samples} samples aligned in " in said
    assert json.loads((made[1] / "alignment.json").read_text())["speed"]["generation"] == generation


def test_nothing_aligned_is_said_loudly(shards: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Captions of a captioner of two steps have no word of the texts; in forced mode a bound may leave nothing."""
    assert align(config_of(shards, run, "align.name=few")) == 0
    said = capsys.readouterr().err
    assert "data.alignment=few: warning: 0 of " in said and "masking by these alignments is random masking" in said
    assert "align.steps or align.minutes" in said and "align.mode=forced" in said
    summary = json.loads((run / "alignment.json").read_text())
    assert summary["warning"].startswith("warning: 0 of ") and summary["aligned_tokens"] == 0
    assert again(shards, run, "align.name=wide", "align.most_covered=0.0") == 0
    said = capsys.readouterr()
    assert "raise align.most_covered" in said.err and "align.mode=forced" not in said.err
    assert "words looked at too much of the square" in said.out
    assert again(shards, run) == 0
    assert "warning" not in capsys.readouterr().err and json.loads((run / "alignment.json").read_text())["warning"] == ""


@pytest.mark.parametrize("size", [1, 40])
def test_micro_batches_are_whole_groups(size: int, shards: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["align", str(REPO / "configs" / "demo.yaml"), f"data.shards={shards}", f"run.out={run}",
                 f"align.micro_batch={size}"])
    assert code == 2 and f"align.micro_batch={size} must " in capsys.readouterr().err


def test_an_interrupted_run_goes_on(shards: Path, run: Path) -> None:
    """A finished shard stays as it is, an unfinished one is made as it was; until then the manifest does not name it."""
    expected = {shard.name: np.load(ShardFiles(shards, shard.name, NAME).masks) for shard in all_shards(Manifest.read(shards))}
    Manifest.read(shards).without_alignment(NAME).write_over(shards)
    ShardFiles(shards, "train-000000", NAME).record.unlink()
    ShardFiles(shards, "train-000000", NAME).masks.write_bytes(b"half of it")
    with pytest.raises(ValueError, match=f"{NAME}: .* has no such alignment"):
        Split.open(shards, "train").alignment(np.arange(2), NAME)
    kept = ShardFiles(shards, "test-000000", NAME).masks
    written = kept.stat().st_mtime_ns
    assert again(shards, run) == 0
    assert kept.stat().st_mtime_ns == written
    for name, masks in expected.items():
        assert np.array_equal(np.load(ShardFiles(shards, name, NAME).masks), masks)
    assert NAME in Manifest.read(shards).alignments and not list(shards.glob(".*"))


def test_a_run_that_resumes_under_other_alignments_is_refused(shards: Path, run: Path, tmp_path: Path) -> None:
    """Made anew under the same name they are others; another name is another setting. Made as they were, the run goes on."""
    def resume(steps: int, name: str = NAME, resume: bool = True) -> int:
        return pretrain(load_config(REPO / "configs" / "demo.yaml", [
            f"data.shards={shards}", f"run.out={tmp_path / 'pre'}", f"data.alignment={name}", "train.minutes=0",
            f"train.steps={steps}", "train.micro_batch=16", "train.checkpoint_every=1", "train.validation_samples=16", "train.warmup_steps=1",
            "data.image_size=60", "kaleido.patch_size=12", "model.layers=1"]), resume)

    def first_of(name: str) -> str:
        return Manifest.read(shards).aligned[name][:16]

    assert resume(1, resume=False) == 0
    before = first_of(NAME)
    assert again(shards, run, "align.replace=true", "align.region_share=0.5") == 0
    with pytest.raises(ValueError, match=f"data.alignment={NAME}: made anew since .*step-00000001: SHA-256 {first_of(NAME)}…, "
                                         f"the run began with {before}…; align as it was, or give another run.out"):
        resume(1)
    with pytest.raises(ValueError, match=f"data.alignment=truth but the run in .* has {NAME}"):
        resume(1, "truth")
    assert again(shards, run, "align.replace=true") == 0 and first_of(NAME) == before
    assert resume(1) == 0


@pytest.mark.parametrize(("more", "message"), [
    (["align.most_covered=0.4"], r"align.most_covered=0.5, not 0.4; give another align.name, or align.replace=true"),
    (["align.region_share=0.5"], r"align.region_share=0.85, not 0.5; give another align.name, or align.replace=true"),
    (["align.hidden=9"], r"captioner: trained with align.hidden=8, not 9; give another run.out, or align.captioner="),
    (["align.name=truth"], "align.name=truth: .* has an alignment of that name that 'align' did not make"),
    (["align.name=../x"], "align.name=../x: give letters, digits, '-' and '_'"),
    (["align.captioner={tmp}"], "no captioner.json there; expected a captioner that 'kaleido-fast align' trained"),
    (["align.captioner={run}/captioner", "data.image_size=120"], "made for data.image_size=60, found 120"),
])
def test_what_does_not_fit_is_named(more: list[str], message: str, shards: Path, run: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in shards.iterdir()}
    with pytest.raises(ValueError, match=message):
        again(shards, run, *(setting.replace("{tmp}", str(tmp_path)).replace("{run}", str(run)) for setting in more))
    assert {file.name: file.read_bytes() for file in shards.iterdir()} == before


def test_a_length_is_asked_for(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="align.steps or align.minutes, or a trained one, align.captioner=DIR"):
        again(shards, tmp_path / "new", "align.steps=0")


def test_a_captioner_of_another_vocabulary_is_refused(shards: Path, run: Path) -> None:
    manifest = Manifest.read(shards)
    other = dataclasses.replace(manifest.vocabulary, fingerprint="1" * 64)
    dataclasses.replace(manifest, vocabulary=other).write(shards)
    with pytest.raises(ValueError, match=r"captioner: made for a vocabulary \w{16}…, the shards have 1111111111111111…"):
        again(shards, run, f"align.captioner={run}/captioner")


def test_alignments_of_other_shards_are_refused_and_replaced(shards: Path, run: Path) -> None:
    """Files copied from other shards, record and all."""
    files = ShardFiles(shards, "validation-000000", NAME)
    record = json.loads(files.record.read_text())
    record["recipe"]["shards"] = "2" * 64
    files.record.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"validation-000000.*: made with shards=2222222222222222…, not \w{16}…"):
        again(shards, run)
    masks = np.load(files.masks)
    assert again(shards, run, "align.replace=true") == 0
    assert np.array_equal(np.load(files.masks), masks) and files.read()["recipe"]["shards"] != "2" * 64


def test_changed_masks_are_not_kept(shards: Path, run: Path) -> None:
    files = ShardFiles(shards, "validation-000000", NAME)
    np.save(files.masks, np.load(files.masks) * 0)
    with pytest.raises(ValueError, match="missing or changed since it was written; set align.replace=true"):
        again(shards, run)
    files.record.write_text("{")
    with pytest.raises(ValueError, match="not readable as a record of alignments; remove it"):
        again(shards, run)


def test_a_broken_photograph_has_no_alignments(shards: Path, run: Path) -> None:
    split = Split.open(shards, "test")
    row = split.rows(np.array([3]))[0]
    with (shards / "test-000000.tar").open("r+b") as stream:
        stream.seek(int(row["offset"]) + 30)
        stream.write(bytes(40))
    ShardFiles(shards, "test-000000", NAME).remove()
    assert again(shards, run) == 0
    masks = Split.open(shards, "test").alignment(np.arange(5), NAME)
    assert not masks[3].any() and masks[2].any()
    assert json.loads((run / "alignment.json").read_text())["unreadable"] == 1


def test_damaged_captioners_are_named(shards: Path, run: Path) -> None:
    weights = run / "captioner" / "captioner.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ValueError, match="captioner: damaged captioner: .*; train it again"):
        again(shards, run)
    (run / "captioner" / "captioner.json").write_text('{"format": 7}')
    with pytest.raises(ValueError, match="captioner.json: not a captioner of format 1"):
        again(shards, run)


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
    result = evaluate_alignments(run, truth, [f"data.shards={shards}"], out, samples=20)
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
        evaluate_alignments(made[1], tmp_path / "truth.jsonl", [f"data.shards={made[0]}"], None)


def test_kinds_of_words() -> None:
    assert [kind_of(word) for word in ("navy", "dots", "collar", "heart", "shirt", "cloth")] == [
        "colour", "pattern", "part", "part", "", ""]


@pytest.mark.slow
def test_a_killed_align_leaves_nothing_that_a_reader_takes(shards: Path, run: Path, tmp_path: Path) -> None:
    """Killed once its first shard is whole: no reader finds the alignment, and the same command makes what it would have."""
    expected = {shard.name: np.load(ShardFiles(shards, shard.name, NAME).masks) for shard in all_shards(Manifest.read(shards))}
    command = [sys.executable, "-m", "kaleido_fast", "align", str(REPO / "configs" / "demo.yaml"), f"data.shards={shards}",
               f"run.out={tmp_path / 'killed'}", f"align.captioner={run / 'captioner'}", "align.name=killed",
               "data.image_size=60", "kaleido.patch_size=12", "align.mode=forced", "align.smoothing=0.0",
               "align.region_share=0.85", "align.micro_batch=16"]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    first, deadline = ShardFiles(shards, "train-000000", "killed"), time.monotonic() + 300
    while not first.record.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -9 and first.record.exists()
    assert "killed" not in Manifest.read(shards).alignments
    with pytest.raises(ValueError, match="killed: .* has no such alignment"):
        Split.open(shards, "train").require_alignment("killed")
    written = first.masks.stat().st_mtime_ns
    assert subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, timeout=300).returncode == 0
    assert first.masks.stat().st_mtime_ns == written
    for name, masks in expected.items():
        assert np.array_equal(np.load(ShardFiles(shards, name, "killed").masks), masks)


@pytest.mark.slow
def test_two_workers_make_the_same(shards: Path, run: Path, tmp_path: Path) -> None:
    """Two workers train a captioner and share the shards out; with one captioner the masks are those of one worker."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "kaleido_fast",
                "align", str(REPO / "configs" / "demo.yaml"), f"data.shards={shards}", "data.image_size=60",
                "kaleido.patch_size=12", "align.mode=forced", "align.smoothing=0.0", "align.region_share=0.85",
                "align.micro_batch=16"]
    quiet = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, f"run.out={tmp_path / 'two'}", f"align.captioner={run / 'captioner'}", "align.name=two"],
                          capture_output=True, text=True, timeout=300, env=quiet)
    assert done.returncode == 0, done.stderr[-3000:]
    for shard in all_shards(Manifest.read(shards)):
        one, two = (np.load(ShardFiles(shards, shard.name, name).masks) for name in (NAME, "two"))
        assert (one == two).mean() > 0.999  # sums are rounded by the batch
    done = subprocess.run([*torchrun, f"run.out={tmp_path / 'new'}", "align.name=new", "align.steps=2", "align.channels=8"],
                          capture_output=True, text=True, timeout=300, env=quiet)
    assert done.returncode == 0, done.stderr[-3000:]
    assert Manifest.read(shards).alignments == ("truth", NAME, "two", "new")
    done = subprocess.run([*torchrun, f"run.out={tmp_path / 'bad'}", "align.name=bad", "align.captioner=none"],
                          capture_output=True, text=True, timeout=300, env=quiet)
    assert "none: no captioner.json there" in done.stderr and done.stderr.count("no captioner.json there") == 1


def test_words_are_drawn_on_the_photograph(made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards, run = made
    pictures = {}
    for name, more in {"stored": [], "truth": ["--alignment", "truth"], "anew": ["--run", str(run)]}.items():
        out = tmp_path / f"{name}.png"
        assert main(["explain", str(shards), "--out", str(out), *more]) == 0
        assert Image.open(out).size[0] > 1000
        pictures[name] = out.read_bytes()
    assert len(set(pictures.values())) == 3
    capsys.readouterr()
    assert main(["explain", str(shards), "--out", str(tmp_path / "y.png"), "--alignment", "other"]) == 2
    assert "other: " in capsys.readouterr().err and not (tmp_path / "y.png").exists()


def test_words_aligned_anew_are_those_of_the_files(shards: Path, run: Path) -> None:
    """Both ways to a figure's words and heat-maps agree; without its captioner a stored alignment has no heat-maps."""
    split, samples = Split.open(shards, "test"), [0, 4, 9]
    stored, anew = stored_words(split, samples, NAME), computed_words(split, samples, run)
    for left, right, masks in zip(stored, anew, split.alignment(np.array(samples), NAME), strict=True):
        assert left.words and [word[:4] for word in left.words] == [word[:4] for word in right.words]
        assert all(np.allclose(*pair) for pair in zip((w.heat for w in left.words), (w.heat for w in right.words), strict=True))
        assert right.masks.tolist() == masks.tolist() and left.about == f"alignment '{NAME}'"
    files = ShardFiles(shards, "test-000000", NAME)
    record = json.loads(files.record.read_text())
    for change, why in (({"captioner": str(run)}, "its captioner is not where it was"),
                        ({"captioner": str(run / "captioner"), "recipe": record["recipe"] | {"captioner": "3" * 64}},
                         "another captioner stands where its own was")):
        files.record.write_text(json.dumps(record | change))
        (found,) = stored_words(split, samples[:1], NAME)
        assert found.about.endswith(f"; no heat-maps: {why}") and all(word.heat is None for word in found.words)
        assert [word.mask for word in found.words] == [word.mask for word in stored[0].words]
