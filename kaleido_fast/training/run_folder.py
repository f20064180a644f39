"""A run's folder: config.yaml, metrics.jsonl, checkpoints/, summary.json (and later eval.json, report.html); lock.json while a
process holds it (run_lock.py)."""

import json
from pathlib import Path
from typing import Any

import yaml

from kaleido_fast.files import cannot_write, is_torn, replace_text

LOCK = "lock.json"


class RunFolder:
    """Paths of a run and the small files in it; each is written beside, then renamed."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def find(self, config_text: str, resume: bool, defaults: str = "") -> bool:
        """Whether a run is there to go on with; writes nothing.

        Args:
            config_text: the resolved settings as YAML.
            resume: whether a run that is there may go on (`--resume auto`).
            defaults: settings that nobody has touched, as YAML: what a run has of keys that are newer than it.
        Raises:
            ValueError: a run is there and `resume` is false, or its settings differ (names the first). Its length may:
                steps or epochs in place of what it had.
        """
        if self.config_file.exists():
            if not resume:
                raise ValueError(f"{self.path}: a run is there already; add '--resume auto' to go on with it, or give "
                                 "another run.out")
            self._compare(config_text, defaults)
            return True
        if self.path.exists() and any(not (is_torn(path) or path.name == LOCK) for path in self.path.iterdir()):
            raise ValueError(f"{self.path}: not empty and not a run; give another run.out")
        return False

    def start(self, config_text: str) -> None:
        """Make the folder for a new run."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error, "give another run.out") from error
        replace_text(self.config_file, config_text)

    def go_on(self, step: int, config_text: str) -> None:
        """Take up a run from `step`: later metrics go, and where another length was given, config.yaml has it from now on."""
        self.cut_metrics(step)
        theirs, ours = (_read(text) for text in (self.config_file.read_text("utf-8"), config_text))
        if any(theirs.get(key) != ours[key] for key in LENGTH):
            replace_text(self.config_file, config_text)

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        try:
            with self.metrics_file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
        except OSError as error:
            raise cannot_write(self.metrics_file, error, "make room, then go on with --resume auto") from error

    def cut_metrics(self, step: int) -> None:
        """Drop the lines of steps after `step`: the trajectory that a resumed run writes anew."""
        if not self.metrics_file.exists():
            return
        kept = [line for line in self.metrics_file.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
        replace_text(self.metrics_file, "".join(line + "\n" for line in kept))

    def write_summary(self, summary: dict[str, Any]) -> None:
        replace_text(self.path / "summary.json", json.dumps(summary, indent=1))

    def read_holes(self) -> dict[str, str]:
        """The holes that summary.json names, none where it was not written yet."""
        file = self.path / "summary.json"
        try:
            return dict(json.loads(file.read_text(encoding="utf-8"))["data"]["holes"]) if file.exists() else {}
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{file}: not a run's summary; delete it and resume again") from None

    def _compare(self, config_text: str, defaults: str) -> None:
        try:
            theirs = _read(self.config_file.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(f"{self.config_file}: cannot be read as a run's settings: {' '.join(str(error).split())}; give "
                             "another run.out") from None
        ours, default = _read(config_text), _read(defaults)
        theirs = {key: default[key] for key in default if key in ours and key not in theirs} | theirs
        free = MAY_CHANGE if ours.get("train.minutes") else (*MAY_CHANGE, *LENGTH)
        for key in sorted(ours.keys() | theirs.keys()):
            if not (key in free or key.startswith(FREE_SECTIONS)) and ours.get(key) != theirs.get(key):
                advice = "resume it with its own settings"
                if key in LENGTH:
                    advice = "give its length as train.minutes=0 train.steps=N"
                raise ValueError(f"{key}={ours.get(key)} but the run in {self.path} has {theirs.get(key)}; {advice} or give "
                                 "another run.out")


FREE_SECTIONS = ("run.", "eval.", "align.")
# train.micro_batch and train.accumulation: to keep the batch of a step on another number of workers
MAY_CHANGE = ("data.shards", "data.store", "data.pin_store", "data.decode_threads", "data.prefetch", "data.max_holes",
              "train.keep_checkpoints", "train.micro_batch", "train.accumulation")
LENGTH = ("train.steps", "train.epochs", "train.minutes")  # a run may be given other steps or epochs, not other minutes


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")  # a line torn by a kill: it belongs to what is redone


def _read(config_text: str) -> dict[str, Any]:
    return _flat(yaml.safe_load(config_text) or {})


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix[:-1]: values}
    return {key: item for name, value in values.items() for key, item in _flat(value, f"{prefix}{name}.").items()}
