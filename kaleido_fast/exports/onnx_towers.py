"""The two towers as ONNX, run by any runtime of opset 18:

    photographs.onnx    squares (n, S, S, 3) uint8, locked and resized       -> embeddings (n, E) fp32 of length 1
    texts.onnx          input_ids and attention_mask (n, T) int64            -> embeddings (n, E) fp32 of length 1

tokenizer.json (of the `tokenizers` library) makes the ids; preprocessing.json says T and the longest side of a photograph.
"""

import importlib.util
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kaleido_fast.exports.states import Pairs, drawn_pairs, require_exportable, towers_of
from kaleido_fast.exports.towers import KaleidoTowers
from kaleido_fast.files import require_free, written_beside
from kaleido_fast.model.pretrained import Pretrained

PHOTOGRAPHS, TEXTS = "photographs.onnx", "texts.onnx"
OPSET = 18
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class _Photographs(nn.Module):
    def __init__(self, towers: KaleidoTowers) -> None:
        super().__init__()
        self.towers = towers

    def forward(self, squares: Tensor) -> Tensor:
        return self.towers.photographs(squares)


class _Texts(nn.Module):
    def __init__(self, towers: KaleidoTowers) -> None:
        super().__init__()
        self.towers = towers

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.towers.texts(input_ids, attention_mask)


def export_onnx(pretrained: Pretrained, out: Path) -> tuple[float, float]:
    """Write the folder; beside, then renamed.

    Returns:
        The largest difference from our embeddings on drawn pairs, of photographs and of texts, as onnxruntime computes them.
    Raises:
        ValueError: what cannot be exported, `out` is not empty, or a package is not installed.
    """
    tokenizer = require_exportable(pretrained)
    if lacking := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ValueError(f"export as ONNX needs the packages {', '.join(PACKAGES)}, not found: {', '.join(lacking)}; pip "
                         "install 'kaleido_fast[onnx]'")
    require_free(out)
    towers, pairs = towers_of(pretrained), drawn_pairs(pretrained)
    with written_beside(out, "export") as beside:
        count = torch.export.Dim("n", min=1)
        tokens = torch.export.Dim("T", min=2, max=pretrained.preprocessing.max_tokens)
        _write(_Photographs(towers), (pairs.squares[:2],), ["squares"], ({0: count},), beside / PHOTOGRAPHS)
        _write(_Texts(towers), (pairs.tokens[:2], pairs.attention_mask[:2]), ["input_ids", "attention_mask"],
               ({0: count, 1: tokens}, {0: count, 1: tokens}), beside / TEXTS)
        tokenizer.write_json(beside / "tokenizer.json")
        pretrained.preprocessing.write(beside)
        return _differences(beside, pairs)


def _write(tower: nn.Module, inputs: tuple[Tensor, ...], names: list[str], dynamic: tuple[dict, ...], file: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        for chatty in ("torch.onnx", "onnxscript"):  # the exporter about itself
            logging.getLogger(chatty).setLevel(logging.ERROR)
        torch.onnx.export(tower, inputs, str(file), input_names=names, output_names=["embeddings"], dynamic_shapes=dynamic,
                          opset_version=OPSET, dynamo=True, external_data=False, verbose=False)


def _differences(folder: Path, pairs: Pairs) -> tuple[float, float]:
    import onnxruntime

    def run(name: str, **inputs: Tensor) -> np.ndarray:
        session = onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {key: value.numpy() for key, value in inputs.items()})[0])

    photographs = run(PHOTOGRAPHS, squares=pairs.squares)
    texts = run(TEXTS, input_ids=pairs.tokens, attention_mask=pairs.attention_mask)
    return (float(np.abs(photographs - pairs.photographs.numpy()).max()), float(np.abs(texts - pairs.texts.numpy()).max()))
