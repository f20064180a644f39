"""The command line: what a user can mend is one line and exit code 2, never a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kaleido_fast.cli import _parse, main
from tests.places import DEMO
from tests.small import RUN


def test_generate_prepare_pretrain_evaluate_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """README's path, small: every verb on what the one before left; a run knows its shards from any folder, `~` is the home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    catalogue, shards, run = tmp_path / "catalogue", tmp_path / "shards", tmp_path / "run"
    assert main(["generate", "--products", "80", "--size", "96", "--out", str(catalogue)]) == 0
    assert main(["prepare", "--catalog", str(catalogue / "styles.csv"), "--images", str(catalogue / "images"),
                 "--out", str(shards)]) == 0
    assert main(["pretrain", str(DEMO), *RUN, "data.shards=shards", "run.out=~/run", "train.steps=3",
                 "data.alignment=truth"]) == 0
    assert run.is_dir() and not (tmp_path / "~").exists()
    assert "model.attention=auto: sdpa, torch flash attention for CPU\n" in capsys.readouterr().out
    assert json.loads((run / "summary.json").read_text())["picked"]["attention"] == "sdpa"
    assert "  attention: auto\n" in (run / "config.yaml").read_text()
    monkeypatch.chdir(catalogue)
    assert main(["evaluate", "~/run", "eval.queries=5", "eval.probe_iterations=3"]) == 0
    assert main(["report", str(run)]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert "report.html" in last and "R@1" in last
    page = (run / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "<img" in page
    assert main(["explain", str(shards), "--out", str(tmp_path / "x.png")]) == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "--catalog", "none.csv", "--images", ".", "--out", "{tmp}/s"], "none.csv: no such catalogue"),
        (["pretrain", "none.yaml"], "none.yaml: no such config file"),
        (["pretrain", str(DEMO), "train.learning_rat=1"], "did you mean 'train.learning_rate'"),
        (["pretrain", str(DEMO), "run.out={tmp}/r"], "data.shards: not given"),
        (["evaluate", "{tmp}/none"], "none"),
        (["report", "{tmp}/none"], "none"),
        (["explain", "{tmp}/none", "--out", "x.png"], "no manifest.json there"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, tmp_path: Path, capsys) -> None:
    assert main([argument.replace("{tmp}", str(tmp_path)) for argument in arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors


def test_settings_may_stand_behind_flags(tmp_path: Path, capsys) -> None:
    """A flag between them must not end the list: argparse takes positional arguments in one run only."""
    config, out = str(DEMO), f"run.out={tmp_path}/r"
    for arguments in (["pretrain", config, "--resume", "auto", out, "train.learning_rat=1"],
                      ["pretrain", config, out, "--resume", "auto", "train.learning_rat=1"],
                      ["pretrain", "--resume", "auto", config, out, "train.learning_rat=1"]):
        assert main(arguments) == 2
        assert "did you mean 'train.learning_rate'" in capsys.readouterr().err


def test_settings_may_stand_behind_a_flag_of_several_words() -> None:
    options = _parse(["bench", "step", str(DEMO), "--against", "reference", "train.steps=1", "visualbert", "--steps", "2"])
    assert options.against == ["reference", "visualbert"] and options.overrides == ["train.steps=1"]


def test_the_command_line_loads_torch_when_a_verb_does() -> None:
    """Its environment is set before: a default that only counts when it stands there as torch is loaded."""
    program = ("import os, sys, kaleido_fast.cli as cli; assert 'torch' not in sys.modules; "
               "assert 'GOMP_SPINCOUNT' not in os.environ; "
               "code = cli.main(['report', 'none']); print(code, os.environ['GOMP_SPINCOUNT'])")
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout == "2 10000\n", done.stderr


@pytest.mark.parametrize("arguments", [["pretrain", "x.yaml", "--resum", "auto", "--warp", "train.steps=1"],
                                       ["pretrain", "x.yaml", "--resume", "auto", "warp"], ["report", "run", "train.steps=1"]])
def test_what_is_no_setting_is_refused(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    unknown = next(word for word in ("--warp", "warp", "train.steps=1") if word in arguments)
    assert f"unrecognized arguments: {unknown}\n" in capsys.readouterr().err


def test_python_m_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "kaleido_fast", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "pretrain" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what is said without a CUDA device")
def test_kernels_are_not_timed_without_a_gpu(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "kernels"]) == 2
    assert "bench kernels needs a CUDA device, found none" in capsys.readouterr().err
