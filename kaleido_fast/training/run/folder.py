"""A run's folder: config.yaml, metrics.jsonl, checkpoints/, summary.json (and later eval.json, report.html); lock.json while a
process holds it (folder_lock.py)."""

import json
from pathlib import Path
from typing import Any

import yaml

from kaleido_fast.files import cannot_write, is_torn, replace_text
from kaleido_fast.folder_lock import LOCK
from kaleido_fast.options import RESUME, OptionError
from kaleido_fast.settings import OnDisk, Setting, as_yaml, plain, same_place, settings_of, values_of
from kaleido_fast.training.settings import LENGTH, RunConfig


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

    def find(self, config: RunConfig, resume: bool) -> bool:
        """Whether a run is there to go on with; writes nothing.

        Args:
            resume: whether a run that is there may go on.
        Raises:
            ValueError: a run is there and `resume` is false, or a setting differs that may not change on resume (names the
                first). Its length may: steps or epochs in place of what it had.
        """
        if self.config_file.exists():
            if not resume:
                raise OptionError(f"{self.path}: a run is there already; add ", RESUME, " to go on with it, or give another "
                                  "run.out")
            self._compare(config)
            return True
        if self.path.exists() and any(not (is_torn(path) or path.name == LOCK) for path in self.path.iterdir()):
            raise ValueError(f"{self.path}: not empty and not a run; give another run.out")
        return False

    def start(self, config: RunConfig) -> None:
        """Make the folder for a new run; what a kill left half-written there goes."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for path in filter(is_torn, list(self.path.iterdir())):
                path.unlink()
        except OSError as error:
            raise cannot_write(self.path, error, "give another run.out") from error
        replace_text(self.config_file, as_yaml(config))

    def go_on(self, step: int, config: RunConfig) -> None:
        """Take up a run from `step`: later metrics go, and config.yaml has the settings that it goes on with."""
        self.cut_metrics(step)
        text = as_yaml(config)
        if self.config_file.read_text("utf-8") != text:
            replace_text(self.config_file, text)

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        try:
            with self.metrics_file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
        except OSError as error:
            raise cannot_write(self.metrics_file, error, "make room, then go on with ", RESUME) from error

    def cut_metrics(self, step: int) -> None:
        """Drop the lines of steps after `step`: the trajectory that a resumed run writes anew."""
        if not self.metrics_file.exists():
            return
        kept = [line for line in self.metrics_file.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
        replace_text(self.metrics_file, "".join(line + "\n" for line in kept))

    def write_summary(self, summary: dict[str, Any]) -> None:
        replace_text(self.path / "summary.json", json.dumps(summary, indent=1))

    def change_ended(self, ended: dict[str, Any]) -> None:
        """Say in summary.json, where it is there, how the run ended; all else stays."""
        file = self.path / "summary.json"
        if file.exists():
            self.write_summary(json.loads(file.read_text(encoding="utf-8")) | {"ended": ended})

    def read_holes(self) -> dict[str, str]:
        """The holes that summary.json names, none where it was not written yet."""
        file = self.path / "summary.json"
        try:
            return dict(json.loads(file.read_text(encoding="utf-8"))["data"]["holes"]) if file.exists() else {}
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{file}: not a run's summary; delete it and resume again") from None

    def _compare(self, config: RunConfig) -> None:
        try:
            theirs = _read(self.config_file.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(f"{self.config_file}: cannot be read as a run's settings: {' '.join(str(error).split())}; give "
                             "another run.out") from None
        ours, settings = values_of(config), {setting.key: setting for setting in settings_of(type(config))}
        theirs = {key: setting.default for key, setting in settings.items()} | theirs  # of keys that are newer than the run
        for key in sorted(ours.keys() | theirs.keys()):
            if key in settings and settings[key].may_change and not (key in LENGTH and config.train.minutes):
                continue
            if not _same(settings.get(key), plain(theirs.get(key)), ours.get(key)):
                advice = "resume it with its own settings"
                if key in LENGTH:
                    advice = "give its length as train.minutes=0 train.steps=N"
                raise ValueError(f"{key}={ours.get(key)} but the run in {self.path} has {plain(theirs.get(key))}; {advice} or "
                                 "give another run.out")


def _same(setting: Setting | None, earlier: Any, now: Any) -> bool:
    if setting is not None and setting.mark(OnDisk) and isinstance(earlier, str):
        return same_place(earlier, now)
    return earlier == now


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")  # a line torn by a kill: it belongs to what is redone


def _read(config_text: str) -> dict[str, Any]:
    """Values by key."""
    sections = yaml.safe_load(config_text) or {}
    if not isinstance(sections, dict):
        raise yaml.YAMLError(f"expected sections such as 'train:', found {type(sections).__name__}")
    return {f"{name}.{key}": value for name, section in sections.items() if isinstance(section, dict)
            for key, value in section.items()}
