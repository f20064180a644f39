"""init.weights: a run starts from an exported or imported folder; what does not fit is refused."""

import dataclasses
from pathlib import Path

import pytest
import torch

from kaleido_fast.config import load_config
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.settings import UNKNOWN, KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.model.weights import load_weights, save_weights
from kaleido_fast.training.build import vocabulary_settings
from kaleido_fast.training.checkpoint import latest_checkpoint
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.weights_start import start_from_weights
from tests.places import DEMO
from tests.small import small_config

SHAPE = ModelSettings(hidden=32, layers=1, heads=4, intermediate=56)
KALEIDO = KaleidoSettings(patch_size=12)
WORDS = VocabularySettings(100, 128, "words")


def _model(vocabulary: VocabularySettings = WORDS, kaleido: KaleidoSettings = KALEIDO, **change) -> KaleidoBertModel:
    model = KaleidoBertModel(dataclasses.replace(SHAPE, **change), kaleido, vocabulary, 60)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


def _folder(path: Path, model: KaleidoBertModel) -> Path:
    save_weights(path, model, model.state_dict())
    return path


def test_all_weights_are_taken(tmp_path: Path) -> None:
    theirs, model = _model(dropout=0.5), KaleidoBertModel(SHAPE, KALEIDO, WORDS, 60)
    line = start_from_weights(model, _folder(tmp_path / "w", theirs), shards="shards")
    assert line == f"{tmp_path}/w: all weights, a new optimizer"
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("ready", ["theirs", "ours"])
def test_ready_features_stand_for_an_encoder_of_their_width(tmp_path: Path, ready: str) -> None:
    """An imported model ("none") behind a patch encoder, and an encoder's model over stored features."""
    none = {"patch_encoder": "none", "patch_features": 192}
    theirs = _model(dataclasses.replace(WORDS, fingerprint=UNKNOWN), **none if ready == "theirs" else {})
    model = KaleidoBertModel(dataclasses.replace(SHAPE, **none if ready == "ours" else {}), KALEIDO, WORDS, 60)
    line = start_from_weights(model, _folder(tmp_path / "w", theirs), shards="shards")
    assert line.endswith("all weights but the patch encoder, a new optimizer")
    state, given = model.state_dict(), theirs.state_dict()
    assert all(torch.equal(state[name], given[name]) for name in state.keys() & given.keys() if "patch_encoder" not in name)
    assert torch.equal(state["embeddings.projections.0.weight"], given["embeddings.projections.0.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 64, "locations": "pixels"}, r"w is of another shape than model.hidden=32, model.locations=unit; set "
                                                "model.hidden=64 model.locations=pixels"),
        ({"kaleido": dataclasses.replace(KALEIDO, grids=(1, 2, 3, 4, 5, 6))},
         r"kaleido.grids=\[1, 2, 3, 4, 5\]; set kaleido.grids="),
        ({"kaleido": dataclasses.replace(KALEIDO, tasks=("rotation",))},
         r"'kaleido_heads.blank_to_color.weight' is not in both"),
        ({"patch_encoder": "linear"}, "model.patch_encoder=dct; set model.patch_encoder=linear"),
        ({"patch_encoder": "none", "patch_features": 96}, "reads features of width 96, the run has 192"),
        ({"vocabulary": VocabularySettings(101, 128, "words")},
         "another vocabulary of 101 words than data.shards=shards, 100;"),
        ({"vocabulary": VocabularySettings(101, 128, "")}, "import it and prepare the shards with the same vocab.txt"),
        ({"vocabulary": VocabularySettings(100, 128, "others")}, "another vocabulary of 100 words than data.shards=shards"),
    ],
)
def test_another_model_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    model = _model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=f"init.weights: .*{message}"):
        start_from_weights(model, _folder(tmp_path / "w", _model(**change)), shards="shards")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="init.weights: .*none: no model.json there; expected model.safetensors and "
                                         "model.json"):
        start_from_weights(_model(), tmp_path / "none", shards="shards")
    with pytest.raises(ValueError, match="init.bert=a and init.weights=b: give one of the two"):
        load_config(DEMO, ["init.bert=a", "init.weights=b"])


def test_a_run_starts_from_it(tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = _model(vocabulary_settings(Manifest.read(tiny_shards)))
    folder, out = _folder(tmp_path / "w", theirs), tmp_path / "run"
    shape = (f"model.{key}={getattr(SHAPE, key)}" for key in ("hidden", "layers", "heads", "intermediate"))
    assert pretrain(small_config(tiny_shards, out, *shape, "train.steps=1", "train.learning_rate=0", "data.max_tokens=32",
                                 f"init.weights={folder}")) == 0
    assert f"init.weights: {folder}: all weights, a new optimizer" in capsys.readouterr().out
    saved = load_weights(latest_checkpoint(out / "checkpoints") / "weights").state_dict()
    assert all(torch.equal(saved[name], value) for name, value in theirs.state_dict().items())  # at learning rate 0


def test_contrast_that_one_model_has_starts_anew_or_is_left_out(tmp_path: Path) -> None:
    """Everything else is taken; of both models with other sizes neither."""
    model = _model(itc_dim=8)
    before = {name: value.clone() for name, value in model.contrast.state_dict().items()}
    theirs = _drawn_again(_model())
    line = start_from_weights(model, _folder(tmp_path / "without", theirs), shards="shards")
    assert line.endswith("all weights, a new optimizer; no contrast (itc) there, its heads and temperature start anew")
    assert all(torch.equal(value, before[name]) for name, value in model.contrast.state_dict().items())
    assert torch.equal(model.pooler.weight, theirs.pooler.weight)
    theirs, model = _drawn_again(_model(itc_dim=8)), _model()
    folder = _folder(tmp_path / "with", theirs)
    line = start_from_weights(model, folder, shards="shards")
    assert line.endswith("all weights, a new optimizer; its contrast (itc) is left out, model.itc_dim=0")
    assert torch.equal(model.pooler.weight, theirs.pooler.weight)
    model = _model(itc_dim=8)
    assert start_from_weights(model, folder, shards="shards").endswith("all weights, a new optimizer")
    assert all(torch.equal(value, theirs.contrast.state_dict()[name]) for name, value in model.contrast.state_dict().items())
    with pytest.raises(ValueError, match="is of another shape than model.itc_dim=16; set model.itc_dim=8"):
        start_from_weights(_model(itc_dim=16), folder, shards="shards")


def _drawn_again(model: KaleidoBertModel) -> KaleidoBertModel:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.neg_()
    return model
