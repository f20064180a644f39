"""What stands at the settings' fields: a sentence for each, bounds for every number, and what is read from there."""

import subprocess
import sys
import typing
from dataclasses import replace

import pytest

from kaleido_fast.config import Config
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.model.task_table import TASKS, KaleidoTask
from kaleido_fast.settings import (
    ALIGNMENT, CAPTIONER, FEATURES, AtLeast, Between, Setting, check_sections, settings_of, values_deciding, values_of,
)
from kaleido_fast.training.settings import TrainSettings

SETTINGS = {setting.key: setting for setting in settings_of(Config)}


@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_says_what_it_is_and_what_its_numbers_may_be(key: str) -> None:
    setting = SETTINGS[key]
    assert setting.sentence and not setting.sentence.endswith(".")
    assert not setting.sentence.startswith(("the same", "of ", "for ", "between ", "added ")), "means nothing alone"
    numbers = [kind for kind in (setting.kind, *typing.get_args(setting.kind)) if kind in (int, float)]
    assert not numbers or setting.mark(Between) is not None
    setting.check(setting.default)


def test_values_are_those_of_the_config_as_yaml_has_them() -> None:
    values = values_of(replace(Config(), data=DataSettings(shards="x")))
    assert list(values) == list(SETTINGS) and values["data.shards"] == "x" and values["kaleido.grids"] == [1, 2, 3, 4, 5]


def test_what_decides_features_captioners_and_alignments() -> None:
    """The keys that stores, captioners and alignments have been written with: another set would refuse them all."""
    assert set(values_deciding(Config(), FEATURES)) == {
        "model.patch_encoder", "data.image_size", "kaleido.patch_size", "kaleido.grids", "kaleido.mean", "kaleido.std"}
    assert set(values_deciding(Config(), CAPTIONER)) == {
        "data.image_size", "data.max_tokens", "kaleido.mean", "kaleido.std", "train.seed", *(f"align.{name}" for name in (
            "network", "channels", "embedding", "hidden", "attention", "dropout", "place_dropout", "coverage", "look_cost",
            "steps", "minutes", "micro_batch", "learning_rate", "warmup_steps"))}
    assert set(values_deciding(Config(), ALIGNMENT)) == {
        "data.max_tokens", "kaleido.grids", *(f"align.{name}" for name in (
            "mode", "beam", "region_share", "covered_share", "most_covered", "smoothing", "stop_words"))}


def test_what_may_change_on_resume() -> None:
    changing = {key for key, setting in SETTINGS.items() if setting.may_change}
    assert {key for key in changing if not key.startswith(("run.", "eval.", "align."))} == {
        "data.shards", "data.store", "data.pin_store", "data.decode_threads", "data.prefetch", "data.max_holes",
        "model.attention", "model.compile", "train.steps", "train.epochs", "train.minutes", "train.micro_batch",
        "train.accumulation", "train.log_every", "train.validate_every", "train.validation_samples", "train.checkpoint_every",
        "train.keep_checkpoints", "train.max_skipped_steps",
        "caption.beam", "caption.length_penalty", "caption.max_tokens", "caption.style"}  # of decoding alone
    assert {key for key in SETTINGS if key.startswith(("run.", "eval.", "align."))} <= changing


@pytest.mark.parametrize(("value", "message"), [
    (-1, "x.y=-1 must be at least 0"), (2**41, "x.y=2199023255552 must be at most 1,099,511,627,776"),
    ((3, float("nan")), r"x.y=\[3, nan\] must be at least 0"),
])
def test_a_number_out_of_bounds_is_named(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Setting("x.y", int, 0, "", (AtLeast(0),)).check(value)


def test_every_section_is_checked_field_by_field_and_as_a_whole() -> None:
    with pytest.raises(ValueError, match="data.prefetch=0 must lie in 1..64"):
        check_sections(data=DataSettings(prefetch=0))
    with pytest.raises(ValueError, match="run.out: not given"):
        check_sections(run=replace(Config().run, out=""))


def test_the_marks_need_no_package() -> None:
    program = "import sys; import kaleido_fast.settings; print([m for m in ('torch', 'pydantic', 'yaml') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_further_task_changes_nothing_that_a_config_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    before = TrainSettings()
    monkeypatch.setitem(TASKS, "swap_pairs", KaleidoTask("swap_pairs", 2, "swap", 1))
    assert TrainSettings() == before and before.losses_on_mismatched == ("rotation", "jigsaw", "camouflage")
