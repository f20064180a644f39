"""What the tensors of a training step take in memory, from shapes alone: the step's own code runs on tensors without data.

Nothing is computed and nothing of the model's size is allocated. Every storage that an operation makes is counted while it
lives, so the peak is that of the forward and backward as they are written. On a CPU the operations of kernels/ are followed
through their references, which make tensors of their own; on a GPU their kernels make none but the results. What one
operation of torch takes inside itself is not seen.
"""

import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kaleido_fast.bench.batches import noise_batch
from kaleido_fast.bench.step_shape import Shape
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.own_texts import OwnTexts
from kaleido_fast.data.batches.patches import Patches
from kaleido_fast.data.shards.manifest import Vocabulary
from kaleido_fast.kernels.cut import cut_reference
from kaleido_fast.kernels.embed import embed_backward_reference, embed_reference
from kaleido_fast.kernels.embed_inputs import Inputs
from kaleido_fast.kernels.softmax_kl import softmax_kl_reference
from kaleido_fast.kernels.tasks import from_lists
from kaleido_fast.model.kaleido_bert import PATCH_ENCODER, KaleidoBertModel
from kaleido_fast.model.kaleido_tasks import plan_rules
from kaleido_fast.model.settings import VocabularySettings
from kaleido_fast.training.step import PretrainStep


@dataclass(frozen=True, slots=True)
class StepMemory:
    """Bytes of one micro-batch's step on one worker."""

    parameters: Mapping[str, int]  # trained numbers by part of the model
    frozen: int  # of the patch encoder's weights
    batch: int  # the batch on the device
    forward: int  # what the forward leaves for the backward
    peak: int  # of both, without weights and batch; with the gradients made so far where they are kept

    @property
    def num_parameters(self) -> int:
        return sum(self.parameters.values())


def step_memory(shape: Shape, words: Vocabulary, lengths: np.ndarray, keep_gradients: bool = True) -> StepMemory:
    """Follow one step of micro-batches of (B,) `lengths` text tokens.

    Args:
        keep_gradients: whether gradients live until the optimizer's step; otherwise each goes when it is whole.
    """
    on_cpu, low = shape.run.device == "cpu", shape.train.precision == "bf16"
    # On a GPU all ways of attention hold their outputs and row sums alone, and so does "sdpa" here without dropout.
    attention_dropout = shape.model.attention_dropout if on_cpu else 0.0
    settings = replace(shape.model, attention="sdpa", attention_dropout=attention_dropout)
    batch = noise_batch(replace(shape, run=replace(shape.run, device="cpu")), words, lengths)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        model = _Shapes(settings, shape.kaleido, VocabularySettings(words.size, words.padded_size), shape.data.image_size)
        frozen = sum(_bytes(buffer) for buffer in model.patch_encoder.buffers())
        rules = plan_rules(shape.kaleido, mask_id=words.mask_id, ordinary_first=words.ordinary_first,
                           ordinary_last=words.ordinary_last)
        train = shape.train
        step = PretrainStep(model, rules, 0, train.task_weights, train.losses_on_mismatched, shape.reference,
                            train.itc_block if train.contrasts else 0).train()
        if low and shape.train.zero_stage:
            _to_bfloat16(step)
        if not keep_gradients:
            for parameter in step.parameters():
                parameter.register_post_accumulate_grad_hook(_drop)
        batch = _without_data(batch, fake)
        num_rows = step.count(batch)
        earlier = [*step.parameters(), *step.buffers(), *_tensors(batch)]
        with Living(earlier, REFERENCES if on_cpu else {}, casts=on_cpu) as living:
            with torch.autocast("cpu", torch.bfloat16, enabled=low and not shape.train.zero_stage):
                loss = step(batch, num_rows, num_rows, torch.zeros(3, dtype=torch.int64)).loss
            forward = living.now
            loss.backward()
    size = sum(map(_bytes, _tensors(batch)))
    return StepMemory(_parts(model), frozen, size, forward, living.peak)


