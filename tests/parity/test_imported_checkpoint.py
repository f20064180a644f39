"""The authors' checkpoint after step 4, imported from TensorFlow's files, gives their logits and losses on the fast path."""

from pathlib import Path

import numpy as np

from fast_path import FastPath
from golden_cases import Case, check
from kaleido_fast import KaleidoBert
from kaleido_fast.cli import main

GOLDEN = Path(__file__).parents[1] / "golden"


def test_it_answers_as_theirs_does_after_step_4(tmp_path: Path) -> None:
    assert main(["import-tf", "--checkpoint", str(GOLDEN / "tf_checkpoint" / "model.ckpt-4"), "--out", str(tmp_path / "out")]) == 0
    case = Case("small", "fp32")
    path = FastPath(case)
    path.model = path.step.model = KaleidoBert.from_pretrained(tmp_path / "out").model
    found = {f"after/{name}": value for name, value in path.forward(case).items()}
    wanted = case.wanted("after/")
    check(found, wanted, case)
    assert len(wanted) == 15 and {want.relative for want in wanted.values()} == {1e-5}
    before = case.expected["losses/total"]
    assert abs(before - found["after/losses/total"]) > 0.01 * np.abs(before), "the weights of another step would pass too"
