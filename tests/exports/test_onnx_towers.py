"""The towers as ONNX, run by onnxruntime."""

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from kaleido_fast.cli import main
from kaleido_fast.data.catalogue.picture import picture_square
from kaleido_fast.exports import onnx_towers
from tests.exports.conftest import TEXTS, Expected


@pytest.mark.slow
def test_onnxruntime_gives_the_embeddings(expected: Expected, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For other numbers of photographs and words than the exporter saw."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    out = tmp_path / "onnx"
    assert main(["export", str(expected.folder), "--format", "onnx", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{out}: photographs.onnx, largest difference from this model ")
    assert all(0 < float(word.strip(";")) < 1e-4 for word in printed.split() if "e-" in word)

    def run(name: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
        return onnxruntime.InferenceSession(str(out / name), providers=["CPUExecutionProvider"]).run(None, inputs)[0]

    said = json.loads((out / "preprocessing.json").read_text())
    squares = np.stack([picture_square(file, said["max_side"], 60) for file in [*expected.files, expected.files[0]]])
    photographs = run("photographs.onnx", {"squares": squares})
    np.testing.assert_allclose(photographs, expected.images[[0, 1, 0]], atol=1e-5)
    engine = tokenizers.Tokenizer.from_file(str(out / "tokenizer.json"))
    engine.enable_truncation(said["max_tokens"])
    for text, ours in zip(TEXTS, expected.texts, strict=True):
        ids = np.array([engine.encode(text).ids], np.int64)
        embeddings = run("texts.onnx", {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        np.testing.assert_allclose(embeddings[0], ours, atol=1e-5)


def test_a_missing_package_is_named(expected: Expected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(onnx_towers, "PACKAGES", ("numpy", "no_such_package"))
    assert main(["export", str(expected.folder), "--format", "onnx", "--out", str(tmp_path / "out")]) == 2
    assert "export as ONNX needs the packages numpy, no_such_package, not found: no_such_package; pip install " \
           "'kaleido_fast[onnx]'" in capsys.readouterr().err
