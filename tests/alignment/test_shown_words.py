"""Words in a figure: from the files, or aligned anew."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kaleido_fast.alignment.shard_alignment import ShardFiles
from kaleido_fast.cli import main
from kaleido_fast.data.shards.split import Split
from kaleido_fast.report.shown_words import computed_words, stored_words
from tests.alignment.small_align import NAME


def test_words_are_drawn_on_the_photograph(made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards, run = made
    pictures = {}
    for name, more in {"stored": [], "truth": ["--alignment", "truth"], "anew": ["--run", str(run)]}.items():
        out = tmp_path / f"{name}.png"
        assert main(["explain", str(shards), "--out", str(out), *more]) == 0
        assert Image.open(out).size[0] > 1000
        pictures[name] = out.read_bytes()
    assert len(set(pictures.values())) == 3
    capsys.readouterr()
    assert main(["explain", str(shards), "--out", str(tmp_path / "y.png"), "--alignment", "other"]) == 2
    assert "other: " in capsys.readouterr().err and not (tmp_path / "y.png").exists()


def test_words_aligned_anew_are_those_of_the_files(shards: Path, run: Path) -> None:
    """Both ways to a figure's words and heat-maps agree; without its captioner a stored alignment has no heat-maps."""
    split, samples = Split.open(shards, "test"), [0, 4, 9]
    stored, anew = stored_words(split, samples, NAME), computed_words(split, samples, run)
    for left, right, masks in zip(stored, anew, split.alignment(np.array(samples), NAME), strict=True):
        assert left.words and [word[:4] for word in left.words] == [word[:4] for word in right.words]
        assert all(np.allclose(*pair) for pair in zip((w.heat for w in left.words), (w.heat for w in right.words), strict=True))
        assert right.masks.tolist() == masks.tolist() and left.about == f"alignment '{NAME}'"
    files = ShardFiles(shards, "test-000000", NAME)
    record = json.loads(files.record.read_text())
    for change, why in (({"captioner": str(run)}, "its captioner is not where it was"),
                        ({"captioner": str(run / "captioner"), "recipe": record["recipe"] | {"captioner": "3" * 64}},
                         "another captioner stands where its own was")):
        files.record.write_text(json.dumps(record | change))
        (found,) = stored_words(split, samples[:1], NAME)
        assert found.about.endswith(f"; no heat-maps: {why}") and all(word.heat is None for word in found.words)
        assert [word.mask for word in found.words] == [word.mask for word in stored[0].words]
