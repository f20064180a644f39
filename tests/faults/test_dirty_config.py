"""Settings that cannot be used: one line that names the key, and no run folder; no value of any key is a traceback."""

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaleido_fast.config import Config, load_config
from tests.places import DEMO

LENGTH = ["train.minutes=0", "train.steps=1"]
STRANGE = ("0", "-1", "1e30", ".nan", ".inf", "[]", "{}", "null", "text", "true", "[1, x]", "'", "12345678901234567890123")

REFUSED = {
    "a wrong key": (["train.learning_rat=1"], "train.learning_rat: unknown key; did you mean 'train.learning_rate'"),
    "a wrong section": (["trian.steps=1"], "trian: unknown key; did you mean 'train'"),
    "a key in the wrong section": (["model.micro_batch=16"],
                                   "model.micro_batch: unknown key; did you mean 'train.micro_batch' or 'align.micro_batch'"),
    "a word for a number": (["train.micro_batch=many"], "train.micro_batch: expected integer"),
    "a part of a step": (["train.steps=1.5"], "train.steps: expected integer"),
    "a number for a section": (["train=3"], "train: expected a section, found 3"),
    "no value": (["train.steps"], "'train.steps': expected key=value"),
    "two lengths": (["train.minutes=1"], "give one of train.steps, train.epochs, train.minutes"),
    "a negative length": (["train.steps=-4"], "train.steps=-4 must be at least 0"),
    "a word for a list": (["kaleido.tasks=rotation"], "kaleido.tasks: expected a list such as [1, 2], found 'rotation'"),
    "a number for names": (["train.task_weights=3"], "train.task_weights: expected a section such as {name: 1}, found 3"),
    "nowhere to write": (["run.out="], "run.out: not given; name the folder to write the run to"),
    "a file for shards": ([f"data.shards={DEMO}"], "demo.yaml: no manifest.json there; expected a folder written by"),
    "a split group": (["train.micro_batch=24"], "train.micro_batch=24 must be a positive multiple of 16"),
    "no heads": (["model.heads=0"], "model.heads=0 must lie in 1..1024"),
    "no layers": (["model.layers=0"], "model.layers=0 must lie in 1..1000"),
    "no words": (["model.max_positions=0"], "model.max_positions=0 must lie in 1..65536"),
    "heads that do not divide": (["model.heads=7"], "must be a multiple of model.heads=7"),
    "an odd square": (["data.image_size=100"], "data.image_size=100 must be a multiple of every grid"),
    "no grids": (["kaleido.grids=[]"], "kaleido.tasks: rotation changes the patches of grid 1, found kaleido.grids=[]; "
                                       "add that grid, or take rotation out"),
    "a grid of nothing": (["kaleido.grids=[0]"], "kaleido.grids=[0] must lie in 1..64"),
    "a task without its level": (["kaleido.grids=[1, 2]"], "kaleido.tasks: camouflage changes the patches of grid 3, found "
                                                           "kaleido.grids=[1, 2]; add that grid"),
    "no decoder": (["data.decode_threads=0"], "data.decode_threads=0 must lie in 1..256"),
    "nothing ahead": (["data.prefetch=0"], "data.prefetch=0 must lie in 1..64"),
    "more holes than samples": (["data.max_holes=2"], "data.max_holes=2.0 must lie in 0..1"),
    "a share of two": (["data.itm_hard_share=2"], "data.itm_hard_share=2.0 must lie in 0..1"),
    "dropout of all": (["model.dropout=1"], "model.dropout=1.0 must lie in 0..0.99"),
    "no rate": (["train.learning_rate=.nan"], "train.learning_rate=nan must lie in 0..1"),
    "betas past one": (["train.betas=[0.9, 1.5]"], "train.betas=[0.9, 1.5] must lie in 0..0.999999"),
    "an alignment that is not there": (["data.alignment=mine"], "data.alignment=mine: "),
    "no such shards": (["data.shards=none"], "none: no manifest.json there"),
    "varlen on a cpu": (["model.attention=varlen"], "varlen needs a CUDA device, found run.device=cpu"),
    "a spread of nothing": (["kaleido.std=[0, 0, 0]"], "kaleido.std=[0.0, 0.0, 0.0] must lie in 1e-06..1000"),
    "a timeout of nothing": (["run.timeout_s=0"], "run.timeout_s=0.0 must lie in 1..10,000,000"),
    "no queries": (["eval.queries=0"], "eval.queries=0 must be at least 1"),
    "no strength": (["eval.probe_strengths=[]"], "eval.probe_strengths=[] must be one or more numbers of at least 0"),
    "a group of seven": (["eval.batch_photographs=7"], "eval.batch_photographs=7 must be a positive multiple of 16"),
    "fewer pairs than none": (["eval.batch_pairs=-3"], "eval.batch_pairs=-3 must be at least 1"),
    "more steps than there are": (["train.steps=2000000000000"], "train.steps=2000000000000 must be at most 1,099,511,627,776"),
    "a key that is none": (["data.zzz=1"], "data.zzz: unknown key; `kaleido-fast settings data` lists them"),
    "a key without its section": (["micro_batch=16"], "micro_batch: unknown key; did you mean 'train.micro_batch' or 'align."),
    "a negative seed": (["train.seed=-1"], "train.seed=-1 must lie in 0.."),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_wrong_settings_are_one_line_and_leave_nothing(
    kind: str, kaleido, only_inside, tiny_shards: Path, tmp_path: Path
) -> None:
    overrides, message = REFUSED[kind]
    with only_inside(tmp_path):
        answer = kaleido("pretrain", DEMO, *LENGTH, f"data.shards={tiny_shards}", f"run.out={tmp_path / 'run'}", *overrides)
    assert answer.code == 2 and message in answer.err


def _keys() -> Iterator[str]:
    for section, kind in typing.get_type_hints(Config).items():
        for field in dataclasses.fields(kind):
            yield f"{section}.{field.name}"


@pytest.mark.parametrize("key", list(_keys()))
def test_no_value_of_a_key_is_a_traceback(key: str) -> None:
    for value in STRANGE:
        try:
            assert isinstance(load_config(DEMO, [*LENGTH, f"{key}={value}"]), Config)
        except ValueError as error:
            assert str(error) and "Traceback" not in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"train: {steps: [}", "not valid YAML"), (b"\xff\xfe\x00", "cannot be read as a config"), (b"- 1", "expected sections"),
     (b"1: 2", "1: unknown key"), (b"train: 7", "train: expected a section"), (b"? [a, b]\n: 1", "not valid YAML")],
)
def test_a_file_that_is_no_config(content: bytes, message: str, kaleido, only_inside, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with only_inside(tmp_path):
        answer = kaleido("pretrain", tmp_path / "c.yaml", f"run.out={tmp_path / 'run'}")
    assert answer.code == 2 and message in answer.err
