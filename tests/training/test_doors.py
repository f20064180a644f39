"""What a training from a store does without: packages that are opened when a setting asks for them, not before."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kaleido_fast.training.stores.encode import encode
from tests.places import REPO
from tests.small import small_config

WITHOUT = ("nvidia.dali", "xformers", "tensorboard", "transformers", "matplotlib")
SMALL_EVALUATION = ("eval.queries=5", "eval.kaleido_samples=32", "eval.probe_train=20", "eval.probe_test=20")
PROGRAM = """
import json, sys
from pathlib import Path
from kaleido_fast.config import load_run_config
from kaleido_fast.tasks.evaluate import evaluate_run
from kaleido_fast.training.pretrain import pretrain
from tests.small import small_config

shards, out, store, without, evaluation = json.loads(sys.argv[1])

def evaluate(examples):
    evaluate_run(Path(out), load_run_config(Path(out), [*evaluation, f"eval.examples={examples}"], needs_shards=True))

def opened():
    return sorted(name for name in without if name in sys.modules)

pretrain(small_config(Path(shards), Path(out), "train.steps=3", "model.features=stored", f"data.store={store}"))
found = {"pretrain": opened()}
evaluate(examples=0)
found["evaluate"] = opened()
evaluate(examples=2)
found["with pictures"] = opened()
Path(out, "opened.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def opened(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Which packages a process had opened: after a pre-training from a store, after its evaluation, after one with pictures."""
    folder = tmp_path_factory.mktemp("doors")
    store, out = folder / "store", folder / "run"
    assert encode(small_config(tiny_shards, folder / "none", f"data.store={store}")) == 0
    arguments = json.dumps([str(tiny_shards), str(out), str(store), WITHOUT, SMALL_EVALUATION])
    done = subprocess.run([sys.executable, "-c", PROGRAM, arguments], capture_output=True, text=True, timeout=300, cwd=REPO,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((out / "opened.json").read_text())


def test_training_from_a_store_opens_none_of_them(opened: dict[str, list[str]]) -> None:
    assert opened["pretrain"] == []


def test_evaluating_from_a_store_without_pictures_opens_none_of_them(opened: dict[str, list[str]]) -> None:
    assert opened["evaluate"] == []


def test_pictures_open_dali(opened: dict[str, list[str]]) -> None:
    assert opened["with pictures"] == ["nvidia.dali"]
