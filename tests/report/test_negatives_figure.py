"""A product beside its mined negatives: which are drawn, and what is said where there are none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kaleido_fast.cli import main
from kaleido_fast.data.shards.split import Split
from kaleido_fast.report import negatives_figure
from kaleido_fast.settings import as_yaml
from kaleido_fast.training.mining.mined_negatives import NEGATIVES
from tests.small import small_config


@pytest.fixture
def run(tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose checkpoint has lists: of product 0 none, of product 1 the twelve behind it."""
    split, folder = Split.open(tiny_shards, "train"), tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(as_yaml(small_config(tiny_shards, folder, "data.mine_count=12")))
    lists = np.full((split.num_products, 12), -1, np.int32)
    lists[1] = np.arange(2, 14)
    np.save(folder / NEGATIVES, lists)
    monkeypatch.setattr(negatives_figure, "newest_checkpoint", lambda run: run)
    return folder


def test_the_first_product_with_a_list_is_drawn(
    run: Path, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, drawn = negatives_figure._show, []
    monkeypatch.setattr(negatives_figure, "_show", lambda axes, split, product, behind: (
        drawn.append((product, behind)), inner(axes, split, product, behind)))
    out = tmp_path / "new" / "n.png"
    assert main(["explain", str(tiny_shards), "--run", str(run), "--negatives", "--out", str(out)]) == 0
    assert drawn[0] == (1, ", 9 of its 12") and [product for product, _ in drawn[1:]] == [2, 3, 4, 6, 7, 8, 10, 11, 12]
    assert Image.open(out).size[0] > 1000


def test_what_cannot_be_drawn_is_one_line(
    run: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = (Split.open(tiny_shards, name).products["id"][0].decode() for name in ("train", "test"))
    command = ["explain", str(tiny_shards), "--negatives", "--out", str(tmp_path / "n.png")]
    for arguments, message in (
        ([], "--negatives shows what a run has mined; name the run by --run RUN"),
        (["--run", str(run), "--id", first], f"product '{first}' has no mined negatives"),
        (["--run", str(run), "--id", other], f"--id={other}: of the test split"),
    ):
        assert main([*command, *arguments]) == 2
        assert message in capsys.readouterr().err
    (run / NEGATIVES).unlink()
    assert main([*command, "--run", str(run)]) == 2
    assert "nothing was mined yet" in capsys.readouterr().err
