"""The authors' checkpoint after step 4, imported from TensorFlow's files, gives their logits and losses on the fast path."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from kaleido_fast import KaleidoBert
from kaleido_fast.cli import main
from tests.authors.tensorflow import writer
from tests.parity.fast_path import LEVELS, FastPath
from tests.parity.golden_cases import Case, check
from tests.places import GOLDEN


def test_it_answers_as_theirs_does_after_step_4(tmp_path: Path) -> None:
    checkpoint = GOLDEN / "tf_checkpoint" / "model.ckpt-4"
    assert main(["import-tf", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")]) == 0
    case = Case("small", "fp32")
    path = FastPath(case)
    path.model = path.step.model = KaleidoBert.from_pretrained(tmp_path / "out").model
    found = {f"after/{name}": value for name, value in path.forward(case).items()}
    wanted = case.wanted("after/")
    check(found, wanted, case)
    assert len(wanted) == 15 and {want.relative for want in wanted.values()} == {1e-5}
    before = case.expected["losses/total"]
    assert abs(before - found["after/losses/total"]) > 0.01 * np.abs(before), "the weights of another step would pass too"


def test_page_scores_the_authors_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python block of docs/authors.md on the golden rows, with the weights that the authors' scores are of."""
    monkeypatch.chdir(tmp_path)
    case = Case("small", "fp32")
    prefix = writer.write_checkpoint(tmp_path / "c", case.weights)
    assert main(["import-tf", "--checkpoint", str(prefix), "--config", str(GOLDEN / "tf_checkpoint" / "config.json"),
                 "--out", "imported"]) == 0
    put = {name: torch.from_numpy(value) for name, value in case.inputs.items()}
    rows = len(put["input_ids"])
    names = {
        "tokens": put["input_ids"].int(), "lengths": put["input_mask"].sum(1).int(),
        "features": torch.cat([put[f"img_feature_convert_{level}"].view(rows, -1, 96) for level in LEVELS], 1),
        "locations": torch.cat([put[f"img_loc_position_{level}"].view(rows, -1, 5) for level in LEVELS], 1).float(),
        "source": torch.arange(rows * 55, dtype=torch.int32).view(rows, 55)}
    blocks = re.findall(r"```python\n(.*?)```", (GOLDEN.parents[1] / "docs" / "authors.md").read_text("utf-8"), re.S)
    with torch.no_grad():
        exec(next(block for block in blocks if "locations=locations" in block), names)
    expected = torch.from_numpy(case.expected["predict/itm"][:, 1])
    torch.testing.assert_close(names["scores"], expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
