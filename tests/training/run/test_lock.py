"""The folders that a run writes are held by one process, for all of its workers."""

import contextlib
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from kaleido_fast import folder_lock
from kaleido_fast.alignment.align import align
from kaleido_fast.folder_lock import LOCK, FolderLock
from kaleido_fast.training.loop import Loop
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.run import lock as run_lock
from kaleido_fast.training.run.lock import held_folder
from kaleido_fast.training.workers.group import Workers
from kaleido_fast.training.workers.stop import StopRequest
from tests.locks import leave
from tests.small import small_config

ALONE = Workers(0, 1)


def test_pretrain_and_align_respect_it(tiny_shards: Path, tmp_path: Path) -> None:
    held = FolderLock(tmp_path / "run", "pretrain", "run.out").take()
    config = small_config(tiny_shards, tmp_path / "run", "train.steps=1")
    for verb in (pretrain, align):
        with pytest.raises(ValueError, match=f"process {os.getpid()} on {socket.gethostname()} works there .* another run.out"):
            verb(config)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK], "nothing of theirs is there"
    held.release()
    assert pretrain(config) == 0
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file/run: cannot be written: Not a directory; give another data.store"), \
            held_folder(tmp_path / "file" / "run", ALONE, "encode", "data.store"):
        pass


class Meeting(Workers):
    """Workers that note how often they meet."""

    __slots__ = ("times",)

    @contextlib.contextmanager
    def together(self):
        self.times.append(time.monotonic())
        yield


def test_workers_meet_while_a_holder_elsewhere_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else those that wait for the first would give it up after run.timeout_s."""
    for module, name, seconds in ((folder_lock, "SILENT_S", 1.0), (folder_lock, "BEAT_S", 0.1), (folder_lock, "SLACK_S", 0.1),
                                  (run_lock, "LOOK_S", 0.1)):
        monkeypatch.setattr(module, name, seconds)
    leave(tmp_path, host="elsewhere")
    workers, times = Meeting(0, 1), []
    object.__setattr__(workers, "times", times)
    with held_folder(tmp_path, workers, "pretrain"):
        assert len(times) >= 5 and max(b - a for a, b in zip(times, times[1:], strict=False)) < 0.5


@pytest.mark.parametrize("noted", [True, False])
def test_a_signal_ends_the_watch(noted: bool, tmp_path: Path) -> None:
    """Also one that the run would only note: there is nothing to save yet."""
    leave(tmp_path, host="elsewhere")
    stop, started = StopRequest() if noted else None, time.monotonic()
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt), held_folder(tmp_path, ALONE, "pretrain", stop=stop):
            pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if stop is not None:
            stop.release()
    assert time.monotonic() - started < 10
    assert (tmp_path / LOCK).exists(), "it is the other's"


def test_a_run_that_was_followed_writes_no_more(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "BEAT_S", 0.05)
    out, turn = tmp_path / "run", Loop.turn

    def held_up(self: Loop, batches: object) -> bool:
        if self.progress.step == 3:
            leave(out, host="elsewhere")  # taken over
            time.sleep(0.5)
        return turn(self, batches)

    monkeypatch.setattr(Loop, "turn", held_up)
    with pytest.raises(ValueError, match="process .* on elsewhere works there .*: it has taken over from this process"):
        pretrain(small_config(tiny_shards, out, "train.steps=6", "train.checkpoint_every=2"))
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 3
    assert [path.name for path in sorted((out / "checkpoints").iterdir())] == ["latest", "step-00000002"]
    assert '"elsewhere"' in (out / LOCK).read_text(), "the other's lock stays"