class _Shapes(KaleidoBertModel):
    """The model without values in its tensors."""

    def _initialise(self) -> None:
        pass


class Living(TorchDispatchMode):
    """Bytes of the storages that operations made and that are still held, now and at most.

    Args:
        there: tensors that were there before; views of them take nothing.
        through: operations that are followed through a function with the same arguments.
        casts: whether an elementwise operation copies operands of another dtype first, as torch does on a CPU.
    """

    def __init__(self, earlier: Sequence[Tensor], through: Mapping[OpOverload, Callable[..., Any]],
        casts: bool = False) -> None:
        super().__init__()
        self._through, self._held = through, {tensor.untyped_storage()._cdata: 0 for tensor in earlier}
        self._casts = casts
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._through:
            with self:
                return self._through[func](*args)
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        if self._casts and torch.Tag.pointwise in func.tags:
            self.peak = max(self.peak, self.now + _cast_bytes(args))
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._held:
            self._held[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._held.pop(key)


def _cast_bytes(args: Any) -> int:
    """Of the copies of floating operands in the dtype that all are promoted to."""
    operands = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dim()]
    common = functools.reduce(torch.promote_types, (operand.dtype for operand in operands), torch.bfloat16)
    return sum(operand.numel() * common.itemsize for operand in operands if operand.dtype != common)


def _embed(*args: Any) -> tuple[Tensor, Tensor]:
    return embed_reference(Inputs(*args[:10]), *args[10:])


def _embed_backward(dpacked: Tensor, *args: Any) -> tuple[Tensor, ...]:
    return embed_backward_reference(dpacked, Inputs(*args[:10]), *args[10:])


def _cut(images: Tensor, labels: Tensor, slots: Tensor, *rest: Any) -> Tensor:
    mean, std, dtype, patch_size, grids, *tasks = rest
    return cut_reference(images, labels, slots, grids=grids, tasks=from_lists(*tasks), patch_size=patch_size, mean=mean,
                         std=std, dtype=dtype)


_OPS = torch.ops.kaleido_fast
REFERENCES: dict[OpOverload, Callable[..., Any]] = {
    _OPS.embed.default: _embed, _OPS.embed_backward.default: _embed_backward, _OPS.cut.default: _cut,
              _OPS.softmax_kl.default: softmax_kl_reference}


def _without_data(batch: Batch, fake: FakeTensorMode) -> Batch:
    """The batch with tensors of the same shapes."""
    def without(part: Batch | Patches | OwnTexts) -> dict[str, Any]:
        return {name: fake.from_tensor(value) for name, value in _named(part).items()}

    own = None if batch.own_texts is None else replace(batch.own_texts, **without(batch.own_texts))
    return replace(batch, patches=replace(batch.patches, **without(batch.patches)), own_texts=own, **without(batch))


def _named(part: Batch | Patches | OwnTexts) -> dict[str, Tensor]:
    return {field.name: value for field in fields(part) if isinstance(value := getattr(part, field.name), Tensor)}


def _tensors(batch: Batch) -> list[Tensor]:
    """All that lies on the device."""
    own = [] if batch.own_texts is None else _named(batch.own_texts).values()
    return [*_named(batch).values(), *_named(batch.patches).values(), *own]


def _parts(model: KaleidoBertModel) -> dict[str, int]:
    """Trained numbers of the embeddings, the encoder, the heads, and of a patch encoder that is trained."""
    numbers = {"embeddings": 0, "encoder": 0, "heads": 0, "patch encoder": 0}
    for name, parameter in model.named_parameters():
        part = "patch encoder" if name.startswith(PATCH_ENCODER) else name.partition(".")[0]
        numbers[part if part in numbers else "heads"] += parameter.numel()
    return numbers


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _to_bfloat16(step: torch.nn.Module) -> None:
    """As the engine does; `Module.bfloat16` cannot swap parameters without data."""
    for module in step.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = torch.nn.Parameter(parameter.detach().bfloat16())


def _drop(parameter: Tensor) -> None:
    parameter.grad = None
