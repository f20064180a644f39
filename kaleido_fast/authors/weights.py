"""The authors' weights by their variable names, into KaleidoBertModel's state dict.

Every variable of theirs is (a part of) one tensor of ours; `authors_table` is the whole mapping. Dense kernels lie (in,
out) there and (out, in) here; query, key and value are one matrix here; of the segment tables we hold the one row that is
read: row 0 of `token_type_embeddings`, row k of level k's own table (k from 1). What their tables hold more is never read. The
word table is padded here, with zeros.

The patch encoder is no part of this: their features come ready (`model.patch_encoder: none`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.model.kaleido_bert import PATCH_ENCODER, KaleidoBertModel
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.model.task_table import TASKS

SCOPE = "kaleido_bert_pre_trained_model/"
TOKEN_TYPES, PATCH_TYPES = 2, 6  # rows of their segment tables
# Of each level: the scope of its embeddings, and how the variables inside begin.
LEVELS = (("rotation", "rotation"), ("jigsaw", "jigsaw"), ("camouflage", "camouflage"), ("greymask", "greymask"),
          ("blank", "blankmask"))
# Of each task: the scope of its head, its weights (two are misspelt) and its bias.
HEADS = {
    "rotation": ("img_rotation", "rotation_output_weights", "rotation_output_bias"),
    "jigsaw": ("img_jigsaw", "jiasaw_output_weights", "jigsaw_output_bias"),
    "camouflage": ("img_camouflage", "camouflage_output_weights", "camouflage_output_bias"),
    "grey_to_color": ("img_greymask", "greymask_output_weights", ""),
    "blank_to_color": ("img_blankmask", "blanmask_output_weights", ""),
}


@dataclass(frozen=True, slots=True)
class AuthorsVariable:
    """One variable of the authors and where it lies in ours."""

    shape: tuple[int, ...]
    key: str  # of our state dict
    rows: slice | int | None = None  # of our tensor; None: all of it
    transposed: bool = False
    row: int | None = None  # the only one of their rows that is read; their table may have more

    def taken(self, value: Tensor) -> Tensor:
        """Ours of theirs."""
        return value.T if self.transposed else value if self.row is None else value[self.row]


def authors_table(
    model: ModelSettings, kaleido: KaleidoSettings, vocabulary: VocabularySettings
) -> dict[str, AuthorsVariable]:
    """All of the authors' variables by name, 75 for two layers; optimizer slots have the same shapes.

    Raises:
        ValueError: grids, tasks or patch encoder are not the authors'.
    """
    names = tuple(HEADS)
    if kaleido.grids != (1, 2, 3, 4, 5) or set(kaleido.tasks) != set(names) or kaleido.blank_grid != 5:
        raise ValueError(f"authors' weights: kaleido.grids={list(kaleido.grids)} with tasks {list(kaleido.tasks)}; theirs are "
                         f"[1, 2, 3, 4, 5] and all of {list(names)}")
    if not model.patch_features:
        raise ValueError("authors' weights: model.patch_features=0 must be the width of the features that they were trained "
                         "on (2048), with model.patch_encoder=none")
    table = _text(model, vocabulary) | _levels(model)
    for layer in range(model.layers):
        table |= _layer(model, layer)
    return {SCOPE + name: variable for name, variable in (table | _heads(model, vocabulary)).items()}


def from_authors(variables: Mapping[str, np.ndarray], model: KaleidoBertModel) -> dict[str, Tensor]:
    """The state dict of `model` without its patch encoder, in the arrays' dtype, on the CPU.

    Args:
        variables: by the authors' names, and no others. Gradients and optimizer slots convert alike.
    Raises:
        ValueError: variables that are missing, unexpected or of another shape, all of them named; other grids or tasks.
    """
    table = authors_table(model.settings, model.kaleido, model.vocabulary)
    check_variables({name: value.shape for name, value in variables.items()}, table)
    dtype = torch.from_numpy(np.zeros(0, next(iter(variables.values())).dtype)).dtype
    state = {key: torch.zeros(value.shape, dtype=dtype) for key, value in model.state_dict().items()
             if not key.startswith(PATCH_ENCODER)}
    for name, variable in table.items():
        ours = state[variable.key]
        part = ours if variable.rows is None else ours[variable.rows]
        part.copy_(variable.taken(torch.from_numpy(np.array(variables[name]))))
    return state


def check_variables(shapes: Mapping[str, tuple[int, ...]], table: Mapping[str, AuthorsVariable]) -> None:
    """Refuse shapes by name that are not those of `table`.

    Raises:
        ValueError: one sentence that names all that is missing, unexpected or of another shape.
    """
    wrong = [f"{name} is {tuple(shapes[name])}, must be {variable.shape}" for name, variable in table.items()
             if name in shapes and not _fits(tuple(shapes[name]), variable)]
    problems = [f"{len(names)} {what}: {', '.join(names)}" for what, names in (
        ("missing", [name for name in table if name not in shapes]),
        ("unexpected", [name for name in shapes if name not in table]),
        ("of another shape", wrong),
    ) if names]
    if problems:
        raise ValueError(f"authors' weights: {'; '.join(problems)}")


def _fits(shape: tuple[int, ...], variable: AuthorsVariable) -> bool:
    if variable.row is None or len(shape) != 2:
        return shape == variable.shape
    return shape[0] > variable.row and shape[1:] == variable.shape[1:]


def _text(model: ModelSettings, vocabulary: VocabularySettings) -> dict[str, AuthorsVariable]:
    hidden = model.hidden
    return {
        "bert/embeddings/word_embeddings": AuthorsVariable(
            (vocabulary.size, hidden), "embeddings.word.weight", slice(0, vocabulary.size)),
        "bert/embeddings/position_embeddings": AuthorsVariable((model.max_positions, hidden), "embeddings.position"),
        "bert/embeddings/token_type_embeddings": AuthorsVariable((TOKEN_TYPES, hidden), "embeddings.segment", row=0),
        **_embedding_norm("bert/embeddings/LayerNorm", hidden, 0),
        "bert/position_dense": AuthorsVariable((5, hidden), "embeddings.location.weight", transposed=True),
    }


def _levels(model: ModelSettings) -> dict[str, AuthorsVariable]:
    hidden, table = model.hidden, {}
    for number, (scope, name) in enumerate(LEVELS):
        prefix = f"bert/{scope}_embeddings/{name}"
        table[f"{prefix}_projector"] = AuthorsVariable(
            (model.patch_features, hidden), f"embeddings.projections.{number}.weight", transposed=True)
        table[f"{prefix}_type_embeddings"] = AuthorsVariable(
            (PATCH_TYPES, hidden), "embeddings.level_segment", number, row=number + 1)
        table |= _embedding_norm(f"{prefix}EmbLayerNorm", hidden, number + 1)
    return table


def _embedding_norm(name: str, hidden: int, row: int) -> dict[str, AuthorsVariable]:
    return {f"{name}/gamma": AuthorsVariable((hidden,), "embeddings.norm_weight", row),
            f"{name}/beta": AuthorsVariable((hidden,), "embeddings.norm_bias", row)}


def _layer(model: ModelSettings, number: int) -> dict[str, AuthorsVariable]:
    hidden, inner = model.hidden, model.intermediate
    theirs, ours, table = f"bert/encoder/layer_{number}", f"encoder.layers.{number}", {}
    for index, part in enumerate(("query", "key", "value")):
        rows = slice(index * hidden, (index + 1) * hidden)
        prefix = f"{theirs}/attention/self/{part}"
        table[f"{prefix}/kernel"] = AuthorsVariable((hidden, hidden), f"{ours}.query_key_value.weight", rows, transposed=True)
        table[f"{prefix}/bias"] = AuthorsVariable((hidden,), f"{ours}.query_key_value.bias", rows)
    table |= _dense(f"{theirs}/attention/output/dense", f"{ours}.attention_output", hidden, hidden)
    table |= _norm(f"{theirs}/attention/output/LayerNorm", f"{ours}.attention_norm", hidden)
    table |= _dense(f"{theirs}/intermediate/dense", f"{ours}.intermediate", hidden, inner)
    table |= _dense(f"{theirs}/output/dense", f"{ours}.output", inner, hidden)
    return table | _norm(f"{theirs}/output/LayerNorm", f"{ours}.output_norm", hidden)


def _heads(model: ModelSettings, vocabulary: VocabularySettings) -> dict[str, AuthorsVariable]:
    hidden = model.hidden
    table = _dense("bert/pooler/dense", "pooler", hidden, hidden)
    table |= _dense("cls/predictions/transform/dense", "amlm.dense", hidden, hidden)
    table |= _norm("cls/predictions/transform/LayerNorm", "amlm.norm", hidden)
    table["cls/predictions/output_bias"] = AuthorsVariable((vocabulary.size,), "amlm.bias")
    table["cls/seq_relationship/output_weights"] = AuthorsVariable((2, hidden), "itm.weight")
    table["cls/seq_relationship/output_bias"] = AuthorsVariable((2,), "itm.bias")
    for name, (scope, weights, bias) in HEADS.items():
        task, key = TASKS[name], f"kaleido_heads.{name}"
        if not task.num_classes:
            table[f"cls/{scope}/{weights}"] = AuthorsVariable((hidden, model.patch_features), f"{key}.weight", transposed=True)
            continue
        table[f"cls/{scope}/{weights}"] = AuthorsVariable((task.num_classes, task.grid**2 * hidden), f"{key}.classify.weight")
        table[f"cls/{scope}/{bias}"] = AuthorsVariable((task.num_classes,), f"{key}.classify.bias")
    return table


def _dense(theirs: str, ours: str, inputs: int, outputs: int) -> dict[str, AuthorsVariable]:
    return {f"{theirs}/kernel": AuthorsVariable((inputs, outputs), f"{ours}.weight", transposed=True),
            f"{theirs}/bias": AuthorsVariable((outputs,), f"{ours}.bias")}


def _norm(theirs: str, ours: str, hidden: int) -> dict[str, AuthorsVariable]:
    return {f"{theirs}/gamma": AuthorsVariable((hidden,), f"{ours}.weight"),
            f"{theirs}/beta": AuthorsVariable((hidden,), f"{ours}.bias")}
