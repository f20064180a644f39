"""`kaleido-fast import-tf`: the authors' checkpoint as a folder for from_pretrained, and what is refused by one line."""

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kaleido_fast import KaleidoBert
from kaleido_fast.authors.config import settings_of_config
from kaleido_fast.authors.weights import SCOPE, from_authors
from kaleido_fast.cli import main
from kaleido_fast.model.patch_encoders.resnet50 import Resnet50Encoder
from tests.authors.tensorflow import writer as tf_writer
from tests.authors.variables import authors_variables, to_authors
from tests.places import GOLDEN

CHECKPOINT = GOLDEN / "tf_checkpoint" / "model.ckpt-4"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(995))]


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    return tf_writer


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    """The authors' variables after step 4, as NumPy stored them."""
    with np.load(GOLDEN / "kaleido_bert_small.npz") as arrays:
        prefix = "steps/4/weights/"
        return {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return json.loads(CHECKPOINT.with_name("config.json").read_text())


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(WORDS))
    return file


def test_the_weights_bit_for_bit(tmp_path: Path, weights: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "imported"
    assert main(["import-tf", "--checkpoint", str(CHECKPOINT), "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{out}: 75 variables, 203,407 numbers of {CHECKPOINT}, step 4 ({SCOPE})"
    assert said[1].startswith("left: 150 slots of Adam with beta1_power, beta2_power, global_step;")
    assert said[2].startswith("no vocabulary: ") and said[3].startswith("no patch encoder: ") and len(said) == 4
    assert sorted(path.name for path in out.iterdir()) == ["model.json", "model.safetensors", "preprocessing.json"]
    model = KaleidoBert.from_pretrained(out).model
    assert not model.training and model.settings.patch_features == 96
    again = to_authors(model.state_dict(), model, template=weights)
    assert again.keys() == weights.keys()
    assert all(again[name].tobytes() == weights[name].tobytes() for name in weights)


def test_without_vocabulary_and_patch_encoder_it_says_what_is_missing(tmp_path: Path, vocab: Path) -> None:
    bare, worded = tmp_path / "bare", tmp_path / "worded"
    arguments = ["import-tf", "--checkpoint", str(CHECKPOINT)]
    assert main([*arguments, "--out", str(bare)]) == 0 == main([*arguments, "--out", str(worded), "--vocab", str(vocab)])
    model, picture = KaleidoBert.from_pretrained(bare), np.zeros((32, 32, 3), np.uint8)
    for call in (lambda: model.score(picture, "word1"), lambda: model.pooled_text("word1")):
        with pytest.raises(ValueError, match="no vocabulary; import it again .`kaleido-fast import-tf`. with vocab, or"):
            call()
    for call in (lambda: model.pooled_image(picture), lambda: KaleidoBert.from_pretrained(worded).score(picture, "word1")):
        with pytest.raises(ValueError, match="no patch encoder, .* import it again .`kaleido-fast import-tf`. with resnet50"):
            call()
    pooled = KaleidoBert.from_pretrained(worded).pooled_text(["word1 word2", "word3"])
    ids = torch.tensor([[2, 6, 7, 3], [2, 8, 3, 0]], dtype=torch.int32)
    lengths = torch.tensor([4, 3], dtype=torch.int32)
    with torch.no_grad():
        expected = model.model.encode(ids, lengths, [4, 3], torch.empty(0, 0, 96), torch.empty(2, 0).int(), levels=()).pooled
    torch.testing.assert_close(pooled, expected)
    shutil.copyfile(vocab, bare / "vocab.txt")
    with pytest.raises(ValueError, match="vocab.txt: not the vocabulary"):
        KaleidoBert.from_pretrained(bare)


def test_another_scope_other_types_and_several_files(
    tmp_path: Path, weights: dict[str, np.ndarray], writer: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another scope, fp64 and bfloat16, three data files, slots of the authors' own Adam, variables of another model."""
    theirs: dict[str, Any] = {name.replace(SCOPE, "mine/"): value.astype(np.float64) for name, value in weights.items()}
    bits = np.ascontiguousarray(weights[f"{SCOPE}bert/pooler/dense/bias"]).view(np.uint32) >> 16
    theirs["mine/bert/pooler/dense/bias"] = writer.Bfloat16(bits)
    theirs |= {"mine/bert/pooler/dense/bias/adam_m": np.zeros(64, np.float32), "other/kernel": np.ones(3, np.float32),
               "mine/head": np.ones(3, np.float32), "names": np.array([True])}
    prefix = writer.write_checkpoint(tmp_path / "c", theirs, 3)
    arguments = ["import-tf", "--checkpoint", f"{prefix}.index", "--config", str(CHECKPOINT.with_name("config.json"))]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert "2 variables outside of mine/: names, other/kernel; leave them with --allow-unexpected" in capsys.readouterr().err
    assert main([*arguments, "--out", str(tmp_path / "out"), "--allow-unexpected"]) == 0
    said = capsys.readouterr().out
    assert "(mine/)" in said and "left: 1 slots of Adam with no counters" in said
    assert "left: 3 variables that are not the model's: names, other/kernel, mine/head" in said
    model = KaleidoBert.from_pretrained(tmp_path / "out").model
    expected = weights | {f"{SCOPE}bert/pooler/dense/bias": (bits << 16).view(np.float32)}
    for name, value in from_authors(expected, model).items():
        assert torch.equal(model.state_dict()[name], value), name


def test_a_resnet50_reads_pictures(tmp_path: Path, config: dict[str, Any], writer: ModuleType, vocab: Path) -> None:
    """A checkpoint of features as wide as the authors': with a ResNet-50's weights it scores pictures."""
    small = config | {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
                      "patch_feature_size": 2048}
    (tmp_path / "config.json").write_text(json.dumps(small))
    draw = np.random.default_rng(0)
    shapes = authors_variables(*settings_of_config(small))
    writer.write_checkpoint(tmp_path / "c", {name: draw.standard_normal(shape).astype(np.float32) * 0.2
                                             for name, shape in shapes.items()})
    torch.manual_seed(0)
    encoder = Resnet50Encoder(48, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    encoder.draw()
    save_file({name: value.contiguous() for name, value in encoder.state_dict().items()}, tmp_path / "resnet50.safetensors")
    assert main(["import-tf", "--checkpoint", str(tmp_path / "c"), "--out", str(tmp_path / "out"), "--vocab", str(vocab),
                 "--resnet50", str(tmp_path / "resnet50.safetensors")]) == 0
    (tmp_path / "resnet50.safetensors").unlink()
    model = KaleidoBert.from_pretrained(tmp_path / "out")
    pictures = [draw.integers(0, 256, (64, 48, 3), dtype=np.uint8) for _ in range(2)]
    scores = model.score(pictures, ["word1 word7", "word3"])
    assert scores.shape == (2,) and scores.isfinite().all() and scores[0] != scores[1]
    found = model.model.patch_encoder.state_dict()
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in found.items())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no config", "config.json: no such file; give the checkpoint's config.json, of the authors' keys, as --config"),
        ("config is text", "config.json: not JSON: "),
        ("config is a list",
         "config.json: holds a JSON list, expected an object of keys and values; give the checkpoint's config.json"),
        ("config of BERT", "config.json: authors' config: no patch_feature_size, masked_greymask_patch_num"),
        ("config with text", "config.json: authors' config: hidden_size='64', expected a whole number"),
        ("config with half a layer", "config.json: authors' config: num_hidden_layers=1.5, expected a whole number"),
        ("config without heads", "config.json: authors' config: num_attention_heads=0 must be at least 1"),
        ("config with dropout", "config.json: authors' config: hidden_dropout_prob=1 must lie in 0..1"),
        ("config with long texts", "config.json: data.max_tokens=99 must lie in 3..model.max_positions=80"),
        ("another width",
         "of another shape: kaleido_bert_pre_trained_model/bert/embeddings/word_embeddings is (1000, 64), must be"),
        ("another depth", "missing: kaleido_bert_pre_trained_model/bert/encoder/layer_2/attention/self/query/kernel"),
        ("fewer layers", "16 unexpected: kaleido_bert_pre_trained_model/bert/encoder/layer_1"),
        ("one missing", "c.index: authors' weights: 1 missing: mine/bert/pooler/dense/bias; is config.json this checkpoint's?"),
        ("another model", "c.index: no variable '…bert/embeddings/word_embeddings' among its 1 (w); expected a Kaleido-BERT"),
        ("two models", "c.index: 2 models: 'a/', 'b/'; give one of them as --scope"),
        ("wrong scope", "no variable 'their/bert/embeddings/word_embeddings' among its 228 (beta1_power, beta2_power, "),
        ("integers", "'mine/bert/pooler/dense/bias' is int32; weights are one of float32, float64, float16, bfloat16"),
        ("not finite", "'mine/bert/pooler/dense/bias' holds values that are not finite in fp32"),
        ("damaged slot", "damaged: 'mine/bert/pooler/dense/bias/Adam' (bytes "),
        ("small vocabulary", "vocab.txt: 999 words, the checkpoint has 1,000; give the vocab.txt that it was trained with"),
        ("no vocabulary", "none.txt: cannot be read as a vocabulary"),
        ("resnet50", "--resnet50: the checkpoint's features are 96 numbers wide, ResNet-50's 2048; leave it out"),
        ("out is there", "not empty; give another --out or remove it"),
        ("no checkpoint", "none.index: no such file"),
    ],
)
def test_what_cannot_be_imported_is_one_line(
    tmp_path: Path, weights: dict[str, np.ndarray], config: dict[str, Any], writer: ModuleType, vocab: Path, kind: str,
    message: str, capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    arguments = _arguments(kind, tmp_path, dict(weights), config, writer, vocab)
    assert main(["import-tf", "--out", str(out), *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("kaleido-fast import-tf: ") and error.count("\n") == 1
    assert kind == "out is there" or not out.exists()


def _arguments(kind: str, folder: Path, weights: dict, config: dict, writer: ModuleType, vocab: Path) -> list[object]:
    """The spoilt command."""
    configs = {"config is text": "text", "config is a list": "[]",
               "config of BERT": json.dumps({key: config[key] for key in config if "patch" not in key}),
               "config with text": json.dumps(config | {"hidden_size": "64"}),
               "config with half a layer": json.dumps(config | {"num_hidden_layers": 1.5}),
               "config without heads": json.dumps(config | {"num_attention_heads": 0}),
               "config with dropout": json.dumps(config | {"hidden_dropout_prob": 1}),
               "config with long texts": json.dumps(config | {"text_seq_len": 99}),
               "another width": json.dumps(config | {"hidden_size": 32}),
               "another depth": json.dumps(config | {"num_hidden_layers": 3}),
               "fewer layers": json.dumps(config | {"num_hidden_layers": 1})}
    if kind in configs:
        (folder / "config.json").write_text(configs[kind])
        return ["--checkpoint", CHECKPOINT, "--config", folder / "config.json"]
    bias = "mine/bert/pooler/dense/bias"
    mine = {name.replace(SCOPE, "mine/"): value for name, value in weights.items()}
    words = mine["mine/bert/embeddings/word_embeddings"]
    written = {
        "no config": mine, "another model": {"w": words}, "integers": mine | {bias: np.zeros(64, np.int32)},
        "one missing": {name: value for name, value in mine.items() if name != bias},
        "two models": {"a/bert/embeddings/word_embeddings": words, "b/bert/embeddings/word_embeddings": words},
        "not finite": mine | {bias: np.full(64, 1e39)}, "damaged slot": mine | {f"{bias}/Adam": np.full(64, 7.5)}}
    if kind in written:
        prefix = writer.write_checkpoint(folder / "c", written[kind])
        if kind == "damaged slot":
            data = Path(f"{prefix}.data-00000-of-00001")
            data.write_bytes(data.read_bytes().replace(np.full(64, 7.5).tobytes(), np.full(64, 7.25).tobytes()))
        given = [] if kind == "no config" else ["--config", CHECKPOINT.with_name("config.json")]
        return ["--checkpoint", prefix, *given]
    if kind == "out is there":
        (folder / "out").mkdir()
        (folder / "out" / "file").touch()
    if kind == "small vocabulary":
        vocab.write_text("\n".join(WORDS[:-1]))
    return ["--checkpoint", folder / "none" if kind == "no checkpoint" else CHECKPOINT, *{
        "wrong scope": ["--scope", "their/"], "small vocabulary": ["--vocab", vocab],
        "no vocabulary": ["--vocab", folder / "none.txt"], "resnet50": ["--resnet50", "r.pth"]}.get(kind, [])]


