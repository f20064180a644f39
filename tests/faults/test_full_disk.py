"""A disk that fills while something is written: one line that says where, nothing half-written that a later step reads.

Two real limits of the system: the largest size of a file (any user may set it), and a small disk in memory (needs the
right to mount; skipped without it).
"""

import contextlib
import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.places import DEMO
from tests.small import RUN


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A write past `size` bytes of a file fails in this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """small_disk(kilobytes) -> the folder where a disk of that size is mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def mount(kilobytes: int) -> Path:
        nonlocal mounted
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"may not mount a small disk here: {done.stderr.strip()}")
        mounted = True
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", place], check=True)


def test_prepare_leaves_nothing(catalogue: Path, prepare, kaleido, only_inside, tmp_path: Path) -> None:
    deep = tmp_path / "new" / "folders" / "shards"
    for size in (512, 5_000, 20_000):  # met in the tar's first member, in a later one, and once more
        with only_inside(tmp_path), files_of_at_most(size):
            answer = kaleido("prepare", "--catalog", catalogue / "styles.csv", "--images", catalogue / "images", "--out", deep,
                             "--split", "part")
        assert answer.code == 2 and f"{deep}: cannot be written: " in answer.err
        assert "nothing was left there; make room or give another --out" in answer.err
    assert prepare().code == 0


def test_prepare_on_a_full_disk(catalogue: Path, kaleido, small_disk) -> None:
    disk = small_disk(16)
    answer = kaleido("prepare", "--catalog", catalogue / "styles.csv", "--images", catalogue / "images",
                     "--out", disk / "shards", "--split", "part")
    assert answer.code == 2 and "shards: cannot be written: " in answer.err and not list(disk.iterdir())


def test_generate_leaves_nothing(kaleido, only_inside, tmp_path: Path) -> None:
    with only_inside(tmp_path), files_of_at_most(2_000):
        answer = kaleido("generate", "--products", 3, "--out", tmp_path / "drawn")
    assert answer.code == 2 and "drawn: cannot be written: File too large; nothing was left there" in answer.err


def _pretrain(kaleido, shards: Path, out: Path, *more: str):
    return kaleido("pretrain", DEMO, *RUN, f"data.shards={shards}", f"run.out={out}", *more)


def _check_and_resume(kaleido, shards: Path, run: Path, answer, *more: str) -> None:
    """The message names the checkpoint; the one before it stands, and the run goes on from it."""
    assert answer.code == 2 and "checkpoints/step-00000004: cannot be written: " in answer.err
    assert "make room, then go on from the checkpoint before it with --resume auto" in answer.err
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["latest", "step-00000002"]
    assert _pretrain(kaleido, shards, run, *more, "--resume", "auto").code == 0
    assert json.loads((run / "summary.json").read_text())["progress"]["step"] == 4


def test_a_checkpoint_that_does_not_fit(kaleido, tiny_shards: Path, tmp_path: Path, monkeypatch) -> None:
    """The limit is met when the second checkpoint is written, at the end of step 4."""
    from kaleido_fast.training.run import records as module

    save = module.save_checkpoint

    def saved_under_a_limit(folder: Path, engine, workers, state, keep: int, **more) -> Path:
        with files_of_at_most(20_000) if state["step"] == 4 else contextlib.nullcontext():
            return save(folder, engine, workers, state, keep, **more)

    more = ["train.steps=4", "train.checkpoint_every=2"]
    monkeypatch.setattr(module, "save_checkpoint", saved_under_a_limit)
    answer = _pretrain(kaleido, tiny_shards, tmp_path / "run", *more)
    monkeypatch.undo()
    _check_and_resume(kaleido, tiny_shards, tmp_path / "run", answer, *more)


def test_weights_that_do_not_fit(kaleido, tiny_shards: Path, tmp_path: Path, monkeypatch) -> None:
    """DeepSpeed's state is written, the weights beside it are not."""
    from kaleido_fast.training import checkpoint as module

    save, calls = module.save_weights, []

    def saved_under_a_limit(folder: Path, model, weights) -> None:
        calls.append(folder)
        with files_of_at_most(10_000) if len(calls) == 2 else contextlib.nullcontext():
            save(folder, model, weights)

    more = ["train.steps=4", "train.checkpoint_every=2"]
    monkeypatch.setattr(module, "save_weights", saved_under_a_limit)
    answer = _pretrain(kaleido, tiny_shards, tmp_path / "run", *more)
    monkeypatch.undo()
    assert "File too large" in answer.err
    _check_and_resume(kaleido, tiny_shards, tmp_path / "run", answer, *more)


def test_pretrain_on_a_full_disk(kaleido, tiny_shards: Path, small_disk) -> None:
    """The first checkpoint fits, the second does not."""
    disk, more = small_disk(64_000), ["train.steps=1"]
    assert _pretrain(kaleido, tiny_shards, disk / "first", *more).code == 0
    used = sum(path.stat().st_size for path in disk.rglob("*") if path.is_file())
    subprocess.run(["mount", "-o", f"remount,size={used * 3 // 2048}k", disk], check=True)
    answer = _pretrain(kaleido, tiny_shards, disk / "second", *more)
    assert answer.code == 2 and "second/checkpoints/step-00000001: cannot be written: " in answer.err
    assert not list((disk / "second" / "checkpoints").iterdir())
    shutil.rmtree(disk / "first")
    assert _pretrain(kaleido, tiny_shards, disk / "second", *more, "--resume", "auto").code == 0


def test_a_metrics_line_that_does_not_fit(kaleido, tiny_shards: Path, tmp_path: Path, monkeypatch) -> None:
    """The torn line is dropped when the run goes on."""
    from kaleido_fast.training.run.folder import RunFolder

    append = RunFolder.append_metrics

    def appended_under_a_limit(self: RunFolder, line: dict) -> None:
        full = line["step"] == 3
        with files_of_at_most(self.metrics_file.stat().st_size + 50) if full else contextlib.nullcontext():
            append(self, line)

    more = ["train.steps=4", "train.checkpoint_every=2", "train.validate_every=9"]
    monkeypatch.setattr(RunFolder, "append_metrics", appended_under_a_limit)
    answer = _pretrain(kaleido, tiny_shards, tmp_path / "run", *more)
    monkeypatch.undo()
    assert answer.code == 2 and "metrics.jsonl: cannot be written: File too large; make room, then go on with" in answer.err
    assert _pretrain(kaleido, tiny_shards, tmp_path / "run", *more, "--resume", "auto").code == 0
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 4]
