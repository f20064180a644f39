"""The authors' variables of our weights, and our settings of theirs held against their shapes: `from_authors` back again."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from kaleido_fast.authors.config import settings_of_config
from kaleido_fast.authors.weights import AuthorsVariable, authors_table, check_variables
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings


def settings_from_authors(
    config: Mapping[str, Any], variables: Mapping[str, np.ndarray]
) -> tuple[ModelSettings, KaleidoSettings, VocabularySettings]:
    """The settings of the model that `from_authors` fills.

    Args:
        config: their config.json.
        variables: theirs by name (arrays, or whatever has a shape), to hold the config against.
    Raises:
        ValueError: a key is missing or says what our table of tasks cannot; variables that are missing, unexpected or of
            another shape than the config says.
    """
    settings = settings_of_config(config)
    check_variables({name: value.shape for name, value in variables.items()}, authors_table(*settings))
    return settings


def authors_variables(
    model: ModelSettings, kaleido: KaleidoSettings, vocabulary: VocabularySettings
) -> dict[str, tuple[int, ...]]:
    """Name and shape of each of the authors' variables under these settings; raises as `authors_table`."""
    return {name: variable.shape for name, variable in authors_table(model, kaleido, vocabulary).items()}


def to_authors(
    state: Mapping[str, Tensor], model: KaleidoBertModel, template: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """The authors' variables of a state dict of `model` (its own, or gradients or optimizer slots by the same keys).

    Args:
        template: variables to take those rows of the segment tables from that we do not hold; zero without.
    Raises:
        ValueError: other grids or tasks than the authors'.
    """
    template = template or {}
    table = authors_table(model.settings, model.kaleido, model.vocabulary)
    return {name: _given(variable, state[variable.key], template.get(name)) for name, variable in table.items()}


def _given(variable: AuthorsVariable, ours: Tensor, template: np.ndarray | None) -> np.ndarray:
    """Theirs of ours; rows that we do not hold from `template`, else zero."""
    part = (ours if variable.rows is None else ours[variable.rows]).detach().cpu().numpy()
    if variable.row is None:
        return np.ascontiguousarray(part.T if variable.transposed else part)
    whole = np.zeros(variable.shape, part.dtype) if template is None else template.astype(part.dtype)
    whole[variable.row] = part
    return whole
