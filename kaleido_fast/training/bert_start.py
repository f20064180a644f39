"""init.bert: a run starts from a Hugging Face BERT's folder (config.json, vocab.txt, model.safetensors; no pickle)."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from kaleido_fast.data.shards.tokenizer import Tokenizer
from kaleido_fast.model.bert_weights import LoadedBert, load_bert
from kaleido_fast.model.finite import require_finite
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.options import Option, OptionError

WEIGHTS, SETTINGS, VOCABULARY = "model.safetensors", "config.json", "vocab.txt"
ACTIVATIONS = {"gelu": "gelu_erf", "gelu_python": "gelu_erf", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
# Our setting, the BERT's name for it, what the BERT means where its file is silent.
SHAPE = (
    ("hidden", "hidden_size", 768), ("heads", "num_attention_heads", 12), ("intermediate", "intermediate_size", 3072),
    ("layer_norm_eps", "layer_norm_eps", 1e-12),
)


def start_from_bert(model: KaleidoBertModel, folder: Path, *, max_tokens: int, shards: str) -> LoadedBert:
    """Fill `model` from a BERT's folder, once all of it is known to fit.

    Args:
        max_tokens: places of the text that must have a position row.
        shards: named in messages.
    Raises:
        ValueError: a file is missing or damaged, weights are not finite, or model, vocabulary or text length differ from the
            BERT's.
    """
    if not folder.is_dir():
        raise ValueError(f"init.bert={folder}: no such folder; give one with {SETTINGS}, {VOCABULARY} and {WEIGHTS}")
    settings = _read_settings(folder / SETTINGS)
    _check_settings(folder, settings, model, max_tokens)
    _check_vocabulary(folder / VOCABULARY, model, shards)
    return load_bert(model, _read_weights(folder))


def describe_start(folder: str, loaded: LoadedBert, model: KaleidoBertModel) -> str:
    """One line for the log and the summary."""
    contrast = [] if model.contrast is None else ["contrast (itc)"]
    new = ", ".join([*loaded.random, "patch embeddings", "ITM and kaleido heads", *contrast])
    return (f"{folder}: its first {loaded.layers} of {loaded.bert_layers} layers are {loaded.layers} of "
            f"{model.settings.layers} here; random: {new}")


def _read_settings(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"init.bert: {file}: cannot be read as a BERT's settings: {error}") from None
    if not isinstance(settings, dict) or settings.get("model_type") != "bert":
        model_type = settings.get("model_type") if isinstance(settings, dict) else type(settings).__name__
        raise ValueError(f"init.bert: {file}: model_type '{model_type}', only 'bert' can be read")
    return settings


def _check_settings(folder: Path, theirs: dict[str, Any], model: KaleidoBertModel, max_tokens: int) -> None:
    activation = theirs.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise ValueError(f"init.bert: {folder / SETTINGS}: hidden_act '{activation}', the model has "
                         f"{' and '.join(ACTIVATIONS)}")
    if theirs.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(f"init.bert: {folder / SETTINGS}: position_embedding_type "
                         f"'{theirs['position_embedding_type']}', the model has 'absolute' alone")
    needed = {ours: theirs.get(name, default) for ours, name, default in SHAPE} | {"activation": ACTIVATIONS[activation]}
    other = {key: value for key, value in needed.items() if getattr(model.settings, key) != value}
    if other:
        differing = ", ".join(f"model.{key}={getattr(model.settings, key)}" for key in other)
        raise ValueError(f"init.bert: {folder} is of another shape than {differing}; set "
                         + " ".join(f"model.{key}={value}" for key, value in other.items()))
    positions = theirs.get("max_position_embeddings", 512)
    if positions < max_tokens:
        raise ValueError(f"init.bert: {folder} has {positions} positions, data.max_tokens={max_tokens} needs as many; "
                         f"set data.max_tokens={positions}")


def _check_vocabulary(file: Path, model: KaleidoBertModel, shards: str) -> None:
    theirs, ours = Tokenizer.from_vocab(file).vocabulary(), model.vocabulary
    if theirs.fingerprint != ours.fingerprint:
        words = f"{ours.size} words" if ours.size != theirs.size else "other words"
        raise OptionError(f"init.bert: {file} has {theirs.size} words, data.shards={shards} {words}; prepare shards with ",
                          Option(f"vocab={file}", f"{Option('vocab').flag} {file}"))


def _read_weights(folder: Path) -> dict[str, Any]:
    file = folder / WEIGHTS
    if not file.is_file():
        pickles = [path.name for path in sorted(folder.glob("*.bin"))]
        hint = (f"{pickles[0]} is a pickle, which is not read; write {WEIGHTS} from it with transformers' "
                "save_pretrained" if pickles else "expected a BERT saved by transformers' save_pretrained")
        raise ValueError(f"init.bert: {file}: missing; {hint}")
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"init.bert: {file}: damaged: {error}") from None
    require_finite(weights, f"init.bert: {file}", "give another BERT")
    return weights
