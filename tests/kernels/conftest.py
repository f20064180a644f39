"""Batches for `plan`: the golden file's, and random ones of any size."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import PlanRules
from tests.kernels.plan_cases import FIVE, as_plan
from tests.places import GOLDEN

Batch = dict[str, Tensor]  # what a plan is drawn from, by name: PlanInputs, the seed, and the ITM label
PLANS = GOLDEN / "plan.npz"
COLUMNS = {
    "tokens": "tokens", "lengths": "lengths", "alignment": "alignment", "keys": "sample_key",
    "products": "product", "seed": "seed", "epochs": "epoch",
}


@pytest.fixture(scope="session")
def golden_batch() -> Batch:
    with np.load(PLANS) as file:
        columns = {name: np.array(file[f"inputs/{column}"]) for name, column in COLUMNS.items()}
    batch = {name: torch.from_numpy(column) for name, column in columns.items()}
    return batch | {"present": torch.ones(len(batch["tokens"]), dtype=torch.bool)}


@pytest.fixture(scope="session")
def golden_outputs() -> Plan:
    with np.load(PLANS) as file:
        names = [name for name in file if name.startswith("outputs/")]
        return as_plan({name.removeprefix("outputs/"): torch.from_numpy(file[name]) for name in names})


@pytest.fixture(scope="session")
def golden_rules() -> PlanRules:
    with np.load(PLANS) as file:
        ids = {name: int(file[f"inputs/{name}"]) for name in ("mask_id", "ordinary_first", "ordinary_last")}
    return PlanRules(**ids, tasks=FIVE)


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    """make_batch(num_samples, num_tokens, bits, seed): `bits` is the share of set alignment bits."""

    def make(num_samples: int, num_tokens: int = 24, bits: float = 0.02, seed: int = 0) -> Batch:
        generator = torch.Generator().manual_seed(seed)

        def integers(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, generator=generator)

        place = torch.arange(num_tokens)
        lengths = integers(2, num_tokens + 1, num_samples)
        inside = (place >= 1) & (place < lengths[:, None] - 1)
        is_set = torch.rand(num_samples, num_tokens, 64, generator=generator) < bits
        masks = (is_set.long() << torch.arange(64)).sum(dim=2)
        products = integers(0, max(2, num_samples // 2), num_samples)
        return {
            "tokens": torch.where(inside, integers(104, 1000, num_samples, num_tokens), 0).int(),
            "lengths": lengths.int(),
            "alignment": torch.where(inside, masks, 0),
            "keys": integers(-(2**63), 2**63 - 1, num_samples),
            "products": products,
            "present": torch.ones(num_samples, dtype=torch.bool),
            "match": integers(0, 2, num_samples).bool(),
            "seed": torch.tensor(0x0123456789ABCDEF),
            "epochs": integers(0, 2**28, num_samples),
        }

    return make
