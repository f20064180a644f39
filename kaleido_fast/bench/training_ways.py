"""Ways to train on the same micro-batches: ours, the plain path, Hugging Face's VisualBERT, eager or compiled.

Each is a call that takes every optimizer step of a fixed list of micro-batches once, in the same precision: plan, patches
(cut and encoded, or read from a store's rows), forward, losses, backward, clipping and fused AdamW.

    kaleido_fast           packed rows, AMLM decoded where it is masked
    reference              the plain path: padded to T, decoder on all T rows, eager
    visualbert             Hugging Face's body, padded to T, under our heads, losses and optimizer; eager
    visualbert-compiled    the same with its body under torch.compile
    ours-eager, ours-compiled, ours-varlen, ours-xformers    ours under another model.compile or model.attention
    ours-without-itc       ours without contrast, where the config has it; VisualBERT trains without it in any case
"""

import importlib.util
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from kaleido_fast.bench.step_shape import Shape
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.upload import Upload
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.settings import Attention
from kaleido_fast.model.task_table import CONTRAST
from kaleido_fast.options import Option, OptionError
from kaleido_fast.reference.kaleido_bert import ReferenceKaleidoBert
from kaleido_fast.reference.losses import LossSettings
from kaleido_fast.reference.step import ReferenceStep
from kaleido_fast.reference.weights import from_fast
from kaleido_fast.training.build import build_step, rules_for, vocabulary_settings
from kaleido_fast.training.step import ClippedAdamW, PretrainStep, parameter_groups

OURS, REFERENCE, VISUALBERT, COMPILED = "kaleido_fast", "reference", "visualbert", "visualbert-compiled"
WITHOUT_CONTRAST = "ours-without-itc"
BASELINES = (REFERENCE, VISUALBERT, COMPILED)


class Otherwise(TypedDict, total=False):
    """Model settings that a way lays over the shape's."""

    compile: bool
    attention: Attention


OTHERWISE: dict[str, Otherwise] = {
    "ours-eager": {"compile": False}, "ours-compiled": {"compile": True}, "ours-varlen": {"attention": "varlen"},
    "ours-xformers": {"attention": "xformers"},
}


class Steps(ABC):
    """Optimizer steps over `batches`, `train.accumulation` micro-batches each; a call takes all of them once."""

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, batches: Sequence[Batch], shape: Shape) -> None:
        self.module, self.optimizer, self.shape, self.taken = module, optimizer, shape, 0
        size = shape.train.accumulation
        self.groups = [batches[first : first + size] for first in range(0, len(batches), size)]

    def __call__(self) -> Tensor:
        """The last micro-batch's loss."""
        loss = torch.zeros(())
        for group in self.groups:
            loss = self.step(group)
        return loss

    def step(self, group: Sequence[Batch]) -> Tensor:
        """One optimizer step."""
        num_rows = [self.count(batch) for batch in group]
        total = {name: float(sum(counted[name] for counted in num_rows)) for name in num_rows[0]}
        loss = torch.zeros(())
        for micro, (batch, counted) in enumerate(zip(group, num_rows, strict=True)):
            with torch.autocast(self.shape.run.device, torch.bfloat16, enabled=self.shape.train.precision == "bf16"):
                loss = self.loss(batch, counted, total, micro)
            loss.backward()
        self.update()
        self.taken += 1
        return loss.detach()

    @abstractmethod
    def count(self, batch: Batch) -> dict[str, int]:
        """Valid rows by loss; nothing of it waits for the device."""

    @abstractmethod
    def loss(self, batch: Batch, num_rows: Mapping[str, int], num_step_rows: Mapping[str, float], micro: int) -> Tensor:
        """A micro-batch's part of the step's loss."""

    def update(self) -> None:
        """Clip, move the weights, forget the gradients."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class OurSteps(Steps):
    """training.step.PretrainStep around our model or another of its kind, and our optimizer: what trains at stage 0, without
    DeepSpeed around it."""

    module: PretrainStep

    def __init__(
        self, shape: Shape, manifest: Manifest, batches: Sequence[Batch], model: KaleidoBertModel | None = None
    ) -> None:
        step = build_step(shape, manifest)
        if model is not None:
            model.patch_encoder = step.model.patch_encoder
            step.model = model.to(shape.device)
        self.upload, train = Upload(shape.device), shape.train
        super().__init__(step.train(), ClippedAdamW(
            parameter_groups(step, train.weight_decay), max_norm=train.clip_norm, lr=train.learning_rate, betas=train.betas,
            eps=train.eps), batches, shape)

    def count(self, batch: Batch) -> dict[str, int]:
        return self.module.count(batch)

    def loss(self, batch: Batch, num_rows: Mapping[str, int], num_step_rows: Mapping[str, float], micro: int) -> Tensor:
        key = self.upload({"key": np.array([self.shape.train.seed, self.taken, micro])})["key"]
        return self.module(batch, num_rows, num_step_rows, key).loss


class PlainSteps(Steps):
    """The plain step with the weights of ours, torch's clipping and fused AdamW."""

    module: ReferenceStep

    def __init__(self, shape: Shape, manifest: Manifest, batches: Sequence[Batch], ours: PretrainStep) -> None:
        train = shape.train
        model = ReferenceKaleidoBert(shape.model, shape.kaleido, vocabulary_settings(manifest), shape.data.image_size)
        model.load_state_dict(from_fast(ours.model.state_dict()))
        losses = LossSettings(train.task_weights, train.losses_on_mismatched, shape.reference, ours.itc_block)
        step = ReferenceStep(model, rules_for(shape, manifest), train.seed, losses).to(shape.device).train()
        self.counter, self.trained = ours, [parameter for parameter in step.parameters() if parameter.requires_grad]
        super().__init__(step, torch.optim.AdamW(
            self.trained, lr=train.learning_rate, betas=train.betas, eps=train.eps, weight_decay=train.weight_decay,
            fused=True), batches, shape)

    def count(self, batch: Batch) -> dict[str, int]:
        return self.counter.count(batch)

    def loss(self, batch: Batch, num_rows: Mapping[str, int], num_step_rows: Mapping[str, float], micro: int) -> Tensor:
        return self.module(batch, num_step_rows).loss

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.trained, self.shape.train.clip_norm)
        super().update()


