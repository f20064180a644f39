"""The files of examples/: each does what it says, as far as a machine without SLURM and cloud can show."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kaleido_fast import __version__
from kaleido_fast.cli import _parse, main
from kaleido_fast.config import load_config
from kaleido_fast.folder_lock import LOCK
from kaleido_fast.training.pretrain import pretrain
from tests.places import REPO
from tests.small import small_config

EXAMPLES = REPO / "examples"
SLURM, SKY = EXAMPLES / "pretrain.slurm", EXAMPLES / "pretrain.sky.yaml"
ENVIRONMENT = {  # what a shell finds there
    "SHARDS": "/shards", "RUN": "/run", "SKYPILOT_NUM_NODES": "1", "SKYPILOT_NODE_RANK": "0", "SKYPILOT_NODE_IPS": "10.0.0.1",
    "SKYPILOT_NUM_GPUS_PER_NODE": "8", "SLURM_JOB_ID": "7",
}


def commands(script: str) -> list[list[str]]:
    """The arguments of each kaleido-fast command in a shell script, its variables filled in."""
    script = re.sub(r"^\s*#.*$", "", script, flags=re.M)
    filled = re.sub(r"\$\{?(\w+)\}?", lambda name: ENVIRONMENT.get(name[1], "unset"), script)
    lines = re.findall(r"^\s*(?:\S.* )?(?:kaleido-fast|-m kaleido_fast) (.+)$", re.sub(r"\\\n\s*", "", filled), re.M)
    return [shlex.split(line) for line in lines]


def script_of(file: Path) -> str:
    return yaml.safe_load(file.read_text("utf-8"))["run"] if file == SKY else file.read_text("utf-8")


@pytest.mark.parametrize("file", [SLURM, SKY], ids=lambda file: file.name)
def test_commands_and_their_settings_exist(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    (arguments,) = commands(script_of(file))
    options = _parse(arguments)
    config = load_config(options.config, options.overrides)
    assert options.verb == "pretrain" and options.resume == "auto" and config.data.shards and config.run.out
    workers = 16 if file == SLURM else 8
    assert config.train.micro_batch * config.train.accumulation * workers == 512, "base.yaml's samples a step"


@pytest.mark.parametrize("file", [SLURM, SKY], ids=lambda file: file.name)
def test_the_shell_can_read_them(file: Path) -> None:
    scripts = [yaml.safe_load(file.read_text("utf-8"))["setup"], script_of(file)] if file == SKY else [script_of(file)]
    for script in scripts:
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (143, True), (2, False)])
def test_a_job_whose_time_is_up_is_queued_again(code: int, requeued: bool, tmp_path: Path) -> None:
    """srun and scontrol stand for SLURM's: the one ends as told, the other notes what it is asked."""
    (tmp_path / "srun").write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/srun.txt\nexit {code}\n")
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/scontrol.txt\n")
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    environment = os.environ | ENVIRONMENT | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(["bash", SLURM], env=environment).returncode == code
    assert (tmp_path / "srun.txt").read_text().startswith("python -m kaleido_fast pretrain configs/base.yaml data.shards=/sh")
    queued = tmp_path / "scontrol.txt"
    assert queued.exists() == requeued and (not requeued or queued.read_text() == "requeue 7\n")


@pytest.mark.parametrize("file", [SLURM, SKY], ids=lambda file: file.name)
def test_a_lock_is_left_to_the_run(file: Path) -> None:
    """It takes over what has ended, and what has not must stop it."""
    assert LOCK not in file.read_text("utf-8")


def test_photographs_are_ranked(tiny_shards: Path, tmp_path: Path) -> None:
    run, exported = tmp_path / "run", tmp_path / "exported"
    assert pretrain(small_config(tiny_shards, run, "train.steps=1", "model.initializer_range=0.2")) == 0
    assert main(["export", str(run), "--out", str(exported)]) == 0
    photographs = sorted(map(str, (tiny_shards.parent / "catalogue" / "images").glob("*.jpg")))[:3]
    done = subprocess.run([sys.executable, EXAMPLES / "rank_photographs.py", exported, "a red shirt", *photographs],
                          capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert sorted(photograph for _, photograph in lines) == photographs
    assert [float(score) for score, _ in lines] == sorted((float(score) for score, _ in lines), reverse=True)
    assert len({score for score, _ in lines}) > 1


def test_the_citation_is_one() -> None:
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text("utf-8"))
    paper = citation["preferred-citation"]
    assert citation["cff-version"] == "1.2.0" and citation["license"] == "Apache-2.0" and paper["year"] == 2021
    assert citation["version"] == __version__
    assert [author["family-names"] for author in paper["authors"]][:2] == ["Zhuge", "Gao"] and len(paper["authors"]) == 8
