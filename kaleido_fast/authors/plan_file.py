"""The plan that comes with the authors' features, one row a sample beside the shard: <shard>.plan.npy.

Everything was masked, turned, moved and greyed before the features were made; slots keep the file's order.
"""

from collections.abc import Mapping

import numpy as np

from kaleido_fast.authors.tsv_columns import BLANKED, GREYED, MASKED, TOKENS
from kaleido_fast.kernels.plan_rules import IGNORED, NONE


def plan_dtype() -> np.dtype:
    """A sample's row; fields as in kernels.plan.Plan, `match` as in Batch."""
    return np.dtype([
        ("masked_positions", "<i4", (MASKED,)), ("masked_labels", "<i4", (MASKED,)), ("rotation", "<i4"),
        ("permutation", "<i4"), ("camouflage", "<i4"), ("grey_slots", "<i4", (GREYED,)),
        ("blank_slots", "<i4", (BLANKED,)), ("match", "<i4"),
    ])


PLAN_BOUNDS = {
    "masked_positions": (NONE, TOKENS - 1), "rotation": (0, 3), "permutation": (0, 23), "camouflage": (0, 8),
    "grey_slots": (0, 15), "blank_slots": (0, 24), "match": (0, 1),
}


def plan_row(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """() `plan_dtype` from the columns of a row; places of weight 0 become NONE, their labels IGNORED."""
    row = np.zeros((), plan_dtype())
    counts = values["masked_lm_weights"] == 1
    row["masked_positions"] = np.where(counts, values["masked_lm_positions"], NONE)
    row["masked_labels"] = np.where(counts, values["masked_lm_ids"], IGNORED)
    row["rotation"], row["permutation"] = values["img_rotate_gt"][0], values["img_jigsaw_gt"][0]
    row["camouflage"], row["match"] = values["img_camouflage_gt"][0], values["nx_sent_labels"][0]
    row["grey_slots"], row["blank_slots"] = values["img_grey_lm_ids"], values["img_blank_lm_ids"]
    return row


def hole_rows(count: int) -> np.ndarray:
    """(count,) rows of samples that are not there: nothing is masked, no label counts."""
    rows = np.zeros(count, plan_dtype())
    for name in ("masked_positions", "grey_slots", "blank_slots"):
        rows[name] = NONE
    for name in ("masked_labels", "rotation", "permutation", "camouflage"):
        rows[name] = IGNORED
    rows["match"] = 1
    return rows


def plausible_plans(rows: np.ndarray, num_tokens: np.ndarray, vocabulary_size: int) -> np.ndarray:
    """(n,) bool: rows whose every number can be used without harm.

    Args:
        num_tokens: (n,) tokens of each text, [CLS] and [SEP] included.
    """
    fits = np.ones(len(rows), bool)
    for name, (least, most) in PLAN_BOUNDS.items():
        fits &= ((rows[name] >= least) & (rows[name] <= most)).reshape(len(rows), -1).all(axis=1)
    positions, labels = rows["masked_positions"], rows["masked_labels"]
    fits &= ((positions < num_tokens[:, None]) & np.where(
        positions == NONE, labels == IGNORED, (labels >= 0) & (labels < vocabulary_size))).all(axis=1)
    for name in ("grey_slots", "blank_slots"):
        fits &= (np.diff(np.sort(rows[name], axis=1), axis=1) > 0).all(axis=1)
    return fits