def our_steps(shape: Shape, manifest: Manifest, batches: Sequence[Batch]) -> OurSteps:
    """Ours. Raises ValueError where the micro-batches are not whole steps."""
    if not batches or len(batches) % shape.train.accumulation:
        raise ValueError(f"bench: {len(batches)} micro-batches must be a multiple of train.accumulation="
                         f"{shape.train.accumulation}")
    torch.manual_seed(shape.train.seed)
    return OurSteps(shape, manifest, batches)


def other_ways(
    shape: Shape, manifest: Manifest, batches: Sequence[Batch], ours: OurSteps, names: Sequence[str]
) -> dict[str, Steps]:
    """The ways of these names; `names` have passed `check_ways`."""
    plain = without_contrast(shape)
    makers: dict[str, Callable[[], Steps]] = {
        REFERENCE: lambda: PlainSteps(shape, manifest, batches, ours.module),
        VISUALBERT: lambda: OurSteps(plain, manifest, batches, _visualbert(plain, manifest)),
        COMPILED: lambda: OurSteps(plain, manifest, batches, _visualbert(plain, manifest, compiled=True)),
        WITHOUT_CONTRAST: lambda: OurSteps(plain, manifest, batches),
    }
    for name, settings in OTHERWISE.items():
        other = replace(shape, model=replace(shape.model, **settings))
        makers[name] = partial(OurSteps, other, manifest, batches)
    return {name: makers[name]() for name in names}


def without_contrast(shape: Shape) -> Shape:
    """The same step with neither heads nor loss of contrast."""
    weights = {name: weight for name, weight in shape.train.task_weights.items() if name != CONTRAST}
    return replace(shape, model=replace(shape.model, itc_dim=0), train=replace(shape.train, task_weights=weights))


def check_ways(names: Sequence[str]) -> None:
    """Refuse (ValueError) an unknown way, or one whose package is missing."""
    known = (*BASELINES, *OTHERWISE, WITHOUT_CONTRAST)
    for name in names:
        if name not in known:
            raise OptionError(Option("against"), f"={name}: unknown; known are {', '.join(known)}")
        if missing := missing_package(name):
            raise OptionError(Option("against"), f"={name} needs {missing}, not found; install it or leave it out")


def missing_package(way: str) -> str | None:
    """What must be installed for a way and is not."""
    if way in (COMPILED, "ours-compiled") and shutil.which(os.environ.get("CXX", "g++")) is None:
        return "g++"
    needed = {VISUALBERT: "transformers", COMPILED: "transformers", "ours-xformers": "xformers"}.get(way)
    return needed if needed and importlib.util.find_spec(needed) is None else None


def _visualbert(shape: Shape, manifest: Manifest, compiled: bool = False) -> KaleidoBertModel:
    from kaleido_fast.bench.visualbert import VisualBert

    model = VisualBert(shape.model, shape.kaleido, vocabulary_settings(manifest), shape.data.image_size)
    if compiled:
        model.bert.compile(dynamic=False)
    return model
