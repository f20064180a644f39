"""The two paths under one face: forward with everything seen on the way, gradients, an update."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.patches import Pixels
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.reference.optimizer import OPTIMIZERS, clip_, reference_parameter_groups
from kaleido_fast.reference.step import ReferenceStep
from kaleido_fast.reference.weights import to_fast
from kaleido_fast.training.engine import build_optimizer
from kaleido_fast.training.settings import TrainSettings
from kaleido_fast.training.step import PretrainStep

Seen = dict[str, Tensor]  # by quantity, in the fast path's shapes


class Path(Protocol):
    """What both paths can do; tensors by KaleidoBertModel's names."""

    def forward(self) -> tuple[Tensor, Seen]:
        """The loss, and everything computed on the way to it."""

    def weights(self) -> dict[str, Tensor]:
        """The trained ones, as they are now."""

    def gradients(self) -> dict[str, Tensor]:
        """Of the last backward, before clipping; zeros where none came."""

    def update(self) -> None:
        """Clip, step, and forget the gradients."""


class FastPath:
    """Packed, with the operators, as it trains."""

    def __init__(self, step: PretrainStep, batch: Batch, train: TrainSettings) -> None:
        self.step, self.batch = step.train(), batch
        self.rows = step.count(batch)
        self.optimizer = build_optimizer(step, replace(train, zero_stage=0))  # from stage 1 on DeepSpeed would clip

    def forward(self) -> tuple[Tensor, Seen]:
        model = self.step.model
        seen: Seen = {}
        with outputs_of(fast_modules(model), seen):
            result = self.step(self.batch, self.rows, self.rows, None)
        seen |= {f"loss {name}": value for name, value in result.loss_sums.items()} | {"loss": result.loss}
        return result.loss, seen | {"rows": torch.tensor([self.rows[name] for name in sorted(self.rows)]),
                                    "plan": flat(self.step.plan_of(self.batch))}

    def weights(self) -> dict[str, Tensor]:
        return trained(self.step.model)

    def gradients(self) -> dict[str, Tensor]:
        return gradients_of(self.step.model)

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()


class ReferencePath:
    """Padded, eager, one module after the other."""

    def __init__(self, step: ReferenceStep, batch: Batch, train: TrainSettings, names: list[str]) -> None:
        self.step, self.batch, self.names, self.limit = step.train(), batch, names, train.clip_norm
        self.optimizer = OPTIMIZERS[train.optimizer](
            reference_parameter_groups(step.model, train.weight_decay, authors=train.optimizer == "authors"),
            lr=train.learning_rate, betas=train.betas, eps=train.eps)

    def forward(self) -> tuple[Tensor, Seen]:
        result = self.step(self.batch)
        outputs, losses = result.outputs, result.losses
        seen = {"plan": flat(result.plan),
                "rows": torch.tensor([int(losses.counted[name].sum()) for name in sorted(losses.counted)])}
        if isinstance(self.batch.patches, Pixels):
            parts = [result.features.rows, *([] if result.features.unturned is None else [result.features.unturned])]
            seen["features"] = torch.cat([part.flatten(0, 1) for part in parts])
        sequences = [(outputs.real, outputs.embeddings, outputs.sequence), *outputs.alone]
        seen |= {"embeddings": torch.cat([embeddings[real] for real, embeddings, _ in sequences]),
                 "encoder output": torch.cat([sequence[real] for real, _, sequence in sequences]), "pooled": outputs.pooled}
        if outputs.compared is not None:
            seen |= {"contrast photographs": outputs.compared.photographs, "contrast texts": outputs.compared.texts}
        for name, logits in outputs.logits.items():
            whole = logits.dim() == 2  # a class of every sample, whether it counts or not
            seen[f"logits {name}"] = logits if whole else logits[losses.counted[name]]
        seen |= {f"loss {name}": value for name, value in losses.sums.items()} | {"loss": result.loss}
        return result.loss, seen

    def weights(self) -> dict[str, Tensor]:
        return to_fast(trained(self.step.model), self.names)

    def gradients(self) -> dict[str, Tensor]:
        return to_fast(gradients_of(self.step.model), self.names)

    def update(self) -> None:
        clip_(self.step.model.parameters(), self.limit)
        self.optimizer.step()
        self.optimizer.zero_grad()


def flat(plan: Plan) -> Tensor:
    """All of a plan's numbers."""
    return torch.cat([part.flatten() for part in plan.tensors])


def trained(model: nn.Module) -> dict[str, Tensor]:
    """Trained parameters by name, detached."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    """Gradients by name; zeros where none came."""
    return {name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for name, parameter in model.named_parameters() if parameter.requires_grad}


def fast_modules(model: KaleidoBertModel) -> dict[nn.Module, Callable[[Any, Any], Seen]]:
    """What is seen of the inputs and output of the fast path's modules."""
    def named(name: str) -> Callable[[Any, Any], Seen]:
        return lambda inputs, output: {name: output}

    watched: dict[nn.Module, Callable[[Any, Any], Seen]] = {
        model.patch_encoder: named("features"),
        model.embeddings: lambda inputs, output: {"embeddings": output[0]},
        model.encoder: named("encoder output"),
        model.itm: lambda inputs, output: {"pooled": inputs[0], "logits itm": output},
        model.amlm: lambda inputs, output: {"logits amlm": model.amlm.logits(*inputs[:2])},
    }
    if model.contrast is not None:
        watched[model.contrast] = lambda inputs, output: {
            "contrast photographs": output[0].photographs, "contrast texts": output[0].texts}
    return watched | {head: named(f"logits {name}") for name, head in model.kaleido_heads.items()}


@contextmanager
def outputs_of(modules: dict[nn.Module, Callable[[Any, Any], Seen]], seen: Seen) -> Iterator[None]:
    """Collect in `seen` what the modules are called with and return."""
    def collect(look: Callable[[Any, Any], Seen]) -> Any:
        return lambda module, inputs, output: seen.update(look(inputs, output))

    handles = [module.register_forward_hook(collect(look)) for module, look in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
