"""Batches of samples with stored features and a fixed plan: no photograph is read, nothing is drawn.

The host's work (table rows, blocks of the store) is done by a thread, some batches ahead of the step; the packed rows of a
batch go up in one piece and become fp32 on the device.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.authors.feature_samples import StoredSamples, require_plan, require_width
from kaleido_fast.authors.fixed_plan import fixed_plan, rows_in_place
from kaleido_fast.authors.plan_file import hole_rows, plausible_plans
from kaleido_fast.data.batches.batch import Batch, HostBatch
from kaleido_fast.data.batches.upload import Upload
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import REPAIR, Split
from kaleido_fast.data.shards.token_rows import token_rows
from kaleido_fast.data.store.row_format import unpack_rows

PLANNED = ("rotation", "permutation", "camouflage", "grey_slots", "blank_slots")  # besides the masks
Order = Callable[[int], tuple[np.ndarray, np.ndarray]]  # samples (-1: absent) and epochs of the i-th batch


@dataclass(frozen=True, slots=True)
class _HostPart:
    """What the thread hands over."""

    host: HostBatch
    keys: np.ndarray  # (B,) uint64
    epochs: np.ndarray  # (B,) int64
    tokens: np.ndarray  # (B, T) int32
    plans: np.ndarray  # (B,) plan_dtype
    locations: np.ndarray  # (B, K, 5) int32
    packed: Tensor  # (B, rows, row_bytes) uint8


class StoredBatches:
    """An endless iterator of batches in an order.

    Args:
        holes: takes the samples that cannot be used, and why.
    Raises:
        ValueError: the shards have no stored features or no plan; data.max_tokens is not the files' width.
    """

    def __init__(
        self, split: Split, settings: DataSettings, order: Order, micro_batch: int, device: torch.device,
        holes: dict[str, str] | None = None,
    ) -> None:
        self._stored = StoredSamples(split)
        require_plan(split.folder, split.manifest)
        require_width(split, settings.max_tokens)
        self._split, self._settings, self._order = split, settings, order
        self._micro_batch, self._upload = micro_batch, Upload(device)
        self.holes: dict[str, str] = {} if holes is None else holes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stored-features")
        self._parts: deque[Future[_HostPart]] = deque()
        self._number = 0

    def __next__(self) -> Batch:
        while len(self._parts) <= self._settings.prefetch:
            self._parts.append(self._thread.submit(self._host_part, self._number))
            self._number += 1
        return self._batch(self._parts.popleft().result())

    def _host_part(self, number: int) -> _HostPart:
        samples, epochs = self._order(number)
        there, present = np.maximum(samples, 0), samples >= 0
        rows, plans = self._split.rows(there), self._stored.plans(there)
        lengths = np.clip(rows["num_tokens"], 0, self._split.manifest.token_width) + 2
        odd = ~(self._split.plausible(rows) & plausible_plans(plans, lengths, self._split.manifest.vocabulary.size))
        self._drop(odd, samples, present, f"its row in the table or in the plan holds numbers that cannot be; {REPAIR}")
        packed = self._packed()
        whole = self._stored.copy(np.where(present, samples, -1), packed.numpy().reshape(len(samples), -1))
        self._drop(~whole, samples, present, f"its features do not match their CRC32; {REPAIR}")
        rows[~present] = np.zeros(1, rows.dtype)
        plans[~present] = hole_rows(1)
        tokens, lengths = token_rows(rows["tokens"], rows["num_tokens"], self._split.manifest.vocabulary,
                                     self._settings.max_tokens)
        products, match = rows["product"].astype(np.int64), plans["match"] == 1
        masked = (plans["masked_positions"] >= 0).sum(axis=1).astype(np.int32)
        host = HostBatch(samples, products, products, lengths, match, present, masked)
        return _HostPart(host, rows["key"], epochs, tokens, plans, self._stored.locations(there), packed)

    def _packed(self) -> Tensor:
        """An empty batch of packed rows, where it can be uploaded from without waiting."""
        rows = self._stored.kind.rows
        return self._upload.empty(self._micro_batch, rows, self._stored.block_bytes // rows)

    def _drop(self, odd: np.ndarray, samples: np.ndarray, present: np.ndarray, reason: str) -> None:
        for index in np.flatnonzero(odd & present):
            present[index] = False
            self.holes[f"{self._split.name} sample {samples[index]}"] = reason

    def _batch(self, part: _HostPart) -> Batch:
        host, plans = part.host, part.plans
        planned = {name: plans[name] for name in ("masked_positions", "masked_labels", *PLANNED)}
        own = {"tokens": part.tokens, "lengths": host.lengths, "alignment": np.zeros(part.tokens.shape, np.int64),
               "keys": part.keys.view(np.int64), "image_products": host.image_products, "match": host.match,
               "present": host.present, "epochs": part.epochs, "locations": part.locations}
        there = self._upload(planned | own)
        rows = unpack_rows(self._upload.send(part.packed), self._stored.kind.dtype)
        plan = fixed_plan(there["tokens"], there["masked_positions"], there["masked_labels"],
                          **{name: there[name] for name in PLANNED})
        return Batch(images=None, **{name: there[name] for name in own}, text_products=there["image_products"], host=host,
                     plan=plan, features=rows_in_place(rows, plan.grey_slots))
