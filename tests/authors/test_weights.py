"""The authors' variables into our state dict and back; their config."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch

from kaleido_fast.authors.weights import SCOPE, from_authors
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from tests.authors.variables import authors_variables, settings_from_authors, to_authors
from tests.places import GOLDEN


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "kaleido_bert_small.npz") as arrays:
        return {name.removeprefix("weights/"): arrays[name] for name in arrays.files if name.startswith("weights/")}


@pytest.fixture(scope="module")
def config() -> dict:
    return json.loads((GOLDEN / "tf_checkpoint" / "config.json").read_text())


@pytest.fixture(scope="module")
def model(config: dict, theirs: dict[str, np.ndarray]) -> KaleidoBertModel:
    torch.manual_seed(0)
    return KaleidoBertModel(*settings_from_authors(config, theirs))


def test_the_table_names_their_75_variables(model: KaleidoBertModel, theirs: dict[str, np.ndarray]) -> None:
    table = authors_variables(model.settings, model.kaleido, model.vocabulary)
    assert len(table) == 75 and sum(int(np.prod(shape)) for shape in table.values()) == 203_407
    assert table == {name: value.shape for name, value in theirs.items()}


def test_there_and_back_bit_for_bit(model: KaleidoBertModel, theirs: dict[str, np.ndarray]) -> None:
    state = from_authors(theirs, model)
    missing, unexpected = model.load_state_dict(state, strict=True)
    assert not missing and not unexpected
    again = to_authors(model.state_dict(), model, template=theirs)
    assert again.keys() == theirs.keys()
    assert all(np.array_equal(again[name], theirs[name]) and again[name].dtype == np.float32 for name in theirs)


def test_rows_that_we_do_not_hold_are_zero_without_a_template(model: KaleidoBertModel, theirs: dict[str, np.ndarray]) -> None:
    again = to_authors(from_authors(theirs, model), model)
    lost = {name for name in theirs if not np.array_equal(again[name], theirs[name])}
    tables = {f"bert/{level}_type_embeddings" for level in (
        "rotation_embeddings/rotation", "jigsaw_embeddings/jigsaw", "camouflage_embeddings/camouflage",
        "greymask_embeddings/greymask", "blank_embeddings/blankmask")} | {"bert/embeddings/token_type_embeddings"}
    assert lost == {SCOPE + name for name in tables}
    for name, row in ((f"{SCOPE}bert/jigsaw_embeddings/jigsaw_type_embeddings", 2),
                      (f"{SCOPE}bert/embeddings/token_type_embeddings", 0)):
        assert np.array_equal(again[name][row], theirs[name][row]) and not np.delete(again[name], row, axis=0).any()


def test_every_number_of_ours_comes_from_them(model: KaleidoBertModel, theirs: dict[str, np.ndarray]) -> None:
    """Each of their numbers is another, so a part that went to the wrong place, or nowhere, would show."""
    numbered, start = {}, 1
    for name, value in theirs.items():
        numbered[name] = np.arange(start, start + value.size, dtype=np.float64).reshape(value.shape)
        start += value.size
    state = from_authors(numbered, model)
    assert state["embeddings.word.weight"].dtype == torch.float64
    assert not state["embeddings.word.weight"][1000:].any() and state["embeddings.word.weight"][:1000].all()
    rest = [value for key, value in state.items() if key != "embeddings.word.weight"]
    found = torch.cat([value.flatten() for value in [*rest, state["embeddings.word.weight"][:1000]]])
    assert found.all() and len(found.unique()) == len(found) == 203_407 - 64 * (5 * 5 + 1)
    query = numbered[f"{SCOPE}bert/encoder/layer_1/attention/self/key/kernel"]
    assert np.array_equal(state["encoder.layers.1.query_key_value.weight"][64:128].numpy(), query.T)
    assert np.array_equal(state["embeddings.level_segment"][4].numpy(),
                          numbered[f"{SCOPE}bert/blank_embeddings/blankmask_type_embeddings"][5])


def test_all_that_is_wrong_is_named_at_once(model: KaleidoBertModel, theirs: dict[str, np.ndarray]) -> None:
    wrong = dict(theirs)
    del wrong[f"{SCOPE}bert/position_dense"]
    wrong["global_step"] = np.zeros(())
    wrong[f"{SCOPE}cls/img_jigsaw/jiasaw_output_weights"] = np.zeros((24, 255), np.float32)
    wrong[f"{SCOPE}bert/rotation_embeddings/rotation_type_embeddings"] = np.zeros((1, 64), np.float32)
    with pytest.raises(ValueError) as error:
        from_authors(wrong, model)
    assert re.fullmatch(
        r"authors' weights: 1 missing: \S+/bert/position_dense; 1 unexpected: global_step; 2 of another shape: "
        r"\S+/rotation_type_embeddings is \(1, 64\), must be \(6, 64\), \S+/jiasaw_output_weights is \(24, 255\), must be "
        r"\(24, 256\)", str(error.value))


@pytest.mark.parametrize(
    ("settings", "kaleido", "message"),
    [({}, {"tasks": ("rotation",)}, r"with tasks \['rotation'\]; theirs are \[1, 2, 3, 4, 5\] and all of"),
     ({"patch_features": 0}, {}, "model.patch_features=0 must be the width of the features")],
)
def test_another_model_is_not_theirs(model: KaleidoBertModel, settings: dict, kaleido: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        authors_variables(dataclasses.replace(model.settings, **settings), dataclasses.replace(model.kaleido, **kaleido),
                          model.vocabulary)


def test_their_config_is_ours(model: KaleidoBertModel) -> None:
    settings, kaleido = model.settings, model.kaleido
    assert (settings.hidden, settings.layers, settings.heads, settings.intermediate) == (64, 2, 4, 128)
    assert (settings.max_positions, settings.patch_features, settings.locations) == (80, 96, "pixels")
    assert (settings.dropout, settings.attention_dropout, settings.activation) == (0.0, 0.0, "gelu_tanh")
    assert (kaleido.num_grey, kaleido.num_blank, model.vocabulary.size, model.vocabulary.padded_size) == (2, 3, 1000, 1024)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"hidden_size": None}, "authors' config: no hidden_size; expected the config.json"),
     ({"img_camouflage_label_num": 8}, "authors' config: img_camouflage_label_num=8, only 9 is supported"),
     ({"hidden_act": "relu"}, "authors' config: hidden_act=relu, only gelu is supported"),
     ({"num_attention_heads": 5}, "hidden_size=64 must be a multiple of num_attention_heads=5"),
     ({"num_hidden_layers": 1}, "16 unexpected: "),
     ({"vocab_size": 999}, r"word_embeddings is \(1000, 64\), must be \(999, 64\)")],
)
def test_a_config_that_does_not_fit_is_named(
    config: dict, theirs: dict[str, np.ndarray], change: dict, message: str
) -> None:
    changed = {key: value for key, value in (config | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        settings_from_authors(changed, theirs)
