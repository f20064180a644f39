"""Roles of parameters: those of their modules, on all of today's models what their names said."""

from pathlib import Path

import pytest
import torch
from torch import nn

from kaleido_fast.config import load_config
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.parameter_roles import ParameterRole, parameter_roles
from kaleido_fast.model.settings import VocabularySettings
from kaleido_fast.training.step import parameter_groups
from tests.places import REPO

CPU = ("run.device=cpu", "model.attention=sdpa", "model.compile=false", "train.precision=fp32")
LINEAR = ("model.patch_encoder=linear", "model.patch_encoder_weights=", "model.features=computed")


def _model(config_file: Path, *more: str) -> KaleidoBertModel:
    config = load_config(config_file, [*CPU, *more])
    with torch.device("meta"):
        return KaleidoBertModel(config.model, config.kaleido, VocabularySettings(), config.data.image_size)


def _role_by_name(name: str) -> ParameterRole:
    if name.endswith("log_scale"):
        return "scale"
    return "norm" if "norm" in name else "bias" if name.endswith("bias") else "weight"


@pytest.mark.parametrize("more", [(), LINEAR], ids=["as_is", "linear"])
@pytest.mark.parametrize("config_file", sorted((REPO / "configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_roles_are_what_the_names_say(config_file: Path, more: tuple[str, ...]) -> None:
    if not more and load_config(config_file).model.patch_encoder not in ("dct", "none"):
        more = ("model.patch_encoder_weights=random",)
    model = _model(config_file, *more)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    roles = [(names[id(parameter)], role) for parameter, role in parameter_roles(model)]
    assert roles == [(name, _role_by_name(name)) for name in names.values()]
    assert {role for _, role in roles} == {"norm", "bias", "weight"} | ({"scale"} if model.contrast is not None else set())
    for vectors_decay in (False, True):
        decaying, spared = parameter_groups(model, 0.1, vectors_decay=vectors_decay)
        by_name = [name for name, p in model.named_parameters() if p.requires_grad and (
            "norm" in name or "bias" in name or "scale" in name or (p.dim() < 2 and not vectors_decay))]
        assert [names[id(p)] for p in spared["params"]] == by_name
        assert len(decaying["params"]) + len(by_name) == len([p for p in model.parameters() if p.requires_grad])


class Named(nn.Module):
    """Names that mislead: a matrix called after a norm, a norm that is not called so."""

    norm_parameters = ("scale",)

    def __init__(self) -> None:
        super().__init__()
        self.normal_direction = nn.Parameter(torch.ones(3, 3))
        self.unbiased = nn.Parameter(torch.ones(3, 3))
        self.scale = nn.Parameter(torch.ones(2, 3))
        self.after = nn.LayerNorm(3)
        self.abnormal = nn.Linear(3, 3)


def test_a_name_decides_nothing() -> None:
    model = Named()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(parameter)]: role for parameter, role in parameter_roles(model)} == {
        "normal_direction": "weight", "unbiased": "weight", "scale": "norm", "after.weight": "norm", "after.bias": "norm",
        "abnormal.weight": "weight", "abnormal.bias": "bias"}
    decaying, _ = parameter_groups(model, 0.1)
    assert [names[id(p)] for p in decaying["params"]] == ["normal_direction", "unbiased", "abnormal.weight"]
