"""What each parameter of a model is for, as the module that holds it says, whatever its name.

It decides how a parameter begins (SPEC 7) and whether it decays (SPEC 8). A module whose own parameters scale or shift
normed rows, without being one of torch's norms, lists their names in `norm_parameters`; one that sets the start of a
parameter itself and lets it never decay lists it in `scale_parameters`.
"""

from collections.abc import Iterator
from typing import Literal

from torch import nn

ParameterRole = Literal["norm", "bias", "weight", "scale"]
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def parameter_roles(model: nn.Module) -> Iterator[tuple[nn.Parameter, ParameterRole]]:
    """Each parameter once, in the order of `named_parameters`, with its role."""
    for path, parameter in model.named_parameters():
        holder, _, name = path.rpartition(".")
        yield parameter, _role(model.get_submodule(holder), name)


def _role(holder: nn.Module, name: str) -> ParameterRole:
    if isinstance(holder, NORMS) or name in getattr(holder, "norm_parameters", ()):
        return "norm"
    if name in getattr(holder, "scale_parameters", ()):
        return "scale"
    return "bias" if name == "bias" else "weight"
