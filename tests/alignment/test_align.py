"""align from shards to masks that the loader reads: what is kept, refused, made anew."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kaleido_fast.alignment.align import align
from kaleido_fast.alignment.shard_alignment import ShardFiles
from kaleido_fast.cli import main
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.check.folder import check_folder
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import Split
from kaleido_fast.folder_lock import LOCK, FolderLock
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.workers.share_out import all_shards
from tests.alignment.small_align import NAME, again, config_of
from tests.places import DEMO
from tests.small import small_config


def test_the_loader_reads_what_was_made(made: tuple[Path, Path]) -> None:
    shards, _ = made
    split = Split.open(shards, "test")
    samples = np.arange(16)
    masks = split.alignment(samples, NAME)
    rows = split.rows(samples)
    behind = np.arange(masks.shape[1]) >= rows["num_tokens"][:, None]
    assert not masks[behind].any() and (masks[~behind] != 0).mean() > 0.05
    config = config_of(shards, Path("x"), f"data.alignment={NAME}")
    batch = next(evaluation_batches(FromPhotographs(split), samples, config.data, seed=0, micro_batch=16,
                                    device=torch.device("cpu"), draw_text=False))
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
    code = main(["align", str(DEMO), f"data.shards={shards}", f"run.out={run}", f"align.micro_batch={size}"])
    assert code == 2 and f"align.micro_batch={size} must " in capsys.readouterr().err


def test_an_interrupted_run_goes_on(shards: Path, run: Path) -> None:
    """A finished shard stays as it is, an unfinished one is made as it was; until then the manifest does not name it."""
    expected = {shard.name: np.load(ShardFiles(shards, shard.name, NAME).masks) for shard in all_shards(Manifest.read(shards))}
    Manifest.change(shards, lambda manifest: manifest.without_alignment(NAME))
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


def test_one_process_at_a_time_makes_the_alignment_of_a_name(shards: Path, run: Path, tmp_path: Path) -> None:
    """Also where it has another run.out; under another name it may go on, and the manifest names both."""
    before = {file.name: file.read_bytes() for file in shards.iterdir()}
    lock = FolderLock(shards, "align", "align.name", name=f"alignment.{NAME}.{LOCK}").take()
    other = (f"align.captioner={run / 'captioner'}", "align.replace=true")
    with pytest.raises(ValueError, match=r"shards: process .* works there \(align, since .* or give another align.name"):
        again(shards, tmp_path / "second", *other, "align.region_share=0.5")
    after = {file.name: file.read_bytes() for file in shards.iterdir() if LOCK not in file.name}
    assert after == before
    assert again(shards, tmp_path / "third", *other, "align.name=another") == 0
    lock.release()
    assert Manifest.read(shards).alignments == ("truth", NAME, "another")


def test_an_alignment_that_another_process_made_meanwhile_stays_in_the_manifest(
    shards: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ShardFiles.write

    def while_another_ends(self: ShardFiles, *arguments: object) -> None:
        write(self, *arguments)
        Manifest.change(shards, lambda manifest: manifest.with_alignment("another", "f" * 64))

    monkeypatch.setattr(ShardFiles, "write", while_another_ends)
    assert again(shards, run, "align.replace=true", "align.region_share=0.5") == 0
    assert Manifest.read(shards).aligned["another"] == "f" * 64


def test_a_run_that_resumes_under_other_alignments_is_refused(shards: Path, run: Path, tmp_path: Path) -> None:
    """Made anew under the same name they are others; another name is another setting. Made as they were, the run goes on."""
    def resume(steps: int, name: str = NAME, resume: bool = True) -> int:
        return pretrain(small_config(shards, tmp_path / "pre", f"data.alignment={name}", f"train.steps={steps}",
                                     "train.checkpoint_every=1"), resume)

    def first_of(name: str) -> str:
        return Manifest.read(shards).aligned[name][:16]

    assert resume(1, resume=False) == 0
    before = first_of(NAME)
    assert again(shards, run, "align.replace=true", "align.region_share=0.5") == 0
    with pytest.raises(ValueError, match=f"data.alignment={NAME}: made anew since .*step-00000001: SHA-256 "
                                         f"{first_of(NAME)}…, the run began with {before}…; align as it was, or give "
                                         "another run.out"):
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
