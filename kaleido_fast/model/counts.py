"""How many rows each loss averages over, from what the host knows of a batch (SPEC 7 'Loss'): no device is asked."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from kaleido_fast.kernels.plan_rules import GROUP, PlanRules, token_budget
from kaleido_fast.model.kaleido_tasks import KaleidoTask, active_tasks, num_slots
from kaleido_fast.model.settings import KaleidoSettings


@dataclass(frozen=True, slots=True)
class RowCounter:
    """Counts the valid rows of each active loss in a micro-batch."""

    kaleido: KaleidoSettings
    rules: PlanRules
    on_mismatched: Collection[str]  # losses computed on mismatched samples too, besides itm

    def count(
        self, *, lengths: np.ndarray, match: np.ndarray, present: np.ndarray, image_products: np.ndarray,
        num_masked: np.ndarray | None = None,
    ) -> dict[str, int]:
        """Valid rows by loss, for (B,) arrays of whole groups; holes count nowhere.

        Args:
            num_masked: (B,) masked tokens under a plan that is fixed; such a plan has a camouflage label for every
                sample, whatever the group. None: the plan is drawn.
        """
        present = present.astype(bool)
        masked = num_masked if num_masked is not None else \
            token_budget(np.maximum(lengths.astype(np.int64) - 2, 0), self.rules.max_masked_tokens)
        donors = present if num_masked is not None or "camouflage" not in self.kaleido.tasks else \
            has_donor(image_products, present)
        rows = {"amlm": int(masked[self.counted("amlm", match, present)].sum()), "itm": int(present.sum())}
        for task in active_tasks(self.kaleido):
            counted = self.counted(task.name, match, present)
            rows[task.name] = self._task_rows(task, counted, donors)
        return rows

    def counted(self, loss: str, match: np.ndarray, present: np.ndarray) -> np.ndarray:
        """(B,) bool: samples whose rows count in `loss`."""
        return present if loss == "itm" or loss in self.on_mismatched else present & match

    def _task_rows(self, task: KaleidoTask, counted: np.ndarray, donors: np.ndarray) -> int:
        if task.kind == "color":
            return int(counted.sum()) * num_slots(task, self.kaleido)
        return int((counted & donors if task.name == "camouflage" else counted).sum())


def has_donor(image_products: np.ndarray, present: np.ndarray) -> np.ndarray:
    """(B,) bool: some present member of the sample's group shows another product."""
    products, here = image_products.reshape(-1, GROUP), present.reshape(-1, GROUP)
    other = (products[:, :, None] != products[:, None, :]) & here[:, None, :]
    return other.any(axis=2).reshape(-1) & present
