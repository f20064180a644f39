"""How many rows each loss averages over, from what the host knows of a batch (SPEC 7 'Loss'): no device is asked."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from kaleido_fast.kernels.plan_rules import GROUP, PlanRules, token_budget
from kaleido_fast.model.kaleido_tasks import active_tasks
from kaleido_fast.model.settings import KaleidoSettings
from kaleido_fast.model.task_table import CONTRAST

Flags = TypeVar("Flags", np.ndarray, Tensor)


def counted_samples(loss: str, match: Flags, present: Flags, on_mismatched: Collection[str]) -> Flags:
    """(B,) bool: the samples whose rows count in a loss (SPEC 6 'On mismatched samples'); on the host or on the device.

    Args:
        on_mismatched: losses that count on mismatched samples too, besides itm.
    """
    return present if loss in ("itm", CONTRAST) or loss in on_mismatched else present & match


@dataclass(frozen=True, slots=True)
class RowCounter:
    """Counts the valid rows of each active loss in a micro-batch."""

    kaleido: KaleidoSettings
    rules: PlanRules
    on_mismatched: Collection[str]  # as `counted_samples`
    contrast: bool = False  # whether that is a loss too

    def count(
        self, *, lengths: np.ndarray, match: np.ndarray, present: np.ndarray, image_products: np.ndarray,
        num_masked: np.ndarray | None = None,
    ) -> dict[str, int]:
        """Valid rows by loss, for (B,) arrays of whole groups; holes count nowhere.

        Args:
            num_masked: (B,) masked tokens under a plan that is fixed; in such a plan every swap has its donor. None: the
                plan is drawn.
        """
        present, tasks = present.astype(bool), active_tasks(self.kaleido)
        masked = num_masked if num_masked is not None else \
            token_budget(np.maximum(lengths.astype(np.int64) - 2, 0), self.rules.max_masked_tokens)
        swapped = present
        if num_masked is None and any(task.effect == "swap" for task in tasks):
            swapped = has_donor(image_products, present)

        def counted(loss: str) -> np.ndarray:
            return counted_samples(loss, match, present, self.on_mismatched)

        num_rows = {"amlm": int(masked[counted("amlm")].sum()), "itm": int(present.sum())}
        if self.contrast:
            num_rows[CONTRAST] = int(present.sum())
        for task in tasks:
            samples = counted(task.name) & swapped if task.effect == "swap" else counted(task.name)
            num_rows[task.name] = int(samples.sum()) * task.num_predictions
        return num_rows


def has_donor(image_products: np.ndarray, present: np.ndarray) -> np.ndarray:
    """(B,) bool: some present member of the sample's group shows another product."""
    products, is_present = image_products.reshape(-1, GROUP), present.reshape(-1, GROUP)
    other = (products[:, :, None] != products[:, None, :]) & is_present[:, None, :]
    return other.any(axis=2).reshape(-1) & present
