"""The folder for transformers: what a stranger without this package gets from it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kaleido_fast.exports.huggingface import export_huggingface
from kaleido_fast.exports.one_file import modelling_file
from kaleido_fast.exports.states import drawn_pairs, towers_of
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.patch_encoders.build import PATCH_ENCODERS
from kaleido_fast.model.patch_encoders.pretrained import PretrainedEncoder
from kaleido_fast.model.pretrained import Pretrained, load_exported
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from tests.exported import exported_model
from tests.exports.conftest import TEXTS, Expected

STRANGER = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "kaleido_fast":
            raise ImportError("kaleido_fast is not installed here")

sys.meta_path.insert(0, Blocked())
try:
    import kaleido_fast
except ImportError:
    pass
else:
    raise SystemExit("kaleido_fast is there")
from safetensors.torch import save_file
from transformers import AutoModel, AutoProcessor, AutoTokenizer
import torch

folder, out, files, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
assert not model.training and AutoTokenizer.from_pretrained(folder)("a")["input_ids"]
with torch.no_grad():
    words = processor(text=texts)
    alone = model.get_text_features(**words)
    pairs = model(**processor(text=texts[:2], images=files))
itm = pairs.itm_logits[:, 1] - pairs.itm_logits[:, 0]
save_file({"images": pairs.image_embeds, "texts": alone, "pairs": itm, "grid": pairs.logits_per_image}, out)
"""


@pytest.fixture(scope="module")
def folder(expected: Expected, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("huggingface") / "folder"
    assert 0 < export_huggingface(load_exported(expected.folder), out) < 1e-4
    return out


@pytest.mark.slow
def test_it_loads_where_this_package_is_not(folder: Path, expected: Expected, tmp_path: Path) -> None:
    files = json.dumps([str(file) for file in expected.files])
    done = subprocess.run([sys.executable, "-c", STRANGER, str(folder), str(tmp_path / "out"), files, json.dumps(TEXTS)],
                          capture_output=True, text=True, timeout=120,
                          env={"PATH": "", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    out = load_file(tmp_path / "out")
    for name, ours in (("images", expected.images), ("texts", expected.texts), ("pairs", expected.pairs)):
        torch.testing.assert_close(out[name], ours, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out["grid"], expected.images @ expected.texts[:2].T / 0.07, atol=1e-3, rtol=1e-4)


def test_a_wrong_weight_shows(folder: Path, expected: Expected) -> None:
    """What the export prints is a comparison of numbers: other weights, another number."""
    from kaleido_fast.exports.huggingface import _difference

    weights = load_file(folder / "model.safetensors")
    weights["towers.embeddings.locations"][3, 0] += 0.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert _difference(folder, load_exported(expected.folder)) > 1e-3


def test_what_cannot_be_exported_is_refused(expected: Expected, tiny_shards: Path, tmp_path: Path) -> None:
    whole = load_exported(expected.folder)
    without = load_exported(exported_model(tmp_path / "without", tiny_shards))
    blind = load_exported(exported_model(tmp_path / "blind", tiny_shards, itc_dim=8, patch_encoder="none", patch_features=6,
                                         features="stored"))
    for model, message in (
        (without, "^export: this model was trained without contrast, .*; train with model.itc_dim=128"),
        (blind, r"^export: this model has no patch encoder \(model.patch_encoder=none\), so it reads no photographs; train"),
        (whole._replace(tokenizer=None), "^export: this model came without the words of its vocabulary, .*with its vocab.txt$"),
    ):
        with pytest.raises(ValueError, match=message):
            export_huggingface(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="not empty"):
        export_huggingface(whole, expected.folder)


@pytest.mark.parametrize("name", sorted(set(PATCH_ENCODERS) - {"none"}))
def test_towers_are_the_model_for_each_patch_encoder(name: str, expected: Expected) -> None:
    """And their modelling file is one module that Python reads."""
    compile(modelling_file(PATCH_ENCODERS[name]), "modeling_kaleido.py", "exec")
    tokenizer, preprocessing = load_exported(expected.folder)[1:]
    assert tokenizer is not None
    vocabulary = tokenizer.vocabulary()
    torch.manual_seed(3)
    model = KaleidoBertModel(
        ModelSettings(hidden=16, layers=1, heads=2, intermediate=32, itc_dim=8, patch_encoder=name, activation="gelu_erf",
                      locations="pixels", initializer_range=0.3),
        KaleidoSettings(grids=(1, 3), tasks=(), patch_size=18), VocabularySettings(vocabulary.size, vocabulary.padded_size), 36)
    if isinstance(model.patch_encoder, PretrainedEncoder):
        model.patch_encoder.draw()
    pretrained = Pretrained(model.eval(), tokenizer, preprocessing)
    pairs, towers = drawn_pairs(pretrained, 2), towers_of(pretrained)
    with torch.no_grad():
        torch.testing.assert_close(towers.photographs(pairs.squares), pairs.photographs, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(towers.texts(pairs.tokens, pairs.attention_mask), pairs.texts, atol=2e-5, rtol=1e-4)
        itm = towers.pairs(pairs.tokens, pairs.attention_mask, pairs.squares)[1]
        torch.testing.assert_close(itm, pairs.itm, atol=1e-4, rtol=1e-4)
