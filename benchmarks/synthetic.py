"""Batches drawn at random for benchmarks: every sample its own, on the device asked for, no files needed."""

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.data.batch import Batch, HostBatch
from kaleido_fast.kernels.plan_rules import PlanRules

CLS, SEP, MASK, FIRST_ORDINARY, LAST_ORDINARY = 101, 102, 103, 999, 30521  # of BERT's uncased vocabulary
RULES = PlanRules(mask_id=MASK, ordinary_first=FIRST_ORDINARY, ordinary_last=LAST_ORDINARY)


def synthetic_batch(batch: int, width: int, image_size: int, device: str, seed: int = 0) -> Batch:
    """A batch as the loader hands it over: lengths from half to all of `width`, one token in five aligned."""
    generator = torch.Generator().manual_seed(seed)

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    place, lengths = torch.arange(width), integers(max(2, width // 2), width + 1, batch)
    inside = (place >= 1) & (place < lengths[:, None] - 1)
    tokens = torch.where(inside, integers(FIRST_ORDINARY, LAST_ORDINARY + 1, batch, width), 0)
    tokens[:, 0] = CLS
    tokens.scatter_(1, lengths[:, None] - 1, SEP)
    # Each aligned token goes with a quarter of all positions.
    bits = integers(0, 2**62, batch, width) & integers(0, 2**62, batch, width)
    alignment = torch.where(inside & (integers(0, 5, batch, width) == 0), bits, 0)
    products, match = torch.arange(batch), integers(0, 2, batch).bool()
    tensors = {
        "images": integers(0, 256, batch, image_size, image_size, 3).to(torch.uint8), "tokens": tokens.int(),
        "lengths": lengths.int(), "alignment": alignment, "keys": integers(-(2**63), 2**63 - 1, batch),
        "image_products": products, "text_products": products, "match": match,
        "present": torch.ones(batch, dtype=torch.bool), "epochs": torch.zeros(batch, dtype=torch.int64),
    }
    columns = ("image_products", "text_products", "lengths", "match", "present")
    host = HostBatch(samples=np.arange(batch), **{name: tensors[name].numpy() for name in columns})
    return Batch(**{name: tensor.to(device) for name, tensor in tensors.items()}, host=host)


def plan_arguments(batch: Batch) -> dict[str, Tensor]:
    """What plan_reference and plan_triton take."""
    names = ("tokens", "lengths", "alignment", "keys", "image_products", "present", "epochs")
    return {name: getattr(batch, name) for name in names} | {"seed": torch.tensor(0, device=batch.tokens.device)}
