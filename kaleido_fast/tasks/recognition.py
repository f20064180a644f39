"""Category and sub-category by a linear probe on the pooled output: of image, text or both (SPEC 9)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.progress_bar import ProgressBar
from kaleido_fast.tasks.metrics import accuracy, macro_f1, macro_f1_all
from kaleido_fast.tasks.probe import Labelled, train_probe
from kaleido_fast.tasks.settings import EvalSettings

INPUTS = ("image", "text", "both")


@dataclass(frozen=True, slots=True)
class Recognisable:
    """Products of one split as the probe sees them."""

    pooled: dict[str, Tensor]  # by input: (N, H) fp32, CPU
    category: np.ndarray  # (N,) int64
    subcategory: np.ndarray  # (N,) int64

    def labelled(self, kind: str, given: str) -> Labelled:
        """What the probe of `kind` ("category", "subcategory") sees when `given` is shown."""
        return Labelled(self.pooled[given], getattr(self, kind))


def choose_products(num_products: int, cap: int, seed: int) -> np.ndarray:
    """(n,) int64 ascending products of a split, at most `cap` (0: all), drawn by PCG64 from the seed."""
    if not cap or cap >= num_products:
        return np.arange(num_products)
    return np.sort(np.random.Generator(np.random.PCG64(seed)).choice(num_products, cap, replace=False))


def pool_products(
    pooled: Callable[[np.ndarray | None, np.ndarray | None], Tensor],
    samples: np.ndarray,
    products: np.ndarray,
    lengths: np.ndarray,
    batch: int,
) -> dict[str, Tensor]:
    """Pooled outputs of (N,) products by input, in their order; computed in order of text length.

    Args:
        pooled: of (B,) samples or None, and (B,) products or None.
        samples: the photograph that stands for each product.
        lengths: (N,) text length of each.
    """
    order = np.argsort(-lengths, kind="stable")
    outputs: dict[str, list[Tensor]] = {name: [] for name in INPUTS}
    with ProgressBar(len(order), "recognition", "product") as bar:
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            outputs["image"].append(pooled(samples[part], None).cpu())
            outputs["text"].append(pooled(None, products[part]).cpu())
            outputs["both"].append(pooled(samples[part], products[part]).cpu())
            bar.update(len(part))
    back = torch.from_numpy(np.argsort(order))
    return {name: torch.cat(parts)[back] for name, parts in outputs.items()}


def recognise(
    train: Recognisable,
    validation: Recognisable,
    test: Recognisable,
    num_classes: dict[str, int],
    settings: EvalSettings,
) -> dict[str, Any]:
    """eval.json's "category" and "subcategory", and "probe": how many products stood behind them.

    Args:
        num_classes: of "category" and of "subcategory", over all splits.
    """
    report: dict[str, Any] = {}
    for kind, classes in num_classes.items():
        report[kind] = {}
        for given in INPUTS:
            probe = train_probe(
                train.labelled(kind, given),
                validation.labelled(kind, given),
                classes,
                strengths=settings.probe_strengths,
                iterations=settings.probe_iterations,
            )
            labels = getattr(test, kind)
            predicted = probe.predict(test.pooled[given])
            report[kind][given] = {
                "accuracy": accuracy(predicted, labels),
                "macro_f1": macro_f1(predicted, labels),
                "macro_f1_all": macro_f1_all(predicted, labels, classes),
                "most_frequent": float(np.bincount(labels).max() / len(labels)),
                "strength": probe.strength,
            }
    report["probe"] = {
        f"{name}_products": len(split.category)
        for name, split in (("train", train), ("validation", validation), ("test", test))
    }
    return report
